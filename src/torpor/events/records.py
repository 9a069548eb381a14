"""What happened to events, as lines of JSON that the log keeps: one a thing that happened. Pure.

Each line has ``k`` (what happened), ``at`` (when, in seconds since the epoch), ``by`` (the process) and
``ev`` (the events, as ``[id, source]``), and further:

=========  ==================================================================================================
``in``     a broker took events in: ``how`` (``sent``, ``reply``, ``replay``, ``sink``, ``schedule``,
           ``call``), ``types``, ``new``; of a reply ``of`` (the event that was answered, or the group) and
           ``trigger``; of a replay, and of a dead letter that a sink put there, ``trigger``; of a replay to a
           ``revision`` of a function that too
``try``    one delivery: ``trigger``, ``n`` (attempt), ``took`` (seconds), ``status``, ``end``, ``why``,
           ``delay``, ``replies``, ``on`` (the function's instance, where one answered); of a joined group
           ``group`` in place of ``ev``
``dead``   an event became a dead letter: ``trigger``, ``seq`` (of the record that was delivered), ``why``; of
           a group ``group``
``drop``   somebody dropped the dead letter of an event: ``trigger``
``part``   a joining trigger dealt with a part: ``trigger``, ``group``, ``index``, ``size``, ``end``, ``why``
``group``  a group ended: ``trigger``, ``group``, ``end``, ``why``
=========  ==================================================================================================

Lines are searched as text before they are read, so that a day of them can be looked through at once.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torpor.binding import WireEvent

IN, TRY, DEAD, DROP, PART, GROUP = "in", "try", "dead", "drop", "part", "group"
MANY = "many"
"""The key of what tells of several things."""
_EVENTS_A_LINE = 500
_MAX_MESSAGE_BYTES = 256 * 1024
_MAX_WHY = 300
_MAX_INSTANCE = 253


class Line(NamedTuple):
    """A line, and the one id that it can be found by, if there is but one."""

    text: bytes
    found_by: str | None = None


def taken_in(
    events: Sequence[WireEvent], new: Sequence[bool], *, at: float, by: str, how: str, **more: object
) -> list[Line]:
    """That a broker took in ``events``; per event whether it was new."""
    lines = []
    for start in range(0, len(events), _EVENTS_A_LINE):
        some = events[start : start + _EVENTS_A_LINE]
        document = {
            "k": IN,
            "at": at,
            "by": by,
            "how": how,
            "ev": [(event.id, event.source) for event in some],
            "types": [event.type for event in some],
            "new": new[start : start + _EVENTS_A_LINE],
            **more,
        }
        alone = some[0].id if len(some) == 1 and "of" not in more else None
        lines.append(Line(orjson.dumps(document), alone))
    return lines


class Attempt(NamedTuple):
    """One delivery, as it went; ``delay_seconds`` is the wait before the next one."""

    trigger: str
    number: int
    took_seconds: float
    end: str
    status: int | None = None
    why: str = ""
    delay_seconds: float | None = None
    replies: int = 0
    instance: str = ""


def tried(events: Sequence[WireEvent], group: str | None, attempt: Attempt, *, at: float, by: str) -> Line:
    """One delivery. Of a group its name stands for its events: its parts were told of before."""
    document: dict[str, object] = {
        "k": TRY,
        "at": at,
        "by": by,
        "trigger": attempt.trigger,
        "n": attempt.number,
        "took": round(attempt.took_seconds, 6),
        "end": attempt.end,
    }
    if attempt.status is not None:
        document["status"] = attempt.status
    if attempt.why:
        document["why"] = attempt.why[:_MAX_WHY]
    if attempt.delay_seconds is not None:
        document["delay"] = attempt.delay_seconds
    if attempt.replies:
        document["replies"] = attempt.replies
    if attempt.instance:
        document["on"] = attempt.instance[:_MAX_INSTANCE]
    return _line(document, events, group)


def died(
    events: Sequence[WireEvent],
    group: str | None,
    *,
    at: float,
    by: str,
    trigger: str,
    sequence: int,
    why: str,
) -> Line:
    """That events became dead letters of a trigger."""
    document: dict[str, object] = {
        "k": DEAD,
        "at": at,
        "by": by,
        "trigger": trigger,
        "seq": sequence,
        "why": why[:_MAX_WHY],
    }
    return _line(document, events, group)


def dropped(event: WireEvent, *, at: float, by: str, trigger: str) -> Line:
    """That the dead letter of an event was removed for good."""
    return _line({"k": DROP, "at": at, "by": by, "trigger": trigger}, [event], None)


def _line(document: dict[str, object], events: Sequence[WireEvent], group: str | None) -> Line:
    if group is not None:
        return Line(orjson.dumps({**document, "group": group}), group)
    document["ev"] = [(event.id, event.source) for event in events]
    return Line(orjson.dumps(document), events[0].id if len(events) == 1 else None)


def part_dealt_with(
    event: WireEvent, *, at: float, by: str, trigger: str, end: str, why: str = "", **place: object
) -> Line:
    """What a joining trigger did with one part; ``place`` is where it stands in its group."""
    document = {
        "k": PART,
        "at": at,
        "by": by,
        "trigger": trigger,
        "end": end,
        "ev": [(event.id, event.source)],
        **place,
    }
    if why:
        document["why"] = why[:_MAX_WHY]
    return Line(orjson.dumps(document))


def group_ended(group: str, *, at: float, by: str, trigger: str, end: str, why: str) -> Line:
    """That a group ended, and how."""
    document = {"k": GROUP, "at": at, "by": by, "trigger": trigger, "group": group, "end": end, "why": why}
    return Line(orjson.dumps(document), group)


def key_of_one(found_by: str) -> str:
    """The key under which what tells of one thing alone is found."""
    return f"one.{hashlib.sha256(found_by.encode('utf-8', 'surrogatepass')).hexdigest()[:3]}"


def messages(lines: Sequence[Line]) -> Iterator[tuple[str, bytes]]:
    """``lines`` as keys and contents of records, few of them and none too large."""
    if len(lines) == 1 and lines[0].found_by is not None:
        yield key_of_one(lines[0].found_by), lines[0].text
        return
    some: list[bytes] = []
    size = 0
    for line in lines:
        if some and size + len(line.text) > _MAX_MESSAGE_BYTES:
            yield MANY, b"\n".join(some)
            some, size = [], 0
        some.append(line.text)
        size += len(line.text) + 1
    if some:
        yield MANY, b"\n".join(some)


def needle(text: str) -> bytes:
    """What stands in each line that tells of that id or group."""
    return orjson.dumps(text)


def matching(content: bytes, needles: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    """The lines of ``content`` in which one of ``needles`` stands."""
    if not any(each in content for each in needles):
        return
    for line in content.split(b"\n"):
        if any(each in line for each in needles):
            yield orjson.loads(line)
