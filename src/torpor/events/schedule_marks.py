"""What a schedule writes: its events, and marks in the log by which it is known where it stands. Pure.

A mark's key is ``NAMESPACE.NAME.SECONDS``: everything planned up to that second is done with. The newest one
counts, and those before it are removed; so a schedule keeps one record, or two for a moment.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

from torpor.binding import WireEvent
from torpor.events.log import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torpor.events.log import Stored
    from torpor.spec.models import Schedule

_MARK_TYPE = "torpor.schedule.mark"


@dataclass(frozen=True, slots=True)
class Mark:
    """``timing`` is what was planned by, ``fired`` the newest firing there was, ``sequence`` the log's."""

    seen: int
    timing: str
    fired: int | None
    sequence: int = 0


def timing_of(schedule: Schedule) -> str:
    """What a schedule plans by; where that changes, nothing of before was missed."""
    return f"{schedule.spec.cron} {schedule.spec.time_zone}"


def time_text(planned: int) -> str:
    """A planned time as events have it (RFC 3339, in UTC)."""
    return datetime.fromtimestamp(planned, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def type_of(schedule: Schedule) -> str:
    """The type of a schedule's events."""
    return schedule.spec.event.type or f"{schedule.metadata.name}.fired"


def event_of(schedule: Schedule, planned: int) -> WireEvent:
    """The event of one firing, the same whoever fires it."""
    given = schedule.spec.event
    attributes = {
        "specversion": "1.0",
        "id": f"{schedule.key}@{time_text(planned)}",
        "source": given.source or f"/schedules/{schedule.key}",
        "type": type_of(schedule),
        "time": time_text(planned),
        **given.extensions,
    }
    if given.subject is not None:
        attributes["subject"] = given.subject
    data: bytes | None = None
    if given.data_text is not None:
        data = given.data_text.encode("utf-8", "surrogatepass")
        attributes["datacontenttype"] = given.data_content_type or "text/plain; charset=utf-8"
    elif given.data is not None:
        data = json.dumps(given.data, separators=(",", ":"), ensure_ascii=False).encode()
        attributes["datacontenttype"] = given.data_content_type or "application/json"
    return WireEvent(attributes, data)


def keys_of(schedule_key: str) -> str:
    """The keys of all marks of a schedule."""
    return f"{schedule_key.replace('/', '.')}.>"


def key_of(schedule_key: str, seen: int) -> str:
    """The key of one mark."""
    return f"{schedule_key.replace('/', '.')}.{seen}"


def record_of(schedule_key: str, mark: Mark, identity: str) -> Record:
    """``mark`` as a record of the log."""
    key = key_of(schedule_key, mark.seen)
    attributes = {
        "specversion": "1.0",
        "id": identity,
        "source": f"/schedules/{schedule_key}",
        "type": _MARK_TYPE,
        "datacontenttype": "application/json",
    }
    data = orjson.dumps({"timing": mark.timing, "fired": mark.fired})
    return Record(key, identity, WireEvent(attributes, data))


def marks_of(records: Iterable[Stored]) -> dict[str, list[Mark]]:
    """The marks in ``records`` by schedule, the newest of each last."""
    found: dict[str, list[Mark]] = {}
    for stored in records:
        try:
            namespace, name, seen = stored.key.split(".")
            document = orjson.loads(stored.event.data or b"{}")
            mark = Mark(int(seen), document["timing"], document["fired"], stored.sequence)
        except (ValueError, LookupError, TypeError):
            continue  # another program wrote it
        found.setdefault(f"{namespace}/{name}", []).append(mark)
    for marks in found.values():
        marks.sort(key=lambda mark: (mark.seen, mark.sequence))
    return found
