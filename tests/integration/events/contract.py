"""The contract of event logs on real brokers, where time passes by itself."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("torpor.testing.contracts.event_log")

from torpor.testing.contracts.event_log import CASES  # noqa: E402
from torpor.testing.contracts.rig import Rig  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from torpor.events.log import EventLog

_ACK_WAIT_SECONDS = 0.5
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
"""Runs a test with each ``case``."""


class _RealTime:
    def __init__(self, settle_seconds: float) -> None:
        self._settle_seconds = settle_seconds

    def now(self) -> float:
        return time.time()

    async def pass_(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def settle(self) -> None:
        await asyncio.sleep(self._settle_seconds)


def hold(
    case: Callable[[Rig], Awaitable[None]],
    connect: Callable[[], Awaitable[EventLog]],
    settle_seconds: float = 0.02,
) -> None:
    """Run ``case`` on a log of its own connection, and leave no stream behind."""

    async def run() -> None:
        log = await connect()
        rig = Rig(log, _RealTime(settle_seconds), _ACK_WAIT_SECONDS)
        try:
            await case(rig)
        finally:
            for name in await log.streams():
                if name.startswith(rig.stream):
                    await log.remove_stream(name)
            await log.close()

    asyncio.run(run())
