"""Makes of the lines that were written down what a person reads of one event. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from torpor.events import names
from torpor.events.records import DEAD, DROP, GROUP, IN, PART, TRY
from torpor.spec.history import GroupStanding, Reply, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST = 100
"""Most replies, and most missing indexes, that are shown."""

_RANKS = {IN: 0, PART: 1, GROUP: 2, TRY: 3, DEAD: 4, DROP: 5}
"""What of one moment comes first."""
_AS_REPLAY = "as a replay"
Record = dict[str, Any]


def is_about(line: Record, event_id: str, source: str) -> bool:
    """Whether ``line`` tells of that event itself."""
    return [event_id, source] in line.get("ev", ())


def sources(lines: Iterable[Record], event_id: str) -> list[str]:
    """The sources of the events of that id that ``lines`` tell of, in their order."""
    found = (source for line in lines for one, source in line.get("ev", ()) if one == event_id)
    return list(dict.fromkeys(found))


def event_type(lines: Iterable[Record], event_id: str, source: str) -> str | None:
    """The type of an event, as the broker took it in."""
    for line in lines:
        if line["k"] == IN and is_about(line, event_id, source):
            return str(line["types"][line["ev"].index([event_id, source])])
    return None


def groups(lines: Iterable[Record], event_id: str, source: str) -> list[tuple[str, str]]:
    """The groups that an event is part of, with their triggers."""
    found = (
        (line["trigger"], line["group"])
        for line in lines
        if line["k"] == PART and is_about(line, event_id, source) and "group" in line
    )
    return list(dict.fromkeys(found))


def steps(
    lines: Sequence[Record], event_id: str, source: str, of_groups: Sequence[tuple[str, str]]
) -> list[Step]:
    """What happened to an event, and to its groups, in the order of time."""
    found = []
    for line in sorted(lines, key=_when):
        kind = line["k"]
        if kind == IN and is_about(line, event_id, source):
            found.append(_accepted(line, line["new"][line["ev"].index([event_id, source])]))
        elif kind == PART and is_about(line, event_id, source):
            why = f": {line['why']}" if "why" in line else ""
            text = f"part {line['index']} of {line['size']} of group {line['group']!r} was {line['end']}{why}"
            found.append(_step(line, "part", text, group=line["group"]))
        elif kind == DROP and is_about(line, event_id, source):
            found.append(_step(line, "dead letter", "its dead letter was dropped for good"))
        elif kind in (TRY, DEAD, GROUP):
            ours = (line["trigger"], line.get("group")) in of_groups
            if ours or is_about(line, event_id, source):
                found.append(_of_delivery(line))
    return found


def _when(line: Record) -> tuple[float, int, bool]:
    return line["at"], _RANKS[line["k"]], not all(line.get("new", ()))


def _accepted(line: Record, new: bool) -> Step:
    how = {
        "sent": "by a producer",
        "call": "by a caller that does not wait",
        "schedule": f"by schedule {line.get('schedule')}",
        "reply": f"as a reply at trigger {line.get('trigger')} to {_of(line.get('of'))}",
        "sink": f"as a dead letter of trigger {line.get('trigger')}",
        "replay": f"{_AS_REPLAY} for {_whom(line)} alone",
    }[line["how"]]
    again = "" if new else ", once more: it is kept once"
    return _step(
        line, "accepted", f"sent {how}{again}" if line["how"] in ("sent", "call") else f"written {how}{again}"
    )


def _whom(line: Record) -> str:
    function = names.meant_by_name(line.get("trigger", ""))
    if function is None:
        return f"trigger {line.get('trigger')}"
    revision = f", revision {line['revision']}" if "revision" in line else ""
    return f"function {function}{revision}"


def _of(answered: object) -> str:
    return f"event {answered[0]!r}" if isinstance(answered, list) else f"group {answered!r}"


def _of_delivery(line: Record) -> Step:
    kind, group = line["k"], line.get("group")
    of_group = f" of group {group!r}" if group is not None else ""
    if kind == GROUP:
        return _step(line, "group", f"group {group!r} ended {line['end']}: {line['why']}", group=group)
    if kind == DEAD:
        return _step(line, "dead letter", f"became a dead letter{of_group}: {line['why']}", group=group)
    text = f"attempt {line['n']}{of_group} {line['end']}"
    if "replies" in line:
        text += f", with {line['replies']} {'reply' if line['replies'] == 1 else 'replies'}"
    if "delay" in line:
        text += f", again after {round(line['delay'], 3):g} s"
    if "why" in line:  # it ends in the function's own words, so nothing of ours comes after them
        text += f": {line['why']}"
    return _step(
        line,
        "delivery",
        text,
        group=group,
        attempt=line["n"],
        status=line.get("status"),
        instance=line.get("on"),
        duration_seconds=line["took"],
        delay_seconds=line.get("delay"),
    )


def _step(line: Record, what: Any, text: str, **more: Any) -> Step:
    at = datetime.fromtimestamp(line["at"], UTC)
    return Step(at=at, what=what, trigger=line.get("trigger", ""), text=text, by=line.get("by", ""), **more)


def replies(
    lines: Iterable[Record], event_id: str, source: str, of_groups: Sequence[tuple[str, str]]
) -> list[Reply]:
    """The replies to an event, or to one of its groups."""
    names = {group for _, group in of_groups}
    found = []
    for line in lines:
        answered = line.get("of") if line["k"] == IN else None
        if answered == [event_id, source] or (isinstance(answered, str) and answered in names):
            found += [
                Reply(id=one, source=other, type=type_)
                for (one, other), type_, new in zip(line["ev"], line["types"], line["new"], strict=True)
                if new
            ]
    return found


def standing(lines: Sequence[Record], trigger: str, group: str) -> GroupStanding:
    """How a group is, by what was written down of it."""
    size, present, state = 0, set[int](), "waits for the others"
    for line in sorted(lines, key=_when):
        if (line.get("trigger"), line.get("group")) != (trigger, group):
            continue
        if line["k"] == PART and line["end"] == "kept":
            if state != "waits for the others":  # it was opened anew
                present, state = set(), "waits for the others"
            size = line["size"]
            present.add(line["index"])
        elif line["k"] == GROUP:
            state = f"ended {line['end']}: {line['why']}"
    missing = [index for index in range(size) if index not in present]
    return GroupStanding(
        trigger=trigger,
        group=group,
        size=size,
        present=len(present),
        missing=tuple(missing[:MOST]),
        state=state,
    )


def progress(found: Sequence[Step], trigger: str, matches: bool | None) -> str:
    """How far a trigger is with an event, by the last thing that it did."""
    own = [
        step
        for step in found
        if step.trigger == trigger and (step.what != "accepted" or _AS_REPLAY in step.text)
    ]
    if own:
        last = own[-1]
        if last.what == "accepted":
            return "waits: it was replayed, and nothing was attempted since"
        return f"waits in its group ({last.text})" if last.what == "part" else last.text
    if matches:
        return "nothing was attempted: it waits, or the trigger was declared after the event came"
    return "passed by" if matches is False else "nothing was attempted"
