"""Kafka keeps the contract of every event log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.integration.events.contract import every_case, hold
from torpor.events.kafka import KafkaLog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from torpor.events.kafka_server import KafkaServer
    from torpor.testing.contracts.rig import Rig


@every_case
def test_contract(case: Callable[[Rig], Awaitable[None]], kafka: KafkaServer) -> None:
    hold(case, lambda: KafkaLog.connect(kafka.servers, options=kafka.options), settle_seconds=0.1)
