"""Which events may be begun, where those of one key go one at a time and in their order. Pure.

An event is known by its sequence in the log. It may be begun when no earlier one of its key can still come,
which whoever reads the log says by :meth:`Lanes.verify`, and when the one of its key that was begun before is
done with.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet


@dataclass(slots=True)
class _Lane:
    waiting: list[int] = field(default_factory=list)  # a heap
    begun: int | None = None
    """What holds the key: nothing else of it begins before that is done with."""
    is_back: bool = False
    """Whether what holds the key was given back to the log, to come again."""
    is_called: bool = False
    """Whether what holds the key is being called for."""


class Lanes:
    """The events at hand, by key; ``parallelism`` bounds how many are called for at once."""

    def __init__(self, parallelism: int) -> None:
        self._parallelism = parallelism
        self._lanes: dict[str, _Lane] = {}
        self._unverified: set[int] = set()
        self._away: set[str] = set()  # keys of which what holds them was given back, and has not come yet
        self._touched: dict[str, None] = {}
        self._calls = 0

    @property
    def calls(self) -> int:
        """How many events are being called for."""
        return self._calls

    @property
    def verified(self) -> bool:
        """Whether nothing waits for :meth:`verify`."""
        return not self._unverified and not self._away

    def add(self, key: str, sequence: int) -> None:
        """An event has come, the first time or again."""
        lane = self._lanes.setdefault(key, _Lane())
        heapq.heappush(lane.waiting, sequence)
        if lane.is_back and lane.begun == sequence:  # what holds the key has nothing before it
            self._away.discard(key)
        else:
            self._unverified.add(sequence)
        self._touched[key] = None

    def remove(self, key: str, sequence: int) -> None:
        """An event that was not begun is not at hand any more."""
        lane = self._lanes.get(key)
        if lane is not None and sequence in lane.waiting:
            lane.waiting.remove(sequence)
            heapq.heapify(lane.waiting)
            self._unverified.discard(sequence)
            self._forget(key, lane)

    def verify(self, sequences: AbstractSet[int]) -> None:
        """These are at hand, and nothing else that was delivered is not done with."""
        self._unverified -= sequences
        self._touched = dict.fromkeys(self._lanes)
        for key in list(self._away):
            if self._lanes[key].begun not in sequences:  # it came to somebody else, who is done with it
                self.finish(key)

    def begin(self) -> list[int]:
        """The sequences of the events to begin now."""
        begun: list[int] = []
        held: dict[str, None] = {}
        for key in list(self._touched):
            if self._calls >= self._parallelism:
                break
            del self._touched[key]
            lane = self._lanes.get(key)
            if lane is None or not lane.waiting:
                continue
            first = lane.waiting[0]
            if first in self._unverified:
                held[key] = None
            elif lane.begun is None or (lane.is_back and lane.begun == first):
                heapq.heappop(lane.waiting)
                lane.begun, lane.is_back, lane.is_called = first, False, True
                self._calls += 1
                begun.append(first)
        self._touched |= held
        return begun

    def rest(self, key: str) -> None:
        """What holds the key is not called for any more, and still holds it. May be said twice."""
        lane = self._lanes[key]
        self._calls -= lane.is_called
        lane.is_called = False

    def finish(self, key: str) -> None:
        """What holds the key is done with."""
        lane = self._lanes[key]
        lane.begun, lane.is_back = None, False
        self._away.discard(key)
        self._touched[key] = None
        self._forget(key, lane)

    def give_back(self, key: str) -> None:
        """What holds the key comes again, and holds it until then."""
        self._lanes[key].is_back = True
        self._away.add(key)
        self._touched[key] = None

    def _forget(self, key: str, lane: _Lane) -> None:
        if not lane.waiting and lane.begun is None:
            del self._lanes[key]
            self._touched.pop(key, None)
