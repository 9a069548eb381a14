"""Errors of the platform as RFC 9457 problem documents.

Every problem that a caller can meet is named once in :class:`ProblemType`, with the status it has and what it
means; ``docs/problems.md`` is that table. The ``type`` of a problem is stable: programs may compare it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable

CONTENT_TYPE = b"application/problem+json"
_BASE = "https://torpor.dev/problems/"
_MAX_DETAIL = 300
_SHOWN = 20


class ProblemType(Enum):
    """Each kind of problem: its slug, its HTTP status and its title."""

    MALFORMED_EVENT = ("malformed-event", 400, "The request is not a valid CloudEvent")
    MALFORMED_REQUEST = ("malformed-request", 400, "The request cannot be understood")
    UNKNOWN_FUNCTION = ("unknown-function", 404, "There is no such function")
    UNKNOWN_BROKER = ("unknown-broker", 404, "There is no such broker")
    NOT_FOUND = ("not-found", 404, "There is nothing at this address")
    METHOD_NOT_ALLOWED = ("method-not-allowed", 405, "This address does not take this method")
    REQUEST_TIMEOUT = ("request-timeout", 408, "The request did not come in time")
    TOO_LARGE = ("too-large", 413, "What was sent is larger than allowed")
    UNSUPPORTED_MEDIA_TYPE = (
        "unsupported-media-type",
        415,
        "The content type is not one that can be read here",
    )
    MISDIRECTED = ("misdirected", 421, "This host name is not served here")
    INVALID_DATA = ("invalid-data", 422, "The data does not have the shape that the function takes")
    REJECTED = ("rejected", 422, "The function will never take this")
    BACKLOG_FULL = ("backlog-full", 429, "As many events wait for a trigger as may")
    HEADERS_TOO_LARGE = ("headers-too-large", 431, "The headers are larger than allowed")
    HANDLER_FAILED = ("handler-failed", 500, "The function failed")
    INVALID_REPLY = ("invalid-reply", 500, "The function returned something that cannot be sent")
    INTERNAL = ("internal", 500, "The platform failed")
    UPSTREAM_BROKEN = ("upstream-broken", 502, "The function's instance ended before it answered")
    OVERLOADED = ("overloaded", 503, "Too much is waiting already")
    UNAVAILABLE = ("unavailable", 503, "The platform cannot do this at the moment")
    TRY_AGAIN = ("try-again", 503, "The function cannot do this at the moment")
    START_FAILED = ("start-failed", 503, "The function cannot be started")
    DRAINING = ("draining", 503, "This instance is about to end")
    HELD_TOO_LONG = ("held-too-long", 504, "The function did not start in time")
    TIMED_OUT = ("timed-out", 504, "The function did not answer in time")

    def __init__(self, slug: str, status: int, title: str) -> None:
        self.slug = slug
        self.status = status
        self.title = title

    @property
    def uri(self) -> str:
        """The stable URI that stands in the document's ``type``."""
        return _BASE + self.slug


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem document (RFC 9457, section 3).

    ``detail`` says what was wrong with this very request and what was expected; ``extras`` are further
    members.
    """

    type: ProblemType
    detail: str
    request_id: str | None = None
    retry_after_seconds: int | None = None
    extras: dict[str, Any] | None = None

    @property
    def status(self) -> int:
        """The HTTP status that goes with it."""
        return self.type.status

    def body(self) -> bytes:
        """The document as JSON."""
        document: dict[str, Any] = {
            "type": self.type.uri,
            "title": self.type.title,
            "status": self.type.status,
            "detail": self.detail,
        }
        if self.request_id:
            document["requestId"] = self.request_id
        if self.extras:
            document.update(self.extras)
        return orjson.dumps(document)

    def headers(self, body: bytes) -> list[tuple[bytes, bytes]]:
        """The headers to send with ``body``, ``Retry-After`` (seconds) among them where it is known."""
        headers = [(b"content-type", CONTENT_TYPE), (b"content-length", b"%d" % len(body))]
        if self.request_id:
            headers.append((b"x-request-id", self.request_id.encode("latin-1", "replace")))
        if self.retry_after_seconds is not None:
            headers.append((b"retry-after", b"%d" % self.retry_after_seconds))
        return headers


def detail_of(content_type: bytes | None, body: bytes) -> str:
    """What a problem document says of what was wrong, at most 300 characters; nothing if ``body`` is none."""
    if content_type is None or content_type.partition(b";")[0].strip().lower() != CONTENT_TYPE:
        return ""
    try:
        detail = orjson.loads(body)["detail"]
    except (orjson.JSONDecodeError, TypeError, LookupError):
        return ""
    return detail[:_MAX_DETAIL] if isinstance(detail, str) else ""


def there_are(names: Iterable[str]) -> str:
    """What there is, for who named what there is not: the first names in their order, or ``none``."""
    return ", ".join(sorted(names)[:_SHOWN]) or "none"
