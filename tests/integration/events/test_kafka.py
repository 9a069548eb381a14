"""What Kafka asks of the log beyond the contract: several processes, restarts, and what is deleted."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer

from torpor.errors import EventLogError, SupersededError
from torpor.events.kafka import KafkaLog
from torpor.events.kafka_codec import BATCH, offset_of
from torpor.events.kafka_server import KafkaServer, install
from torpor.events.kafka_stream import RECORDS
from torpor.events.log import ConsumerSpec, Guard, Record, StreamSpec
from torpor.settings import PlatformSettings
from torpor.testing.contracts.rig import event, record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from confluent_kafka import Message

    from torpor.events.log import Consumer

STREAM = "broker.kafka.test"
SPEC = ConsumerSpec(STREAM, "trigger.kafka.reader")


def run(kafka: KafkaServer, case: Callable[[KafkaLog, KafkaLog], Awaitable[None]]) -> None:
    """``case`` with two logs, as two processes have them."""

    async def go() -> None:
        async with AsyncExitStack() as stack:
            one, other = [await stack.enter_async_context(connected(kafka)) for _ in range(2)]
            await one.remove_stream(STREAM)
            await one.ensure_stream(StreamSpec(STREAM))
            async with asyncio.timeout(120):
                await case(one, other)
            await other.remove_stream(STREAM)

    asyncio.run(go())


@asynccontextmanager
async def connected(kafka: KafkaServer) -> AsyncIterator[KafkaLog]:
    log = await KafkaLog.connect(kafka.servers, options=kafka.options)
    try:
        yield log
    finally:
        await log.close()


async def ids(log: KafkaLog, key: str = ">") -> list[str]:
    return [stored.event.id async for stored in log.read(STREAM, key)]


async def until_pending(consumer: Consumer, count: int) -> None:
    async with asyncio.timeout(20):
        while await consumer.pending() != count:
            await asyncio.sleep(0.01)


def test_of_racing_processes_one_appends(kafka: KafkaServer) -> None:
    async def case(one: KafkaLog, other: KafkaLog) -> None:
        appends = [log.append(STREAM, [record(str(number))]) for number in range(50) for log in (one, other)]
        answers = await asyncio.gather(*appends)
        for number in range(50):
            assert sorted((answers[2 * number], answers[2 * number + 1])) == [[False], [True]]
        assert sorted(await ids(one)) == sorted(await ids(other)) == sorted(map(str, range(50)))

    run(kafka, case)


def test_a_guard_shuts_out_another_process(kafka: KafkaServer) -> None:
    async def case(one: KafkaLog, other: KafkaLog) -> None:
        await one.append(STREAM, [record("turn 1", "turn.a")])
        [first] = [stored async for stored in one.read(STREAM, "turn.>")]
        await other.append(STREAM, [record("turn 2", "turn.b")])
        with pytest.raises(SupersededError):
            await one.append(STREAM, [record("late")], guard=Guard("turn.>", first.sequence))
        assert await ids(other) == await ids(one) == ["turn 1", "turn 2"]

    run(kafka, case)


def test_processes_share_a_consumer_and_none_gets_what_another_has(kafka: KafkaServer) -> None:
    async def case(one: KafkaLog, other: KafkaLog) -> None:
        await one.append(STREAM, [record(str(number)) for number in range(400)])
        consumers = [await log.consumer(SPEC) for log in (one, other)]
        taken: list[list[str]] = [[], []]

        async def drain(consumer: Consumer, into: list[str]) -> None:
            while sum(map(len, taken)) < 400:
                for delivery in await consumer.fetch(10):
                    into.append(delivery.record.event.id)
                    await delivery.ack()
                await asyncio.sleep(0)

        drains = [asyncio.create_task(drain(*each)) for each in zip(consumers, taken, strict=True)]
        await asyncio.wait(drains, return_when=asyncio.FIRST_COMPLETED)
        for each in drains:
            each.cancel()
        await asyncio.gather(*drains, return_exceptions=True)
        assert sorted(taken[0] + taken[1]) == sorted(map(str, range(400)))
        assert taken[0]
        assert taken[1]
        await until_pending(consumers[0], 0)

    run(kafka, case)


def test_what_a_lost_process_had_comes_to_another(kafka: KafkaServer) -> None:
    async def case(one: KafkaLog, other: KafkaLog) -> None:
        spec = ConsumerSpec(STREAM, "trigger.kafka.lost", ack_wait_seconds=0.5)
        consumer = await one.consumer(spec)
        await one.append(STREAM, [record("1"), record("2")])
        [first, _] = await consumer.fetch(2)
        await first.ack()
        await until_pending(consumer, 1)
        await one.close()
        [again] = await (await other.consumer(spec)).fetch(2)
        assert (again.record.event.id, again.attempt) == ("2", 2)

    run(kafka, case)


def test_a_process_that_starts_later_goes_on_from_a_snapshot(kafka: KafkaServer) -> None:
    async def case(one: KafkaLog, other: KafkaLog) -> None:
        consumer = await one.consumer(SPEC)
        await one.append(STREAM, [record(str(number)) for number in range(6)])
        deliveries = [*await consumer.fetch(3)]
        while len(deliveries) < 3:
            deliveries += await consumer.fetch(3 - len(deliveries))
        await deliveries[0].ack()
        await deliveries[1].retry(1000.0)
        await until_pending(consumer, 5)
        for _ in range(2):  # the second deletes what the first replaced
            await one.reclaim(STREAM, journal_messages=1, settled_seconds=0.0)
            await deliveries[2].extend()
            await one.consumers(STREAM)
        reader = await other.consumer(SPEC)
        assert await reader.pending() == 5
        taken = [*await reader.fetch(10)]
        while len(taken) < 3:
            taken += await reader.fetch(10)
        assert [(each.record.event.id, each.attempt) for each in taken] == [("3", 1), ("4", 1), ("5", 1)]

    run(kafka, case)


def test_what_is_trimmed_is_deleted_but_for_the_duplicate_window(kafka: KafkaServer) -> None:
    async def case(one: KafkaLog, other: KafkaLog) -> None:
        await one.ensure_stream(StreamSpec(STREAM, duplicate_window_seconds=2.0))
        await one.append(STREAM, [record("1")])
        await one.append(STREAM, [record("2")])
        await one.trim(STREAM, time.time() + 10)
        await one.reclaim(STREAM)
        assert await one.append(STREAM, [record("2")]) == [False]
        await asyncio.sleep(2.5)  # the broker's time can't be moved
        await one.append(STREAM, [record("3")])
        await one.reclaim(STREAM)
        assert await ids(other) == ["3"]
        [stored] = [stored async for stored in other.read(STREAM, ">")]
        assert await other.first_offset(STREAM) == offset_of(stored.sequence)

    run(kafka, case)


def test_one_old_record_does_not_keep_all_that_came_after_it(kafka: KafkaServer) -> None:
    async def case(one: KafkaLog, other: KafkaLog) -> None:
        await one.ensure_stream(StreamSpec(STREAM, duplicate_window_seconds=0.5))
        await one.append(STREAM, [record("turn", "turn.a")])
        [turn] = [stored async for stored in one.read(STREAM, "turn.>")]
        guard = Guard("turn.>", turn.sequence)
        for number in range(50):
            await one.append(STREAM, [record(str(number), "part.x")], guard=guard)
            await one.purge(STREAM, "part.x")
        await one.append(STREAM, [record("kept", "part.y")], guard=guard)
        await asyncio.sleep(1.0)  # the broker's time can't be moved
        for _ in range(2):  # the second deletes what the first made needless
            await one.reclaim(STREAM, worth=10, settled_seconds=0.0)
        assert await one.first_offset(STREAM) > 90
        async with connected(kafka) as late:
            for log in (one, other, late):
                assert await ids(log) == ["turn", "kept"]
            assert await late.append(STREAM, [record("more", "part.z")], guard=guard) == [True]
            with pytest.raises(SupersededError):
                await late.append(STREAM, [record("other")], guard=Guard("turn.>", turn.sequence + 1))
            [stored] = [stored async for stored in late.read(STREAM, "turn.>")]
            assert stored == turn
        await one.purge(STREAM, "turn.a")
        await asyncio.sleep(1.0)
        for _ in range(2):
            await one.reclaim(STREAM, worth=10, settled_seconds=0.0)
        async with connected(kafka) as late:
            assert await ids(late) == await ids(one) == ["kept", "more"]

    run(kafka, case)


def test_who_does_not_know_the_password_is_told_so(kafka: KafkaServer) -> None:
    async def go() -> None:
        options = {**kafka.options, "sasl.password": "wrong-1"}
        with pytest.raises(EventLogError, match=r"there is no Kafka at .*[Aa]uthentication") as raised:
            await KafkaLog.connect(kafka.servers, options=options, patience_seconds=5.0)
        assert "wrong-1" not in str(raised.value)

    asyncio.run(go())


def test_who_asks_while_a_topic_is_made_is_told(kafka: KafkaServer) -> None:
    """The client remembers that there was no leader when it asked."""

    async def case(one: KafkaLog, other: KafkaLog) -> None:
        for number in range(3):
            topic = f"torpor.made.{number}"
            asking = asyncio.create_task(one._wire.first(topic, 0))
            await other._wire.create(topic, 2, 1, {})
            assert await asking == 0
            await other._wire.delete(topic)

    run(kafka, case)


def test_a_stream_that_another_process_removed_is_gone_here(kafka: KafkaServer) -> None:
    async def case(one: KafkaLog, other: KafkaLog) -> None:
        consumer = await other.consumer(SPEC)
        fetching = asyncio.create_task(_fetch(consumer))
        await one.remove_stream(STREAM)
        with pytest.raises(EventLogError):
            await fetching
        with pytest.raises(EventLogError):
            await ids(other)
        await one.ensure_stream(StreamSpec(STREAM))
        assert await ids(other) == []
        assert await other.append(STREAM, [record("1")]) == [True]
        assert await ids(one) == ["1"]

    run(kafka, case)


def test_what_another_program_writes_is_left_out(
    kafka: KafkaServer, caplog: pytest.LogCaptureFixture
) -> None:
    foreign: list[tuple[Any, bytes | None]] = [
        ([("ce_id", b"x"), ("ce_source", b"/other"), ("ce_type", b"a"), ("ce_specversion", b"1.0")], b"{}"),
        ([], b"no event at all"),
        ([], None),
        (BATCH, b"\0\0\0\x09[not json"),
        ([("torpor-do", b"trim")], b"soon"),
        ([("torpor-key", b"k"), ("torpor-identity", b"i"), ("ce_x", None)], b"a header without a value"),
        (BATCH, b'\0\0\0\x0e[["k",1,{},0]]'),
        (BATCH, b'\0\0\0\x12[["k","i",{},1.0]]x'),
    ]

    async def case(one: KafkaLog, other: KafkaLog) -> None:
        consumer = await one.consumer(SPEC)
        topic = (await one._stream(STREAM)).topic
        producer = Producer({"bootstrap.servers": kafka.servers, **kafka.options})
        await one.append(STREAM, [record("1")])
        for headers, value in foreign:
            producer.produce(topic, value, headers=list(headers), partition=RECORDS)
        producer.flush()
        await one.append(STREAM, [record("2")])
        assert [each.record.event.id for each in await consumer.fetch(9)] == ["1", "2"]
        async with connected(kafka) as late:
            assert await ids(late) == await ids(other) == ["1", "2"]
        assert sum("is left out" in each.getMessage() for each in caplog.records) >= len(foreign)

    run(kafka, case)


def test_a_backlog_is_read_from_kafka_and_not_kept(kafka: KafkaServer) -> None:
    async def case(one: KafkaLog, other: KafkaLog) -> None:
        data = b"x" * 100_000
        for start in range(0, 1000, 20):  # 100 MB, more than is kept
            batch = [
                Record("k", str(number), event(str(number), data)) for number in range(start, start + 20)
            ]
            await one.append(STREAM, batch)
        consumer = await other.consumer(SPEC)
        assert await consumer.pending() == 1000
        taken: list[str] = []
        while len(taken) < 1000:
            for delivery in await consumer.fetch(100):
                assert delivery.record.event.data == data
                taken.append(delivery.record.event.id)
                await delivery.ack()
        assert taken == [str(number) for number in range(1000)]

    run(kafka, case)


def test_a_process_that_starts_delivers_while_it_reads_the_backlog(kafka: KafkaServer) -> None:
    """What it has read is held back at the first 100 of 300 messages."""

    async def case(one: KafkaLog, other: KafkaLog) -> None:
        await (await one.consumer(SPEC)).close()
        for start in range(0, 300, 30):  # few enough at once to be each a message
            some = range(start, start + 30)
            await asyncio.gather(*(one.append(STREAM, [record(str(number))]) for number in some))
        kept = _Kept(other, 100)
        consumer = await other.consumer(SPEC)
        stream = await other._stream(STREAM)
        taken: list[str] = []

        async def take(count: int) -> None:
            while len(taken) < count:
                for delivery in await consumer.fetch(50):
                    taken.append(delivery.record.event.id)
                    await delivery.ack()

        await take(100)
        assert offset_of(stream.index.end) == 100
        assert not stream.is_whole
        fetching = asyncio.create_task(consumer.fetch(1))
        reading = asyncio.create_task(ids(other))
        appending = asyncio.create_task(other.append(STREAM, [record("7"), record("new")]))
        pending = asyncio.create_task(consumer.pending())
        await other.consumers(STREAM)  # which waits for the journal alone
        assert not any(task.done() for task in (fetching, reading, appending, pending))
        await kept.let()
        [delivery] = await fetching
        taken.append(delivery.record.event.id)
        await delivery.ack()
        assert set(await reading) >= set(map(str, range(300)))
        assert await appending == [False, True]
        assert await pending >= 200
        await take(301)
        assert sorted(taken) == sorted([*map(str, range(300)), "new"])
        await until_pending(consumer, 0)

    run(kafka, case)


class _Kept:
    """Has a process read of its streams' records those below the offset ``upto`` alone, until it is let."""

    def __init__(self, log: KafkaLog, upto: int) -> None:
        self._upto: float = upto
        self._messages: list[Message] = []
        self._came = asyncio.Event()
        self._follow = log._wire.follow
        log._wire.follow = self._following  # type: ignore[method-assign]

    def _following(
        self,
        topic: str,
        partition: int,
        start: int,
        take: Callable[[list[Message]], None],
        *,
        beside: bool = False,
    ) -> None:
        def some(messages: list[Message]) -> None:
            later = [each for each in messages if (each.offset() or 0) >= self._upto]
            take([each for each in messages if each not in later])
            if later:
                self._messages += later
                self._take = take
                self._came.set()

        self._follow(topic, partition, start, some if partition == RECORDS else take, beside=beside)

    async def let(self) -> None:
        await self._came.wait()
        self._upto = math.inf
        self._take(self._messages)


