"""A Kafka of one topic in memory, of which a process has read as much as the test lets it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import KafkaError

from torpor.events import kafka_codec as codec
from torpor.events.kafka_consumer import KafkaConsumer
from torpor.events.kafka_journal import put
from torpor.events.kafka_stream import JOURNAL, RECORDS, Cache, Stream
from torpor.events.log import ConsumerSpec, StreamSpec
from torpor.testing.clock import MovableClock

if TYPE_CHECKING:
    from torpor.errors import EventLogError
    from torpor.events.kafka_codec import Headers
    from torpor.events.kafka_wire import Wire
    from torpor.events.log import Guard, Record

SPEC = StreamSpec("s")
READER = ConsumerSpec("s", "c")
Take = Callable[[list[Any]], None]


def appended(*records: Record, guard: Guard | None = None) -> codec.Appended:
    """What a message of these records appends."""
    [one] = codec.appends(records, guard)
    return one


class Message:
    """One that the broker stored at that time."""

    def __init__(self, offset: int, at: float, headers: Headers, value: bytes | None) -> None:
        self._offset = offset
        self._at = at
        self._headers = headers
        self._value = value

    def error(self) -> None:
        return None

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 0, round(self._at * 1000)

    def headers(self) -> Headers:
        return self._headers

    def value(self) -> bytes | None:
        return self._value


class Lost:
    """What the client gives when it can't read on."""

    def error(self) -> KafkaError:
        return KafkaError(KafkaError._AUTO_OFFSET_RESET)


class Topic:
    """Two partitions, written to by several processes."""

    def __init__(self) -> None:
        self.clock = MovableClock(1_000_000.0)
        self.ahead_seconds = 0.0
        """Of processes' clocks the broker's is so far ahead."""
        self.partitions: tuple[list[Message], list[Message]] = ([], [])
        self._wires: list[MemoryWire] = []

    def wire(self, *, upto: int | None = None) -> MemoryWire:
        """For one process, which reads records below the offset ``upto`` alone, until it is let."""
        wire = MemoryWire(self, upto)
        self._wires.append(wire)
        return wire

    def write(self, partition: int, headers: Headers, value: bytes | None) -> None:
        """Store a message, and have all read it."""
        stored = self.partitions[partition]
        stored.append(Message(len(stored), self.clock.now() + self.ahead_seconds, headers, value))
        for wire in self._wires:
            wire.give()

    async def open(self, spec: StreamSpec, wire: MemoryWire | None = None) -> Stream:
        """A process' own view of the stream."""
        stream = Stream(cast("Wire", wire or self.wire()), Cache(1 << 20), self.clock, "t", spec)
        await stream.open()
        return stream


class MemoryWire:
    """What a stream needs of :class:`torpor.events.kafka_wire.Wire`."""

    def __init__(self, topic: Topic, upto: int | None) -> None:
        self._topic = topic
        self._upto = upto
        self._next = {RECORDS: 0, JOURNAL: 0}
        self._takes: dict[int, Take] = {}

    def let(self, upto: int | None = None) -> None:
        """Read on, up to that offset or all."""
        self._upto = upto
        self.give()

    def give(self) -> None:
        for partition, take in list(self._takes.items()):
            stored = self._topic.partitions[partition]
            end = len(stored)
            if partition == RECORDS and self._upto is not None:
                end = min(end, self._upto)
            begin, self._next[partition] = self._next[partition], max(end, self._next[partition])
            if end > begin:
                asyncio.get_running_loop().call_soon(take, stored[begin:end])

    def lose(self) -> None:
        """Say that the records that are to be read next were removed."""
        self._takes[RECORDS]([Lost()])

    async def first(self, topic: str, partition: int) -> int:
        return 0

    async def next(self, topic: str, partition: int) -> int:
        return len(self._topic.partitions[partition])

    async def first_since(self, topic: str, partition: int, at: float) -> int:
        stored = self._topic.partitions[partition]
        return sum(1 for message in stored if message.timestamp()[1] < at * 1000)

    async def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """It is of no use here."""

    async def prepare(self, topic: str) -> None:
        """The topic is known."""

    def follow(self, topic: str, partition: int, start: int, take: Take, *, beside: bool = False) -> None:
        self._takes[partition] = take
        self._next[partition] = start
        self.give()

    def unfollow(self, topic: str, partition: int) -> None:
        self._takes.pop(partition, None)

    def send(
        self,
        topic: str,
        partition: int,
        headers: Headers,
        value: bytes | None,
        *,
        key: str | None,
        failed: Callable[[EventLogError], None],
    ) -> None:
        self._topic.write(partition, headers, value)

    async def within_patience(self, future: asyncio.Future[Any]) -> Any:
        return await future

    def reader(self, topic: str) -> MemoryReader:
        return MemoryReader(self._topic)


class MemoryReader:
    """Reads single messages."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic

    async def read(self, offsets: Iterable[int]) -> list[Message]:
        return [self._topic.partitions[RECORDS][offset] for offset in offsets]

    async def close(self) -> None:
        """Let go."""


async def reader(topic: Topic, stream: Stream, spec: ConsumerSpec = READER) -> KafkaConsumer:
    """A reader of the durable consumer, which is made or brought to ``spec``."""
    there = await stream.upcoming()
    durable = stream.journal.consumers.get(spec.name)
    if durable is None or durable.spec != spec:
        await stream.say(put(spec, 0, keep=False))
    return KafkaConsumer(stream, spec.name, topic.clock, there)
