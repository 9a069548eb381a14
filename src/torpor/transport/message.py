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
_WITH_BODY = frozenset((b"POST", b"PUT", b"PATCH"))


class Head(NamedTuple):
    """Status and headers of an answer; header names are in lower case."""

    status: int
    headers: Headers

    def header(self, name: bytes) -> bytes | None:
        """The first header of that (lower-case) name."""
        return _first(self.headers, name)


class Response(NamedTuple):
    """A whole answer; header names are in lower case."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The first header of that (lower-case) name."""
        return _first(self.headers, name)


def _first(headers: Headers, name: bytes) -> bytes | None:
    return next((value for key, value in headers if key == name), None)


def encode_head(method: bytes, target: bytes, headers: Headers, host: bytes) -> bytes:
    """Request line and headers; ``host`` is used when ``headers`` name none.

    Raises ``ValueError`` for a part that would break the message's framing.
    """
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    head = b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, lines)
    count = len(headers) + 2
    if b"\r\nhost: " not in head:
        head = b"%b %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (method, target, host, lines)
        count += 1
    if (
        head.count(b"\n") != count
        or head.count(b"\r") != count
        or b"\0" in head
        or b" " in target
        or not target
    ):
        raise ValueError(f"a request's head has a line break or a blank where none may be: {head[:200]!r}")
    return head


def framed(method: bytes, headers: Headers, body: bytes) -> Headers:
    """``headers`` with the ``content-length`` that ``body`` needs (RFC 9110, section 8.6)."""
    if body or method in _WITH_BODY:
        return [*headers, (b"content-length", b"%d" % len(body))]
    return headers


def chunk(data: bytes) -> bytes:
    """``data``, not empty, as one chunk (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