def test_a_broker_that_is_killed_loses_nothing(kafka: KafkaServer) -> None:
    async def case(one: KafkaLog, other: KafkaLog) -> None:
        back = asyncio.Event()
        one.on_reconnect(back.set)
        consumer = await one.consumer(SPEC)
        await one.append(STREAM, [record(str(number)) for number in range(10)])
        assert await one.first_offset(STREAM) == 0
        assert kafka.pid is not None
        os.kill(kafka.pid, signal.SIGKILL)
        appended: list[str] = []
        for number in range(10, 15):
            while True:
                try:
                    await one.append(STREAM, [record(str(number))])
                    break
                except EventLogError:
                    continue
            appended.append(str(number))
        await back.wait()
        assert one.connected
        assert await one.first_offset(STREAM) == 0  # though the leader that was asked before is none now
        taken: set[str] = set()
        while len(taken) < 15:
            for delivery in await consumer.fetch(20):
                taken.add(delivery.record.event.id)
                await delivery.ack()
        assert await ids(other) == [str(number) for number in range(15)]
        await until_pending(consumer, 0)

    run(kafka, case)


async def _fetch(consumer: Consumer) -> int:
    return len(await consumer.fetch(1))


def test_the_id_of_a_cluster_may_begin_with_a_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        libraries = await install(PlatformSettings.from_environment().cache_dir)
        monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(bytes=b"\xf8" + bytes(15)))
        server = KafkaServer(tmp_path, libraries, sync="interval")
        await server.start()
        await server.close()

    asyncio.run(go())
    assert "cluster.id=-AAAA" in (tmp_path / "data" / "meta.properties").read_text()
