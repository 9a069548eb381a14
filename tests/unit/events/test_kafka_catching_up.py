"""What a process may do while it has not read all records of a stream yet, and what has to wait."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.events.kafka_world import READER, SPEC, Topic, appended, reader
from torpor.errors import EventLogError
from torpor.events.kafka_codec import Purged, Trimmed, sequence_of
from torpor.events.kafka_journal import Grant
from torpor.events.kafka_stream import JOURNAL, RECORDS
from torpor.events.log import StreamSpec
from torpor.testing.contracts.rig import record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from torpor.events.kafka_stream import Stream
    from torpor.events.log import Delivery


async def filled(
    topic: Topic, *ids: str, spec: StreamSpec = SPEC, keys: dict[str, str] | None = None
) -> Stream:
    """A process that has a consumer and has appended records, each a message of its own."""
    stream = await topic.open(spec)
    await reader(topic, stream)
    for each in ids:
        await stream.append(appended(record(each, (keys or {}).get(each, "k"))))
    return stream


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def waits(work: Awaitable[Any]) -> asyncio.Future[Any]:
    """``work``, which is not done before more is read."""
    task = asyncio.ensure_future(work)
    await turns()
    assert not task.done()
    return task


def _ids(deliveries: Sequence[Delivery]) -> list[tuple[str, int]]:
    return [(each.record.event.id, each.attempt) for each in deliveries]


def test_a_consumer_is_given_what_is_known_while_the_rest_is_read() -> None:
    async def run() -> None:
        topic = Topic()
        await filled(topic, *map(str, range(10)))
        wire = topic.wire(upto=3)
        late = await topic.open(SPEC, wire)
        consumer = await reader(topic, late)
        assert _ids(await consumer.fetch(2)) == [("0", 1), ("1", 1)]
        assert late.index.end == sequence_of(3)
        pending = await waits(consumer.pending())
        since = await waits(consumer.waiting_since())
        assert _ids(await consumer.fetch(10)) == [("2", 1)]
        fetching = await waits(consumer.fetch(10))
        wire.let(5)
        assert _ids(await fetching) == [("3", 1), ("4", 1)]
        assert [pending.done(), since.done()] == [False, False]
        wire.let()
        assert await pending == 10
        assert await since == topic.clock.now()
        assert _ids(await consumer.fetch(10)) == [(str(number), 1) for number in range(5, 10)]

    asyncio.run(run())


def test_who_asks_how_much_waits_is_told_before_long_that_it_is_not_known() -> None:
    async def run() -> None:
        topic = Topic()
        await filled(topic, *map(str, range(10)))
        wire = topic.wire(upto=3)
        consumer = await reader(topic, await topic.open(SPEC, wire))
        for question in (consumer.pending, consumer.waiting_since):
            asked = await waits(question())
            await topic.clock.advance(3.0)
            with pytest.raises(EventLogError, match="7 messages of stream 's' are to be read"):
                await asked
        wire.let()
        assert await consumer.pending() == 10

    asyncio.run(run())


def test_no_claim_says_anything_of_what_is_not_known() -> None:
    async def run() -> None:
        topic = Topic()
        one = await filled(topic, *map(str, range(5)), keys={"2": "b", "4": "b"})
        spec = replace(READER, keys=("b",))
        await reader(topic, one, spec)
        wire = topic.wire(upto=2)
        consumer = await reader(topic, await topic.open(SPEC, wire), spec)
        written = len(topic.partitions[JOURNAL])
        fetching = await waits(consumer.fetch(10))
        assert len(topic.partitions[JOURNAL]) == written
        wire.let(3)
        assert _ids(await fetching) == [("2", 1)]
        assert one.journal.consumers["c"].next == sequence_of(3)
        fetching = await waits(consumer.fetch(10))
        wire.let()
        assert _ids(await fetching) == [("4", 1)]

    asyncio.run(run())


def test_what_a_consumer_has_had_comes_again_once_it_is_known() -> None:
    async def run() -> None:
        topic = Topic()
        one = await filled(topic, *map(str, range(5)))
        had = await (await reader(topic, one)).fetch(4)
        await had[3].retry(0.0)
        await one.tell()
        wire = topic.wire(upto=3)
        consumer = await reader(topic, await topic.open(SPEC, wire))
        written = len(topic.partitions[JOURNAL])
        fetching = await waits(consumer.fetch(1))
        assert len(topic.partitions[JOURNAL]) == written
        wire.let(4)
        assert _ids(await fetching) == [("3", 2)]
        fetching = await waits(consumer.fetch(1))
        wire.let()
        assert _ids(await fetching) == [("4", 1)]

    asyncio.run(run())


def test_what_is_granted_and_not_known_does_not_hold_up_what_is() -> None:
    """A claim may be granted what another process has read, had and given back, and this one has not read."""

    async def run() -> None:
        topic = Topic()
        one = await filled(topic, *map(str, range(4)))
        wire = topic.wire(upto=2)
        consumer = await reader(topic, await topic.open(SPEC, wire))
        assert len(await (await reader(topic, one)).fetch(4)) == 4
        consumer.granted((Grant(sequence_of(3), 1), Grant(sequence_of(0), 1)))
        assert _ids(await consumer.fetch(4)) == [("0", 1)]
        fetching = await waits(consumer.fetch(4))
        wire.let()
        assert _ids(await fetching) == [("3", 1)]

    asyncio.run(run())


def test_what_was_trimmed_does_not_come_though_its_trim_is_not_known_yet() -> None:
    async def run() -> None:
        topic = Topic()
        one = await filled(topic, "0", "1", "2", keys={"2": "b"})
        await reader(topic, one, replace(READER, keys=("b",)))
        await one.remove(Trimmed(sequence_of(2)))
        await reader(topic, one, READER)  # all keys again
        wire = topic.wire(upto=3)
        late = await topic.open(SPEC, wire)
        consumer = await reader(topic, late)
        assert _ids(await consumer.fetch(10)) == [("2", 1)]
        assert not late.is_whole
        wire.let()
        assert await consumer.pending() == 1

    asyncio.run(run())


def test_where_records_were_purged_nothing_comes_before_all_is_known() -> None:
    async def run() -> None:
        topic = Topic()
        one = await filled(topic, "0", "1", keys={"0": "b"})
        await one.remove(Purged("b"))
        wire = topic.wire(upto=2)
        consumer = await reader(topic, await topic.open(SPEC, wire))
        fetching = await waits(consumer.fetch(10))
        wire.let()
        assert _ids(await fetching) == [("1", 1)]

    asyncio.run(run())


def test_where_records_have_an_age_nothing_comes_before_all_is_known() -> None:
    async def run() -> None:
        topic = Topic()
        spec = StreamSpec("s", max_age_seconds=100.0)
        one = await filled(topic, "0", spec=spec)
        await topic.clock.advance(150.0)
        await one.append(appended(record("1")))
        wire = topic.wire(upto=1)
        consumer = await reader(topic, await topic.open(spec, wire))
        fetching = await waits(consumer.fetch(10))
        wire.let()
        assert _ids(await fetching) == [("1", 1)]

    asyncio.run(run())


def test_an_append_waits_for_what_decides_about_it() -> None:
    """Its key was purged, and what filled the stream was trimmed, by what is not known yet."""

    async def run() -> None:
        topic = Topic()
        spec = StreamSpec("s", once_per_key=True, max_bytes=200)
        one = await filled(topic, "0", "1", spec=spec, keys={"0": "b", "1": "a"})
        assert one.index.bytes == 2 * 84
        await one.remove(Purged("b"))
        await one.remove(Trimmed(sequence_of(2)))
        wire = topic.wire(upto=2)
        late = await topic.open(spec, wire)
        written = len(topic.partitions[RECORDS])
        appending = await waits(late.append(appended(record("2", "b"))))
        again = await waits(late.append(appended(record("0", "c"))))
        trimming = await waits(late.remove(Trimmed(0)))
        assert len(topic.partitions[RECORDS]) == written
        wire.let()
        assert await appending == [True]
        assert await again == [False]
        await trimming

    asyncio.run(run())


@pytest.mark.parametrize("lost", [True, False])
def test_all_who_wait_are_told_when_the_rest_can_not_be_read(lost: bool) -> None:
    async def run() -> None:
        topic = Topic()
        await filled(topic, "0", "1", "2")
        wire = topic.wire(upto=1)
        late = await topic.open(SPEC, wire)
        consumer = await reader(topic, late)
        [first] = await consumer.fetch(1)
        work = [
            consumer.fetch(1),
            consumer.pending(),
            late.append(appended(record("9"))),
            late.sync(),
            late.whole(),
        ]
        tasks = [await waits(each) for each in work]
        if lost:
            wire.lose()
        else:
            await late.close(EventLogError("it was closed"))
        for task in tasks:
            with pytest.raises(EventLogError, match="was removed" if lost else "it was closed"):
                await task
        assert late.gone is not None
        await first.ack()  # which is too late, and harmless
        await late.close(EventLogError("it is opened anew"))

    asyncio.run(run())


def test_a_rest_of_which_nothing_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        topic = Topic()
        one = await topic.open(SPEC)
        await one.append(appended(record("0")))
        late = await topic.open(SPEC, topic.wire(upto=0))
        monkeypatch.setattr("torpor.events.kafka_partition.PATIENCE_SECONDS", 0.0)
        with pytest.raises(EventLogError, match="nothing came in time"):
            await late.append(appended(record("1")))
        assert late.gone is not None

    asyncio.run(run())
