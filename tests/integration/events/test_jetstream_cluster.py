"""JetStream on three servers keeps the contract as one does, and goes on when any of them is killed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.events.contract import every_case, hold
from tests.integration.events.nats_cluster import NatsCluster
from torpor.binding import WireEvent
from torpor.errors import BlobError, BlobNotFoundError
from torpor.events.log import ConsumerSpec, Record, StreamSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from torpor.events.log import Stored
    from torpor.events.nats_place import NatsPlace
    from torpor.testing.contracts.rig import Rig

RECORDS = 2_000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    with contextlib.closing(NatsCluster(tmp_path_factory.mktemp("nats"))) as servers:
        yield servers


@every_case
def test_contract(case: Callable[[Rig], Awaitable[None]], cluster: NatsCluster) -> None:
    hold(case, cluster.connect)


def _record(number: int) -> Record:
    attributes = {"specversion": "1.0", "id": str(number), "source": "/s", "type": "t"}
    return Record(f"r.{number}", str(number), WireEvent(attributes, b"%d" % number))


def test_a_copy_that_is_behind_is_waited_for(cluster: NatsCluster) -> None:
    async def run() -> None:
        log = await cluster.connect()
        await log.ensure_stream(StreamSpec("behind"))
        page = log._page
        behind = [0, 1]  # what a copy has of the records, the first times that it is asked

        async def late(stream: str, key: str, sequence: int, **how: Any) -> tuple[list[Stored], bool]:
            found, left = await page(stream, key, sequence, **how)
            return (found[: behind.pop(0)], False) if behind else (found, left)

        log._page = late  # type: ignore[method-assign]
        try:
            await log.append("behind", [_record(number) for number in range(3)])
            assert [one.event.id async for one in log.read("behind", ">")] == ["0", "1", "2"]
            assert behind == []
            behind = [0, 2]
            assert [one.event.id for one in await log.newest("behind", ">", 2)] == ["2", "1"]
            assert behind == []
            assert [one.event.id async for one in log.read("behind", "r.7")] == []
        finally:
            await log.remove_stream("behind")
            await log.close()

    asyncio.run(run())


def test_nothing_is_lost_while_each_server_is_killed_once(cluster: NatsCluster) -> None:
    async def run() -> None:
        log = await cluster.connect()
        await log.ensure_stream(StreamSpec("killed"))
        consumer = await log.consumer(ConsumerSpec("killed", "c"))
        seen: set[str] = set()

        async def write() -> None:
            for start in range(0, RECORDS, 20):
                await log.append("killed", [_record(number) for number in range(start, start + 20)])

        async def read() -> None:
            while len(seen) < RECORDS:
                for delivery in await consumer.fetch(100):
                    seen.add(delivery.record.event.id)
                    await delivery.ack()

        async def disturb() -> None:
            for _ in range(len(cluster)):
                leader = await cluster.leader(log, "killed")
                cluster.kill(leader)
                cluster.start(leader)
                await cluster.until_whole(log, "killed")

        try:
            async with asyncio.timeout(120):
                await asyncio.gather(write(), read(), disturb())
            stored = [one.event.id async for one in log.read("killed", ">")]
            assert sorted(stored, key=int) == [str(number) for number in range(RECORDS)]
        finally:
            await consumer.close()
            await log.remove_stream("killed")
            await log.close()

    asyncio.run(run())


def test_a_blob_that_many_store_at_once_is_stored_once(cluster: NatsCluster) -> None:
    async def run() -> None:
        keeper = cluster.blobs()
        data = b"x" * 300_000
        name = hashlib.sha256(data).hexdigest()
        try:
            async with asyncio.timeout(60):  # the servers may be electing a leader
                while await _is_away(keeper):
                    pass
            await asyncio.gather(*(keeper.put(name, data, None) for _ in range(8)))
            assert [kept.name async for kept in keeper.list()] == [name]
            await asyncio.gather(*(keeper.set_aside(name) for _ in range(3)), return_exceptions=True)
            await keeper.set_aside(name)
            assert await keeper.get(name) == data
            await keeper.remove(name)
            assert [kept async for kept in keeper.list()] == []
        finally:
            await keeper.close()

    asyncio.run(run())


async def _is_away(keeper: NatsPlace) -> bool:
    try:
        await keeper.open("0" * 64)
    except BlobNotFoundError:
        return False
    except BlobError:
        return True
    raise AssertionError("there is no such blob")
