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


def encode_fields(headers: Headers) -> bytes:
    """``headers`` as the lines of a head, each after a line break: its *fields* (RFC 9110, section 5).

    Raises ``ValueError`` for a header that would break the message's framing.
    """
    fields = b"\r\n".join([b"", *map(b": ".join, headers)])
    if not fields.count(b"\n") == fields.count(b"\r") == len(headers) or b"\0" in fields:
        raise ValueError(f"a request's head has a line break where none may be: {fields[:200]!r}")
    return fields


def decode_fields(fields: bytes) -> Headers:
    """The contrary of :func:`encode_fields`."""
    pairs = (line.partition(b": ") for line in fields.split(b"\r\n")[1:])
    return [(name, value) for name, _, value in pairs]


def encode_head(method: bytes, target: bytes, fields: bytes, host: bytes, length: int | None = None) -> bytes:
    """Request line and ``fields``; ``host`` is used when they name none.

    ``length`` is the body's in bytes, where the request has to tell it. Raises ``ValueError`` for a method or
    a target that would break the message's framing.
    """
    line = b"%b %b HTTP/1.1" % (method, target)
    if line.split() != [method, target, b"HTTP/1.1"] or b"\0" in line:
        raise ValueError(f"a request's head has a blank where none may be: {line[:200]!r}")
    named = b"" if b"\r\nhost: " in fields else b"\r\nhost: %b" % host
    if length is None:
        return b"%b%b%b\r\n\r\n" % (line, named, fields)
    return b"%b%b%b\r\ncontent-length: %d\r\n\r\n" % (line, named, fields, length)


def chunk(data: bytes) -> bytes:
    """``data``, not empty, as one chunk (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
