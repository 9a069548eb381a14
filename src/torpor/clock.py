"""Where time comes from.

Code that decides takes ``now`` as an argument. Code that waits takes a :class:`Clock`, so that a test can
move time instead of sleeping (:class:`torpor.testing.MovableClock`).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable


class Clock(Protocol):
    """A source of time and the only way to wait for it."""

    def now(self) -> float:
        """Seconds since the epoch (UTC); what is stored and shown."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start that never run backwards; what durations are made of."""
        ...

    async def sleep(self, delay_seconds: float) -> None:
        """Return after ``delay_seconds``; at most one turn of the loop when it is not positive."""
        ...


class SystemClock:
    """The machine's own time."""

    now = staticmethod(time.time)
    """Seconds since the epoch (UTC)."""
    monotonic = staticmethod(time.monotonic)
    """Seconds that never run backwards."""

    async def sleep(self, delay_seconds: float) -> None:
        """Wait on the running loop."""
        await asyncio.sleep(max(delay_seconds, 0.0))


async def happens_within(clock: Clock, delay_seconds: float, event: asyncio.Event) -> bool:
    """Wait until ``event`` is set, for ``delay_seconds`` at most; whether it was."""
    if event.is_set():
        return True
    await first_of(event.wait(), clock.sleep(delay_seconds))
    return event.is_set()


async def first_of(*waits: Awaitable[object]) -> None:
    """Return once one of ``waits`` has ended, however it did; the others are ended by then."""
    tasks: list[asyncio.Future[object]] = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel(*tasks)


class Together:
    """Has ``action`` done once for all who ask for it while it is under way; each is told what it raises."""

    def __init__(self, action: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._action = action
        self._doing: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        """Return once it was done, from a beginning that may be a while ago."""
        if self._doing is None:
            self._doing = asyncio.create_task(self._action())
            self._doing.add_done_callback(self._done)
        await asyncio.shield(self._doing)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._doing = None
        if not task.cancelled():
            task.exception()  # whoever asked is told, unless nobody waits any more


async def alongside(wait: Awaitable[object], tasks: Iterable[asyncio.Future[None]]) -> None:
    """Return once ``wait`` has ended, or one of ``tasks``; raises what a task failed with by then.

    ``wait`` is ended by then, and ``tasks`` go on.
    """
    waiting: asyncio.Future[object] = asyncio.ensure_future(wait)
    beside: list[asyncio.Future[Any]] = list(tasks)
    try:
        await asyncio.wait([waiting, *beside], return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel(waiting)
    for task in beside:
        if task.done():
            task.result()


async def cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancel ``tasks``, and return once they have ended; what they raise is not told."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
