"""The groups that a joining trigger holds: which parts came, which groups are whole, which are overdue. Pure.

What is remembered of a part is one bit; the part itself is in the event log. So a group takes some 300 bytes
and one byte for eight parts, and each step costs the same however many groups are open. A group ends once:
whole, or with its time-out, whichever is decided first. Late parts of an ended group are the shell's to
recognise, by the log.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PARTS = 10_000
"""Most parts of one group."""
MAX_OPEN = 100_000
"""Most groups of one trigger that wait for parts at a time."""
_DIGITS = 9
_STALE_DUES = 64


@dataclass(frozen=True, slots=True)
class Part:
    """Where an event stands in its group."""

    group: str
    index: int
    size: int


@dataclass(frozen=True, slots=True)
class Unfit:
    """An event that cannot be joined, and why."""

    reason: str


class Seen(Enum):
    """What a part means for its group."""

    WAITING = "others are missing"
    WHOLE = "the group is whole"


@dataclass(slots=True)
class _Group:
    size: int
    due: float
    bits: int = 0
    """Bit n is set when the part of index n came."""

    @property
    def present(self) -> int:
        return self.bits.bit_count()

    @property
    def is_whole(self) -> bool:
        return self.present >= self.size


@dataclass(frozen=True, slots=True)
class Overdue:
    """A group whose time is up, with how many of its parts came."""

    group: str
    present: int
    size: int


def part_of(attributes: Mapping[str, str]) -> Part | Unfit:
    """The place in a group that ``fanoutid``, ``fanoutindex`` and ``fanoutsize`` give."""
    group = attributes.get("fanoutid")
    if not group:
        return Unfit("it has no attribute 'fanoutid', so it is no part of a group")
    index, size = _number(attributes.get("fanoutindex")), _number(attributes.get("fanoutsize"))
    if index is None or size is None:
        return Unfit("'fanoutindex' and 'fanoutsize' must both be whole numbers")
    if not 1 <= size <= MAX_PARTS:
        return Unfit(f"'fanoutsize' is {size}, 1 to {MAX_PARTS} was expected")
    if index >= size:
        return Unfit(f"'fanoutindex' is {index}, below 'fanoutsize' ({size}) was expected")
    return Part(group, index, size)


def _number(text: str | None) -> int | None:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > _DIGITS:
        return None
    return int(text)


class Groups:
    """The open groups of one trigger. ``timeout_seconds`` counts from a group's first part."""

    def __init__(self, timeout_seconds: float, max_open: int = MAX_OPEN) -> None:
        self._timeout = timeout_seconds
        self._max_open = max_open
        self._open: dict[str, _Group] = {}
        self._dues: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._open)

    def knows(self, group: str) -> bool:
        """Whether the group is open."""
        return group in self._open

    def has(self, part: Part) -> bool:
        """Whether the part came already, to a group that is open."""
        known = self._open.get(part.group)
        return known is not None and bool(known.bits >> part.index & 1)

    def names(self) -> list[str]:
        """The open groups."""
        return list(self._open)

    def check(self, part: Part) -> Unfit | None:
        """Why ``part`` can't belong to its group, if it can't: all parts must agree on the group's size."""
        known = self._open.get(part.group)
        if known is not None and known.size != part.size:
            return Unfit(f"'fanoutsize' is {part.size}, where earlier parts of the group say {known.size}")
        return None

    def reserve(self, part: Part, at: float) -> bool:
        """Open the part's group, which fixes its size, before the part is stored; false without room."""
        if part.group not in self._open and len(self._open) >= self._max_open:
            return False
        self._enter(part, at)
        return True

    def observe(self, part: Part, at: float) -> Seen:
        """Take in that ``part`` is stored since ``at`` (seconds since the epoch), room or not.

        A part that was seen before changes nothing; a group says that it is whole each time until it is
        closed.
        """
        group = self._enter(part, at)
        group.bits |= 1 << part.index
        return Seen.WHOLE if group.is_whole else Seen.WAITING

    def _enter(self, part: Part, at: float) -> _Group:
        group = self._open.get(part.group)
        due = at + self._timeout
        if group is None:
            group = self._open[part.group] = _Group(part.size, due)
            heapq.heappush(self._dues, (due, part.group))
        elif due < group.due:
            group.due = due
            heapq.heappush(self._dues, (due, part.group))
        return group

    def close(self, group: str) -> None:
        """Forget the group: how it ends is written in the log."""
        self._open.pop(group, None)
        if len(self._dues) > _STALE_DUES + 2 * len(self._open):
            self._dues = [(each.due, name) for name, each in self._open.items()]
            heapq.heapify(self._dues)

    def next_due(self) -> float | None:
        """When the next group is overdue (seconds since the epoch), if one is open."""
        while self._dues and self._stale(*self._dues[0]):
            heapq.heappop(self._dues)
        return self._dues[0][0] if self._dues else None

    def overdue(self, now: float) -> list[Overdue]:
        """The groups whose time is up, the longest overdue first; they stay open until they are closed."""
        ended: dict[str, float] = {}
        while (due := self.next_due()) is not None and due <= now:
            _, name = heapq.heappop(self._dues)
            ended[name] = due
        for name, due in ended.items():
            heapq.heappush(self._dues, (due, name))
        return [Overdue(name, self._open[name].present, self._open[name].size) for name in ended]

    def whole(self) -> list[str]:
        """The open groups that have all their parts."""
        return [name for name, group in self._open.items() if group.is_whole]

    def _stale(self, due: float, name: str) -> bool:
        group = self._open.get(name)
        return group is None or group.due != due
