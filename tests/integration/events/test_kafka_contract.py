"""Kafka keeps the contract of every event log."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("torpor.testing.contracts.event_log")

from torpor.events.kafka import KafkaLog  # noqa: E402
from torpor.testing.contracts.event_log import CASES  # noqa: E402
from torpor.testing.contracts.rig import Rig  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from torpor.events.kafka_server import KafkaServer


class _RealTime:
    def now(self) -> float:
        return time.time()

    async def pass_(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def settle(self) -> None:
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_contract(case: Callable[[Rig], Awaitable[None]], kafka: KafkaServer) -> None:
    async def run() -> None:
        log = await KafkaLog.connect(kafka.servers, options=kafka.options)
        rig = Rig(log, _RealTime(), 0.5)
        try:
            await case(rig)
        finally:
            for name in await log.streams():
                if name.startswith(rig.stream):
                    await log.remove_stream(name)
            await log.close()

    asyncio.run(run())
