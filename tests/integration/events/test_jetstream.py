"""What JetStream asks of a reader beyond the contract of every event log."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest

from torpor.errors import EventLogError
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


def test_what_a_consumer_without_a_leader_waits_for_is_not_trimmed(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster lists those that answer within its time, and names the others."""

    async def run() -> None:
        log = await JetStreamLog.connect(nats.url, token=nats.token)
        await log.ensure_stream(StreamSpec("led"))
        silent = await log.consumer(ConsumerSpec("led", "a"))
        await log.append("led", [record(str(number)) for number in range(10)])
        call = log._api.call

        async def partial(verb: str, body: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
            page = await call(verb, body, **more)
            return {**page, "consumers": [], "missing": ["a"]} if verb.startswith("CONSUMER.LIST") else page

        monkeypatch.setattr(log._api, "call", partial)
        with pytest.raises(EventLogError, match="consumers of stream 'led' do not answer: a"):
            await log.trim("led", math.inf)
        with pytest.raises(EventLogError):
            await log.consumers("led")
        monkeypatch.undo()
        assert await silent.pending() == 10
        assert len([each async for each in log.read("led", ">")]) == 10
        await log.close()

    asyncio.run(run())
