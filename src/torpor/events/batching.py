"""What goes into one call for several events, and what its answer says of each of them. Pure.

An answer of 2xx is for all events of the batch but those that its header ``torpor-failed-ids`` names: their
ids, percent-encoded (RFC 3986, section 2.1) and separated by commas. Each of those counts as answered with
503. So no two events of a batch have the same id. An answer that names what was not in the batch says nothing
that can be relied on: it counts as 502 for all. Any other status is for all events.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import orjson

from torpor.binding import BATCH, encode_batch
from torpor.problems import CONTENT_TYPE
from torpor.transport import Response, encode_fields

if TYPE_CHECKING:
    from torpor.binding import WireEvent

FAILED_IDS = b"torpor-failed-ids"
UNDERSTANDS = (b"torpor-batch", b"partial")
"""Header of the call: that single events may be named as failed."""
MAX_BYTES = 8 * 1024 * 1024
"""Most of one batch, as far as it has more than one event."""
_PER_ATTRIBUTE = 6  # quotes, colon and comma
_RETRY_AFTER = b"retry-after"


@dataclass(slots=True)
class Contents:
    """The events of one call, at most ``size``."""

    size: int
    events: list[WireEvent] = field(default_factory=list)
    attempt: int = 0
    """The highest attempt of an event in it."""
    _ids: set[str] = field(default_factory=set)
    _bytes: int = 0

    @property
    def full(self) -> bool:
        """Whether there is no place for another one."""
        return len(self.events) >= self.size

    def takes(self, event: WireEvent) -> bool:
        """Whether ``event`` can go with those that are there."""
        if not self.events:
            return True
        return not self.full and event.id not in self._ids and self._bytes + _size(event) <= MAX_BYTES

    def add(self, event: WireEvent, attempt: int) -> None:
        """Put in an event that it :meth:`takes`, at its ``attempt``-th delivery."""
        self.events.append(event)
        self._ids.add(event.id)
        self._bytes += _size(event)
        self.attempt = max(self.attempt, attempt)

    def request(self) -> tuple[bytes, bytes]:
        """What is sent: header lines and body."""
        headers = [(b"content-type", BATCH), UNDERSTANDS, (b"torpor-attempt", b"%d" % self.attempt)]
        return encode_fields(headers), encode_batch(self.events)


def _size(event: WireEvent) -> int:
    attributes = sum(len(name) + len(value) + _PER_ATTRIBUTE for name, value in event.attributes.items())
    # Data that is not JSON is written as base64.
    return attributes + len(event.data or b"") * 4 // 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer says: ``of_all`` but of the ``failed`` ids, of which each has ``of_failed``."""

    of_all: Response
    of_failed: Response
    failed: frozenset[str] = frozenset()

    def of(self, event: WireEvent) -> Response:
        """What it says of ``event``."""
        return self.of_failed if event.id in self.failed else self.of_all


def verdict(response: Response, contents: Contents) -> Verdict:
    """What ``response`` says of each event of the batch."""
    lines = [value for name, value in response.headers if name == FAILED_IDS]
    if not 200 <= response.status < 300 or not lines:
        return Verdict(response, response)
    ids = filter(None, map(bytes.strip, b",".join(lines).split(b",")))  # RFC 9110, section 5.3
    failed = frozenset(unquote_to_bytes(each).decode("utf-8", "replace") for each in ids)
    if unknown := failed - {event.id for event in contents.events}:
        refused = _in_place(
            502, f"its answer names {min(unknown)[:200]!r} as failed, which was not in the batch"
        )
        return Verdict(refused, refused)
    asked = response.header(_RETRY_AFTER)
    headers = [] if asked is None else [(_RETRY_AFTER, asked)]
    told = f"its answer to the batch, {response.status}, names this event as failed"
    return Verdict(response, _in_place(503, told, *headers), failed)


def _in_place(status: int, detail: str, *headers: tuple[bytes, bytes]) -> Response:
    """What stands for an answer that the function did not give in these words; people see ``detail``."""
    body = orjson.dumps({"detail": detail.encode("utf-8", "replace").decode()})
    return Response(status, [(b"content-type", CONTENT_TYPE), *headers], body)
