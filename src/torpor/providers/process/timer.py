"""One thing to do later, by the clock of the platform."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.clock import Clock


class Timer:
    """Calls ``action`` after the time it was last set to, unless it is stopped before."""

    def __init__(self, clock: Clock, action: Callable[[], None]) -> None:
        self._clock = clock
        self._action = action
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether the action is still to come."""
        return self._task is not None

    def start(self, delay_seconds: float) -> None:
        """Call the action in ``delay_seconds`` and not when it was to be called before."""
        self.stop()
        self._task = asyncio.create_task(self._wait(delay_seconds))

    def stop(self) -> None:
        """Don't call the action."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _wait(self, delay_seconds: float) -> None:
        await self._clock.sleep(delay_seconds)
        self._task = None
        self._action()
