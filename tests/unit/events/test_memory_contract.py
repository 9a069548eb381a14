"""The log in memory keeps the contract of every event log."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("torpor.testing.contracts.event_log")

from torpor.events.memory import MemoryLog  # noqa: E402
from torpor.testing.clock import MovableClock  # noqa: E402
from torpor.testing.contracts.event_log import CASES  # noqa: E402
from torpor.testing.contracts.rig import Rig  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class _MovedTime:
    def __init__(self, clock: MovableClock) -> None:
        self._clock = clock

    def now(self) -> float:
        return self._clock.now()

    async def pass_(self, seconds: float) -> None:
        await self._clock.advance(seconds, self.settle)

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_contract(case: Callable[[Rig], Awaitable[None]]) -> None:
    async def run() -> None:
        clock = MovableClock()
        await case(Rig(MemoryLog(clock), _MovedTime(clock), 10.0))

    asyncio.run(run())
