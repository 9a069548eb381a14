"""What one process makes of a stream in Kafka, without a broker: readers that close, and what time it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.unit.events.kafka_world import Topic, appended, reader
from torpor.errors import EventLogError
from torpor.events import kafka_codec as codec
from torpor.events.kafka_reclaim import reclaim
from torpor.events.kafka_registry import Entry
from torpor.events.log import StreamSpec
from torpor.testing.contracts.rig import record

if TYPE_CHECKING:
    from torpor.clock import Clock
    from torpor.events.kafka_registry import Registry
    from torpor.events.kafka_wire import Wire

SPEC = StreamSpec("s", duplicate_window_seconds=10.0)


def test_a_reader_that_is_closed_while_it_loads_gives_back_what_it_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        topic = Topic()
        stream = await topic.open(SPEC)
        closing, other = await reader(topic, stream), await reader(topic, stream)
        await stream.append(appended(record("1"), record("2")))
        loading, go_on = asyncio.Event(), asyncio.Event()
        load = stream.load

        async def slow(sequences: Any) -> Any:
            loading.set()
            await go_on.wait()
            return await load(sequences)

        monkeypatch.setattr(stream, "load", slow)
        fetching = asyncio.create_task(closing.fetch(2))
        await loading.wait()
        await closing.close()
        go_on.set()
        with pytest.raises(EventLogError, match="was closed"):
            await fetching
        await stream.tell()
        assert [(it.record.event.id, it.attempt) for it in await other.fetch(2)] == [("1", 2), ("2", 2)]
        with pytest.raises(EventLogError, match="was closed"):
            await closing.fetch(2)
        assert list(stream.readers.values()) == [other]

    asyncio.run(run())


class _Slow:
    """A registry that is asked for a long time."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic

    async def sync(self) -> None:
        await self._topic.clock.advance(1000.0)

    def get(self, _: str) -> Entry:
        return Entry(SPEC, 1)


async def _reclaim(topic: Topic, stream: Any, registry: object) -> None:
    clock: Clock = topic.clock
    await reclaim(cast("Wire", topic.wire()), cast("Registry", registry), clock, stream)


def test_nothing_is_forgotten_by_a_time_after_what_is_known() -> None:
    """What was written while the registry was asked is judged by what there was then."""

    async def run() -> None:
        topic = Topic()
        stream = await topic.open(SPEC)
        await stream.append(appended(record("1")))
        written = topic.clock.now()
        await _reclaim(topic, stream, _Slow(topic))
        assert stream.index.knows(codec.digest("1"), "k", written + 5.0)
        await _reclaim(topic, stream, _Slow(topic))  # by now, 1000 seconds have surely passed
        assert not stream.index.knows(codec.digest("1"), "k", written + 5.0)

    asyncio.run(run())


def test_a_clock_that_was_set_back_is_not_believed_to_have_passed_what_it_said_before() -> None:
    async def run() -> None:
        topic = Topic()
        topic.ahead_seconds = 3600.0
        stream = await topic.open(SPEC)
        await stream.append(appended(record("1")))
        assert stream.passed() == topic.clock.now() + 3600.0
        topic.ahead_seconds = 0.0
        await stream.append(appended(record("2")))
        await topic.clock.advance(200.0)
        assert stream.passed() == topic.clock.now()
        stream.rest(stream.passed())
        assert stream.index.knows(codec.digest("1"), "k", stream.index.at)

    asyncio.run(run())


def test_what_was_there_at_the_start_does_not_tell_what_time_it_is() -> None:
    """Its last message is an hour old: the duplicate window is over, and so is the delay of a retry."""

    async def run() -> None:
        topic = Topic()
        one = await topic.open(SPEC)
        consumer = await reader(topic, one)
        await one.append(appended(record("1")))
        [delivery] = await consumer.fetch(1)
        await delivery.retry(600.0)
        await one.tell()
        await topic.clock.advance(3600.0)
        late = await topic.open(SPEC)
        assert late.now() == topic.clock.now()
        fetching = asyncio.create_task((await reader(topic, late)).fetch(1))
        for _ in range(20):
            await asyncio.sleep(0)
        assert fetching.done()
        assert [(it.record.event.id, it.attempt) for it in await fetching] == [("1", 2)]
        other = await topic.open(SPEC)
        assert await other.append(appended(record("1"))) == [True]

    asyncio.run(run())


def test_the_brokers_time_is_told_by_what_comes() -> None:
    async def run() -> None:
        topic = Topic()
        topic.ahead_seconds = -30.0
        stream = await topic.open(SPEC)
        assert stream.now() == topic.clock.now()  # for want of anything better
        await stream.append(appended(record("1")))
        assert stream.now() == topic.clock.now() - 30.0

    asyncio.run(run())
