"""Looks at the platform several times a second, through its REST API, as `torpor list` does."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Callable

    from demo.stage import Stage
    from torpor.clock import Clock
    from torpor.spec.status import FunctionStatus

_INTERVAL_SECONDS = 0.1
_HISTORY = 60


class Watcher:
    """Per function, how many instances are ready: now, lately, and at most since :meth:`forget_peaks`."""

    def __init__(self, stage: Stage, clock: Clock) -> None:
        self._stage = stage
        self._clock = clock
        self._looked = asyncio.Condition()
        self.functions: dict[str, FunctionStatus] = {}
        self.history: dict[str, deque[int]] = {}
        self._peaks: dict[str, int] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        with self._stage.client() as client:
            while True:
                seen = await asyncio.to_thread(client.functions)
                self._stage.look()
                async with self._looked:
                    self.functions = {one.name: one for one in seen}
                    for one in seen:
                        ready = sum(instance.state == "ready" for instance in one.instances)
                        self.history.setdefault(one.name, deque(maxlen=_HISTORY)).append(ready)
                        self._peaks[one.name] = max(self._peaks.get(one.name, 0), ready)
                    self._looked.notify_all()
                await self._clock.sleep(_INTERVAL_SECONDS)

    def peak(self, name: str) -> int:
        """Most instances of ``name`` that were ready at once."""
        return self._peaks.get(name, 0)

    def forget_peaks(self) -> None:
        """Begin to look for the most anew."""
        self._peaks.clear()

    def instances(self) -> int:
        """How many instances there are of all functions, in whatever state."""
        return sum(len(one.instances) for one in self.functions.values())

    async def until(
        self, what: str, holds: Callable[[dict[str, FunctionStatus]], bool], timeout_seconds: float
    ) -> None:
        """Return once ``holds`` is true of what is seen; raises :class:`DemoError` if it never is."""
        try:
            async with asyncio.timeout(timeout_seconds), self._looked:
                await self._looked.wait_for(lambda: bool(self.functions) and holds(self.functions))
        except TimeoutError:
            raise DemoError(f"{what} was not seen within {timeout_seconds:g} seconds") from None

    async def until_zero(self, *names: str) -> None:
        """Return once the functions (default: all) have no instance left."""

        def rests(functions: dict[str, FunctionStatus]) -> bool:
            return not any(functions[name].instances for name in names or functions)

        await self.until(f"{', '.join(names) or 'everything'} at zero", rests, 90.0)
