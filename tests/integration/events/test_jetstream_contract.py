"""JetStream keeps the contract of every event log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.integration.events.contract import every_case, hold
from torpor.events.jetstream import JetStreamLog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from torpor.events.nats_server import NatsServer
    from torpor.testing.contracts.rig import Rig


@every_case
def test_contract(case: Callable[[Rig], Awaitable[None]], nats: NatsServer) -> None:
    hold(case, lambda: JetStreamLog.connect(nats.url, token=nats.token))
