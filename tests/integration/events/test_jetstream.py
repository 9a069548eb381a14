"""What JetStream asks of a reader beyond the contract of every event log."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from torpor.events.jetstream import JetStreamLog
from torpor.events.jetstream_consumer import MOST_ASKED
from torpor.events.log import ConsumerSpec, StreamSpec
from torpor.testing.contracts.rig import record

if TYPE_CHECKING:
    from torpor.events.nats_server import NatsServer


def test_no_more_is_under_way_than_memory_has_room_for(nats: NatsServer) -> None:
    async def run() -> None:
        log = await JetStreamLog.connect(nats.url, token=nats.token)
        await log.ensure_stream(StreamSpec("s"))
        await log.append("s", [record(str(number)) for number in range(4 * MOST_ASKED)])
        consumer = await log.consumer(ConsumerSpec("s", "c", max_in_flight=1000))
        taken: list[str] = []
        while len(taken) < 4 * MOST_ASKED:
            deliveries = await consumer.fetch(4 * MOST_ASKED - len(taken))
            taken += [each.record.event.id for each in deliveries]
            assert await consumer.outstanding() <= len(taken) + MOST_ASKED
        assert taken == [str(number) for number in range(4 * MOST_ASKED)]
        await log.close()

    asyncio.run(run())
