"""Makes deliveries wait until a trigger's rate limit lets them be made, in the order in which they ask."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from torpor.events.pacing import pace
from torpor.events.waiting import sleep_or

if TYPE_CHECKING:
    from torpor.clock import Clock
    from torpor.spec.models import RateLimit


class Throttle:
    """Keeps one process within ``limit``; without one, it lets everything through."""

    def __init__(self, limit: RateLimit | None, clock: Clock) -> None:
        self._clock = clock
        self._pace = None if limit is None else pace(limit)
        self._due = 0.0 if self._pace is None else self._pace.start(clock.monotonic())
        self._ended = asyncio.Event()
        self.waiting = 0
        """How many deliveries wait for their turn."""

    @property
    def is_open(self) -> bool:
        """Whether nothing has to wait for its turn, ever."""
        return self._pace is None

    async def turn(self) -> bool:
        """Return when a delivery may be made: ``True``. ``False`` if none is to be made any more."""
        if self._pace is None:
            return True
        if not self._ended.is_set():
            now = self._clock.monotonic()
            at, self._due = self._pace.book(self._due, now)
            if at > now:
                self.waiting += 1
                try:
                    await sleep_or(self._clock, at - now, self._ended.wait())
                finally:
                    self.waiting -= 1
        return not self._ended.is_set()

    def end(self) -> None:
        """Send those that wait away."""
        self._ended.set()
