"""A clock that a test moves by hand, so that time-outs, retries and windows pass in milliseconds."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

START_SECONDS = 1_767_225_600.0  # 2026-01-01T00:00:00Z


class MovableClock:
    """A :class:`torpor.clock.Clock` whose time stands still until :meth:`advance` moves it.

    It belongs to one event loop.
    """

    def __init__(self, start_seconds: float = START_SECONDS) -> None:
        self._start = start_seconds
        self._elapsed = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._start + self._elapsed

    def monotonic(self) -> float:
        """Seconds since the clock was made, as far as it was moved."""
        return self._elapsed

    async def sleep(self, delay_seconds: float) -> None:
        """Return once the clock has been moved by ``delay_seconds``."""
        if delay_seconds <= 0:
            await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop, no time
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + delay_seconds, next(self._order), woken))
        await woken

    @property
    def next_due(self) -> float | None:
        """In how many seconds the next sleeper is due, or ``None`` when nobody sleeps."""
        while self._sleepers and self._sleepers[0][2].done():  # cancelled
            heapq.heappop(self._sleepers)
        return max(0.0, self._sleepers[0][0] - self._elapsed) if self._sleepers else None

    async def advance(self, seconds: float, settle: Callable[[], Awaitable[None]] | None = None) -> None:
        """Move on by ``seconds``, stopping at each moment when a sleeper is due.

        ``settle`` is awaited at each stop: it returns when all that the moment set off has been done. Raises
        ``ValueError`` when ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError(f"a clock cannot be moved back, got {seconds}")
        end = self._elapsed + seconds
        if settle is not None:
            await settle()
        while (due := self.next_due) is not None and self._elapsed + due <= end:
            self._elapsed += due
            self._wake()
            if settle is not None:
                await settle()
            else:
                await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop, no time
        self._elapsed = end

    def _wake(self) -> None:
        while self._sleepers and self._sleepers[0][0] <= self._elapsed:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
