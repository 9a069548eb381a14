"""HTTP/1.1 messages as bytes: what is written for a request, and what is known of an answer.

Pure. Sources: RFC 9110 (semantics), RFC 9112 (HTTP/1.1).
"""

from __future__ import annotations

from typing import NamedTuple

Headers = list[tuple[bytes, bytes]]

# RFC 9110, section 7.6.1, and what practice adds: they belong to one connection and are never forwarded.
HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
WITH_BODY = frozenset((b"POST", b"PUT", b"PATCH"))
"""Methods whose requests tell their length even where they have no body (RFC 9110, section 8.6)."""


class Head(NamedTuple):
    """Status and headers of an answer; header names are in lower case."""

    status: int
    headers: Headers

    def header(self, name: bytes) -> bytes | None:
        """The first header of that (lower-case) name."""
        return first(self.headers, name)


class Response(NamedTuple):
    """A whole answer; header names are in lower case."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The first header of that (lower-case) name."""
        return first(self.headers, name)


def first(headers: Headers, name: bytes) -> bytes | None:
    """The value of the first header of that name."""
    for key, value in headers:
        if key == name:
            return value
    return None


def encode_head(
    method: bytes, target: bytes, headers: Headers, host: bytes, length: int | None = None
) -> bytes:
    """Request line and headers; ``host`` is used when ``headers`` name none.

    ``length`` is the body's in bytes, where the request has to tell it. Raises ``ValueError`` for a part that
    would break the message's framing.
    """
    lines = [b"", *map(b": ".join, headers)]
    if length is not None:
        lines.append(b"content-length: %d" % length)
    fields = b"\r\n".join(lines)
    breaks = len(lines) + 1
    if b"\r\nhost: " not in fields:
        fields = b"\r\nhost: %b%b" % (host, fields)
        breaks += 1
    head = b"%b %b HTTP/1.1%b\r\n\r\n" % (method, target, fields)
    if not head.count(b"\n") == head.count(b"\r") == breaks or b"\0" in head or b" " in target or not target:
        raise ValueError(f"a request's head has a line break or a blank where none may be: {head[:200]!r}")
    return head


def chunk(data: bytes) -> bytes:
    """``data``, not empty, as one chunk (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
