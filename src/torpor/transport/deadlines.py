"""Many deadlines on one clock: what a timer for every request would cost, without its price.

One task sleeps until the earliest; one that was met keeps its place in the heap until that is swept.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.clock import Clock

_SWEEP_AT = 512


class Expiring(Protocol):
    """Something with a deadline."""

    @property
    def pending(self) -> bool:
        """Whether the deadline still matters; once it does not, it never does again."""
        ...

    def expire(self) -> None:
        """The deadline has passed. Must not raise."""
        ...


class Alarm:
    """Calls back at a deadline, unless it is cancelled before."""

    __slots__ = ("_act", "pending")

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self.pending = True

    def cancel(self) -> None:
        """Let the deadline pass without effect."""
        self.pending = False

    def expire(self) -> None:
        """See :class:`Expiring`."""
        self.pending = False
        self._act()


class Limit:
    """A block of a task, cancelled when its time is up: then it raises ``TimeoutError``.

    What :func:`asyncio.timeout` is, on deadlines that many share.
    """

    __slots__ = ("_alarm", "_cancelling", "_deadlines", "_delay_seconds", "_late", "_task")

    def __init__(self, deadlines: Deadlines, delay_seconds: float) -> None:
        self._deadlines = deadlines
        self._delay_seconds = delay_seconds
        self._late = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a limit is for a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._alarm = self._deadlines.after(self._delay_seconds, self._cancel)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        task = self._task
        self._alarm.cancel()
        del self._alarm, self._task  # else they would hold each other
        # It is a time-out only where nobody else has cancelled the task as well.
        if self._late and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError

    def _cancel(self) -> None:
        self._late = True
        self._task.cancel()


class Deadlines:
    """Expires things when a time of ``clock.monotonic()`` has come. Belongs to one running loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Expiring]] = []
        self._order = itertools.count()
        self._sweep_at = _SWEEP_AT
        self._watch: asyncio.Task[None] | None = None
        self._watched = 0.0

    def __len__(self) -> int:
        return len(self._heap)

    def after(self, delay_seconds: float, act: Callable[[], None]) -> Alarm:
        """Call ``act``, which must not raise, once ``delay_seconds`` have passed."""
        return self.at(self._clock.monotonic() + delay_seconds, act)

    def at(self, when: float, act: Callable[[], None]) -> Alarm:
        """Call ``act``, which must not raise, at ``when``."""
        alarm = Alarm(act)
        self.add(when, alarm)
        return alarm

    def limit(self, delay_seconds: float) -> Limit:
        """A block that takes no longer than that."""
        return Limit(self, delay_seconds)

    def add(self, when: float, item: Expiring) -> None:
        """Expire ``item`` at ``when`` if it is pending then."""
        heap = self._heap
        heapq.heappush(heap, (when, next(self._order), item))
        if len(heap) > self._sweep_at:
            self._sweep()
        if self._watch is None or when < self._watched:
            self._restart()

    async def close(self) -> None:
        """Forget all deadlines."""
        self._heap.clear()
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch

    def _sweep(self) -> None:
        """Drop what was met; the next sweep comes when there is twice as much as is left now."""
        self._heap = [entry for entry in self._heap if entry[2].pending]
        heapq.heapify(self._heap)
        self._sweep_at = max(_SWEEP_AT, 2 * len(self._heap))

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
            # What expires may set deadlines, and an earlier one makes another task take over.
            while self._heap and self._heap[0][0] <= now and self._watch is me:
                item = heapq.heappop(self._heap)[2]
                if item.pending:
                    item.expire()
        if self._watch is me:
            self._watch = None
