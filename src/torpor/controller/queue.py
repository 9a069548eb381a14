"""A queue of keys that have to be looked at: level-triggered, with a growing pause after failures.

A key is in it once, however often it is added, and is worked on by one worker at a time; what is added
meanwhile is looked at again after.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from typing import TYPE_CHECKING

from torpor.clock import happens_within
from torpor.controller.telemetry import QueueCounts
from torpor.errors import ClusterConflictError, TorporError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from torpor.clock import Clock

_LOG = logging.getLogger("torpor.controller")
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 60.0


class WorkQueue:
    """``work`` does what a key needs, and returns in how many seconds to look again (``None``: on news)."""

    def __init__(
        self,
        clock: Clock,
        work: Callable[[str], Awaitable[float | None]],
        counts: QueueCounts | None = None,
    ) -> None:
        self._clock = clock
        self._counts = counts or QueueCounts()
        self._work = work
        self._waiting: dict[str, None] = {}
        self._working: set[str] = set()
        self._again: set[str] = set()
        self._failures: dict[str, int] = {}
        self._later: list[tuple[float, int, str]] = []
        self._due: dict[str, float] = {}
        self._order = itertools.count()
        self._news = asyncio.Event()
        self._timers = asyncio.Event()

    def add(self, key: str) -> None:
        """Look at ``key`` soon."""
        if key in self._working:
            self._again.add(key)
        else:
            self._waiting[key] = None
            self._news.set()

    def add_later(self, key: str, delay_seconds: float) -> None:
        """Look at ``key`` in ``delay_seconds`` at the latest."""
        due = self._clock.monotonic() + delay_seconds
        if self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._later, (due, next(self._order), key))
        self._timers.set()

    @property
    def length(self) -> int:
        """How many keys wait, or are worked on."""
        return len(self._waiting) + len(self._working)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do at the moment."""
        return not self._waiting and not self._working

    async def run(self, workers: int = 4) -> None:
        """Work for as long as it is let; an error that is not Torpor's ends it."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick())
            for _ in range(workers):
                group.create_task(self._serve())

    async def _serve(self) -> None:
        while True:
            while not self._waiting:
                self._news.clear()
                await self._news.wait()
            key = next(iter(self._waiting))
            del self._waiting[key]
            self._working.add(key)
            try:
                await self._do(key)
            finally:
                self._working.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    async def _do(self, key: str) -> None:
        began = self._clock.monotonic()
        outcome = "ok"
        try:
            again_seconds = await self._work(key)
        except TorporError as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            pause = min(FIRST_PAUSE_SECONDS * 2 ** min(failures - 1, 16), LONGEST_PAUSE_SECONDS)
            # A conflict means no more than that somebody was quicker.
            conflict = isinstance(error, ClusterConflictError)
            outcome = "conflict" if conflict else "failed"
            level = logging.DEBUG if conflict else logging.WARNING
            _LOG.log(level, "%s: trying again in %g s: %s", key, pause, error)
            self.add_later(key, pause)
        else:
            self._failures.pop(key, None)
            if again_seconds is not None:
                self.add_later(key, again_seconds)
        self._counts.outcomes[outcome] += 1
        self._counts.seconds.observe(self._clock.monotonic() - began)

    async def _tick(self) -> None:
        while True:
            self._timers.clear()
            now = self._clock.monotonic()
            while self._later and self._later[0][0] <= now:
                due, _, key = heapq.heappop(self._later)
                if self._due.get(key) == due:
                    del self._due[key]
                    self.add(key)
            if self._later:
                await happens_within(self._clock, self._later[0][0] - now, self._timers)
            else:
                await self._timers.wait()
