"""How long who was refused is asked to wait before it sends the same again (``Retry-After``). Pure.

Times are in seconds, of one clock; what is answered are whole seconds, as the header has them.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

LEAST_SECONDS = 1
MOST_SECONDS = 60
"""Asked of those whose events find no room, where no end is in sight."""
MOST_AWAY_SECONDS = 30
"""Asked of those whose events can't be stored: when the broker is there again, they are not to be long."""
_LATELY_SECONDS = 30.0
_FORGOTTEN_SECONDS = 120.0
_APART_SECONDS = 1.0
_ANEW_SECONDS = 2.0 * MOST_AWAY_SECONDS


class _Seen(NamedTuple):
    at: float
    waiting: int
    taken: int


class Drain:
    """How fast a backlog is worked off, by the counts of the last half minute.

    What this process has let in between two counts was worked off too, or is in the second one. What others
    have let in is not known here: where there are some, a backlog seems to shrink more slowly than it does.
    """

    def __init__(self) -> None:
        self._seen: deque[_Seen] = deque()  # at least a second apart
        self._newest: _Seen | None = None

    def see(self, now: float, waiting: int, taken: int) -> None:
        """So many wait now, and this process has let in ``taken`` in all."""
        self._newest = _Seen(now, waiting, taken)
        seen = self._seen
        while seen and (
            now - seen[0].at > _FORGOTTEN_SECONDS or (len(seen) > 1 and now - seen[1].at >= _LATELY_SECONDS)
        ):
            seen.popleft()
        if not seen or now - seen[-1].at >= _APART_SECONDS:
            seen.append(self._newest)

    def seconds_until(self, waiting: int) -> int:
        """In about how many seconds no more than ``waiting`` wait.

        The least while nothing is known of how fast they become fewer, and the most where they don't.
        """
        if self._newest is None or self._newest.at - self._seen[0].at < _APART_SECONDS:
            return LEAST_SECONDS
        newest, first = self._newest, self._seen[0]
        drained = first.waiting + newest.taken - first.taken - newest.waiting
        if drained <= 0:
            return MOST_SECONDS
        seconds = (newest.waiting - waiting) * (newest.at - first.at) / drained
        return _whole(seconds, MOST_SECONDS)


class Outages:
    """Since when nothing could be stored, of each place.

    Who waits for as long as that asks half as often each time; and it is the same however many ask.
    """

    def __init__(self) -> None:
        self._failed: dict[str, tuple[float, float]] = {}  # first, last

    def failed(self, place: str, now: float) -> int:
        """It could not be stored there: in how many seconds to try again."""
        first, last = self._failed.get(place, (now, now))
        if now - last > _ANEW_SECONDS:  # nobody knows what was in between
            first = now
        self._failed[place] = (first, now)
        return _whole(now - first, MOST_AWAY_SECONDS)

    def stored(self, place: str) -> None:
        """It was stored there."""
        self._failed.pop(place, None)


def _whole(seconds: float, most: int) -> int:
    return min(max(LEAST_SECONDS, math.ceil(seconds)), most)
