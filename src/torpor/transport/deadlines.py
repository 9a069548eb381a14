"""Many deadlines on one clock: what a timer for every request would cost, without its price.

One task sleeps until the earliest; one that was cancelled keeps its place in the heap until that is swept.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.clock import Clock

_SWEEP_AT = 256


class Deadline:
    """One deadline; :meth:`cancel` it when it was met."""

    __slots__ = ("_act", "_owner")

    def __init__(self, owner: Deadlines, act: Callable[[], None]) -> None:
        self._owner: Deadlines | None = owner
        self._act = act

    @property
    def pending(self) -> bool:
        """Whether it may still act."""
        return self._owner is not None

    def cancel(self) -> None:
        """Let it pass without effect; nothing happens the second time."""
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.note_cancelled()

    def fire(self) -> None:
        """Act, unless it was cancelled."""
        if self._owner is not None:
            self._owner = None
            self._act()


class Deadlines:
    """Calls back when a time of ``clock.monotonic()`` has come. Belongs to one running loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Deadline]] = []
        self._order = itertools.count()
        self._cancelled = 0
        self._watch: asyncio.Task[None] | None = None
        self._watched = 0.0

    def __len__(self) -> int:
        return len(self._heap)

    def after(self, delay_seconds: float, act: Callable[[], None]) -> Deadline:
        """Call ``act``, which must not raise, once ``delay_seconds`` have passed."""
        return self.at(self._clock.monotonic() + delay_seconds, act)

    def at(self, when: float, act: Callable[[], None]) -> Deadline:
        """Call ``act``, which must not raise, at ``when``."""
        deadline = Deadline(self, act)
        heapq.heappush(self._heap, (when, next(self._order), deadline))
        if self._watch is None or when < self._watched:
            self._restart()
        return deadline

    def note_cancelled(self) -> None:
        """A deadline of this heap was cancelled."""
        self._cancelled += 1
        if self._cancelled >= _SWEEP_AT and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].pending]
            heapq.heapify(self._heap)
            self._cancelled = 0

    async def close(self) -> None:
        """Forget all deadlines."""
        self._heap.clear()
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch

    def _restart(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watched = self._heap[0][0]
        self._watch = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        me = asyncio.current_task()
        while self._heap and self._watch is me:
            self._watched = self._heap[0][0]
            await self._clock.sleep(self._watched - self._clock.monotonic())
            now = self._clock.monotonic()
            # A callback may add or cancel deadlines, and an earlier one makes another task take over.
            while self._heap and self._heap[0][0] <= now and self._watch is me:
                deadline = heapq.heappop(self._heap)[2]
                if deadline.pending:
                    deadline.fire()
                else:
                    self._cancelled = max(0, self._cancelled - 1)
        if self._watch is me:
            self._watch = None
