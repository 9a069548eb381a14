"""The event log in Apache Kafka (4.0 or newer, KRaft).

How the contract is kept:

- A stream is a topic of two partitions: its records in one order, and the journal of its durable consumers.
  One partition for the records, since the contract's order, duplicates and guards are of the whole stream; it
  takes far more than a dispatcher delivers, and consumers scale all the same, since they share by record.
- Every process follows the topics that it works with and applies the same rules in the same order with the
  broker's time (``LogAppendTime``): see :mod:`torpor.events.kafka_index`. An append is one message, so that
  it is written whole or not at all (many of single records may share one), by an idempotent producer with
  ``acks=all``; it returns once this process has read it back, and so knows whether it was the first of its
  identity and whether its guard held.
- An append of more than 1,000 records, or 4 MiB, makes several messages, each whole for itself.
- Consumers are not Kafka's. A consumer group commits a place, not single records; a share group (KIP-932,
  which the client has) gives up a record for good after a few deliveries, can't put off a retry, knows no
  keys, and doesn't say how much waits. So what they have had is in the journal:
  :mod:`torpor.events.kafka_journal`.
- Records are kept for as long as the stream wants them, whatever the broker's own retention: topics are made
  without one, and what is trimmed, purged or too old is deleted from the head of the partition, though never
  inside the duplicate window.
- What is written survives the loss of all but one in-sync replica. Kafka answers before its files are forced
  to the disk: a loss of power of all replicas at once may cost what was written last.
"""

from __future__ import annotations

import asyncio
import logging
import math
from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING

from torpor.clock import SystemClock, cancel
from torpor.errors import EventLogError
from torpor.events import kafka_codec as codec
from torpor.events.kafka_codec import Purged, Trimmed
from torpor.events.kafka_consumer import KafkaConsumer
from torpor.events.kafka_journal import put
from torpor.events.kafka_reclaim import carried_records, reclaim
from torpor.events.kafka_registry import Entry, Registry
from torpor.events.kafka_stream import RECORDS, Cache, Stream
from torpor.events.kafka_wire import PATIENCE_SECONDS, Wire
from torpor.events.log import MAX_APPEND, ConsumerSpec, Guard, Record, Stored, StreamSpec

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence

    from torpor.clock import Clock

_LOG = logging.getLogger("torpor.events")
PREFIX = "torpor"
_CACHE_BYTES = 16 * 1024 * 1024
_READ_RECORDS = 256
_READ_BYTES = 8 * 1024 * 1024
_HOUSEKEEPING_SECONDS = 60.0
_FOR_EVER = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "segment.bytes": str(64 * 1024 * 1024),
    "max.message.bytes": str(codec.MAX_MESSAGE_BYTES),
    "message.timestamp.type": "LogAppendTime",
    "compression.type": "producer",
}
_COMPACTED = {"cleanup.policy": "compact", "max.message.bytes": str(codec.MAX_MESSAGE_BYTES)}


class KafkaLog:
    """Keeps :class:`torpor.events.log.EventLog`."""

    def __init__(self, wire: Wire, clock: Clock, prefix: str, brokers: int) -> None:
        self._wire = wire
        self._clock = clock
        self._prefix = prefix
        self._brokers = brokers
        self._registry = Registry(wire, prefix, self._hear)
        self._cache = Cache(_CACHE_BYTES)
        self._streams: dict[str, asyncio.Task[Stream]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._housekeeper: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls,
        servers: str,
        *,
        prefix: str = PREFIX,
        options: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> KafkaLog:
        """Connect to the brokers ``servers`` (``host:port,host:port``); the connection is kept up for ever.

        All topics are named ``prefix``, or begin with it and a dot. ``options`` are librdkafka's, such as
        ``security.protocol``. ``patience_seconds`` is how long a call outlasts an outage before it raises
        :class:`~torpor.errors.EventLogError`.
        """
        clock = clock or SystemClock()
        wire = Wire(servers, options or {}, clock, patience_seconds)
        try:
            log = cls(wire, clock, prefix, await wire.open())
            await log.open()
        except EventLogError as error:
            await wire.close()
            raise EventLogError(f"there is no Kafka at {servers}: {error}") from error
        except asyncio.CancelledError:
            await wire.close()
            raise
        return log

    async def open(self) -> None:
        """Learn which streams there are."""
        await self._wire.create(self._prefix, 1, self._brokers, _COMPACTED)
        await self._wire.prepare(self._prefix)
        await self._registry.open()
        self._housekeeper = asyncio.create_task(self._keep_house())

    @property
    def connected(self) -> bool:
        """Whether the brokers were there when last heard of."""
        return self._wire.connected

    def on_reconnect(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` when the brokers are there again; what is returned ends that."""
        return self._wire.on_reconnect(listener)

    async def close(self) -> None:
        """Let go of the connection."""
        if self._housekeeper is not None:
            await cancel(self._housekeeper)
        self._registry.close()
        for name in list(self._streams):
            await self._let_go(name, "the connection to Kafka is closed")
        await asyncio.gather(*self._ending)
        await self._wire.close()

    # --- streams --------------------------------------------------------------------------------------------

    async def ensure_stream(self, spec: StreamSpec) -> bool:
        """Create the stream or bring it to ``spec``; whether it is new."""
        await self._registry.sync()
        while self._registry.get(spec.name) is None:
            generation = self._registry.last_generation(spec.name) + 1
            await self._wire.create(self._topic(spec.name, generation), 2, self._brokers, _FOR_EVER)
            if await self._registry.put(Entry(spec, generation)):
                return True
        await self._registry.change(spec.name, lambda known: replace(known, spec=spec))
        return False

    async def streams(self) -> list[str]:
        """The names of all streams, sorted."""
        await self._registry.sync()
        return self._registry.names()

    async def remove_stream(self, name: str) -> None:
        """Delete a stream with all that belongs to it."""
        await self._registry.sync()
        known = self._registry.get(name)
        if known is not None:
            await self._registry.remove(known)
            await self._let_go(name, f"there is no stream {name!r} any more")
            await self._wire.delete(self._topic(name, known.generation))

    def _topic(self, stream: str, generation: int) -> str:
        return f"{self._prefix}.{stream}_{generation}"

    async def _stream(self, name: str) -> Stream:
        """The stream, whose records are still being read where they are many. Raises if there is none."""
        entry = self._registry.get(name)
        if entry is None:
            await self._registry.sync()
            entry = self._registry.get(name)
        if entry is None:
            raise EventLogError(f"there is no stream {name!r}")
        opening = self._streams.get(name)
        if opening is not None and opening.done() and (opening.exception() or opening.result().gone):
            await self._let_go(name, "it is opened anew")
            opening = self._streams.get(name)
        if opening is None:
            opening = self._streams[name] = asyncio.create_task(self._open(entry))
        return await asyncio.shield(opening)

    async def _open(self, entry: Entry) -> Stream:
        topic = self._topic(entry.spec.name, entry.generation)
        stream = Stream(self._wire, self._cache, self._clock, topic, entry.spec)
        await stream.open(entry.snapshot, entry.start, carried_records(entry))
        self._tell(stream)  # what was heard while it was opened
        return stream

    async def _let_go(self, name: str, reason: str) -> None:
        opening = self._streams.pop(name, None)
        if opening is None:
            return
        if not opening.done():
            await cancel(opening)
        elif opening.exception() is None:
            await opening.result().close(EventLogError(reason))

    def _hear(self, name: str) -> None:
        """A stream was made, changed or removed, by whomever."""
        opening, entry = self._streams.get(name), self._registry.get(name)
        if opening is None:
            return
        if entry is None:
            task = asyncio.create_task(self._let_go(name, f"there is no stream {name!r} any more"))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        elif opening.done() and opening.exception() is None:
            self._tell(opening.result())

    def _tell(self, stream: Stream) -> None:
        """Have a stream know what the registry says of it."""
        entry = self._registry.get(stream.name)
        if entry is not None and self._topic(stream.name, entry.generation) == stream.topic:
            stream.index.spec = entry.spec
            stream.carry(carried_records(entry))

    # --- records --------------------------------------------------------------------------------------------

    async def append(
        self, stream: str, records: Sequence[Record], *, guard: Guard | None = None
    ) -> list[bool]:
        """Write all of ``records`` or none; per record whether it was new."""
        target = await self._stream(stream)
        if len(records) > MAX_APPEND:
            raise EventLogError(f"{len(records)} records in one append, at most {MAX_APPEND} were expected")
        if guard is not None and len(records) != 1:
            raise EventLogError(f"{len(records)} records in a guarded append, 1 was expected")
        new: list[bool] = []
        for appended in codec.appends(records, guard):
            new.extend(await target.append(appended))
        return new

    async def read(self, stream: str, key: str, *, since: float = 0.0) -> AsyncIterator[Stored]:
        """The records now under ``key``, stored at ``since`` or later, oldest first."""
        target = await self._stream(stream)
        await target.sync()
        sequences = target.index.under(key, target.now())
        start = bisect_left(sequences, target.index.first_since(since)) if since > 0 else 0
        while start < len(sequences):
            page = _page(target, sequences, start)
            for stored in await target.load(page):
                if stored.stored_at >= since and target.index.holds(stored.sequence):
                    yield stored
            start += len(page)

    async def newest(
        self, stream: str, key: str, limit: int, *, before: int | None = None
    ) -> Sequence[Stored]:
        """The last records now under ``key``, newest first."""
        target = await self._stream(stream)
        await target.sync()
        sequences = target.index.under(key, target.now())
        end = len(sequences) if before is None else bisect_left(sequences, before)
        found: list[Stored] = []
        while end and not found:  # more than once only if they were removed just now
            page = _page(target, sequences[max(0, end - limit) : end][::-1], 0)
            found = [each for each in await target.load(page) if target.index.holds(each.sequence)]
            end -= len(page)
        return found

    async def tail(self, stream: str) -> AsyncGenerator[Stored, None]:
        """Each record appended from now on; a reader that falls 100,000 behind loses the oldest."""
        target = await self._stream(stream)
        await target.sync()
        return self._follow(target, target.look_on())

    async def _follow(self, stream: Stream, waiting: deque[int]) -> AsyncGenerator[Stored, None]:
        try:
            while True:
                change = stream.change()
                if not waiting:
                    stream.require()
                    await change
                    continue
                change.cancel()
                page = _page(stream, [waiting[place] for place in range(min(len(waiting), _READ_RECORDS))], 0)
                for stored in await stream.load(page):
                    yield stored
                for _ in page:
                    waiting.popleft()
        finally:
            stream.look_away(waiting)

    async def size_bytes(self, stream: str) -> int:
        """How much the stream holds."""
        target = await self._stream(stream)
        target.require()
        return target.index.bytes

    async def purge(self, stream: str, key: str) -> None:
        """Remove the records under ``key``."""
        target = await self._stream(stream)
        await target.remove(Purged(key))

    async def trim(self, stream: str, before: float) -> None:
        """Remove records stored before that time that no consumer waits for."""
        target = await self._stream(stream)
        await asyncio.gather(target.sync(), target.sync_journal())
        limit = target.wanted()
        if not math.isinf(before):
            limit = min(limit, target.index.first_since(before))
        if limit > target.index.first():
            await target.remove(Trimmed(limit))

    # --- consumers ------------------------------------------------------------------------------------------

    async def consumer(self, spec: ConsumerSpec, *, keep: bool = False) -> KafkaConsumer:
        """Create the durable consumer or bring it to ``spec``, and read from it."""
        stream = await self._stream(spec.stream)
        there, _ = await asyncio.gather(stream.upcoming(), stream.sync_journal())
        durable = stream.journal.consumers.get(spec.name)
        if durable is None or not (keep or durable.spec == spec):
            await stream.say(put(spec, 0 if spec.start == "first" else there, keep=keep))
        return KafkaConsumer(stream, spec.name, self._clock, there)

    async def remove_consumer(self, stream: str, name: str) -> None:
        """Delete a durable consumer."""
        try:
            target = await self._stream(stream)
        except EventLogError:
            await self._registry.sync()
            if self._registry.get(stream) is None:
                return
            raise
        await target.sync_journal()
        if name in target.journal.consumers:
            await target.say({"do": "drop", "consumer": name})

    async def consumers(self, stream: str) -> list[str]:
        """The names of the durable consumers."""
        target = await self._stream(stream)
        await target.sync_journal()
        return sorted(target.journal.consumers)

    # --- housekeeping ---------------------------------------------------------------------------------------

    async def _keep_house(self) -> None:
        while True:
            await self._clock.sleep(_HOUSEKEEPING_SECONDS)
            try:
                await self._registry.repair()
            except EventLogError as error:
                _LOG.warning("which streams there are can't be written down yet: %s", error)
            for name in list(self._streams):
                try:
                    await self.reclaim(name)
                except EventLogError as error:
                    _LOG.warning("what %s needs no more can't be deleted yet: %s", name, error)

    async def first_offset(self, stream: str) -> int:
        """The offset of the first message that Kafka still has of a stream's records."""
        return await self._wire.first((await self._stream(stream)).topic, RECORDS)

    async def reclaim(self, name: str, **limits: float) -> None:
        """Delete from Kafka what a stream needs no more: see :mod:`torpor.events.kafka_reclaim`."""
        await reclaim(self._wire, self._registry, self._clock, await self._stream(name), **limits)  # type: ignore[arg-type]


def _page(stream: Stream, sequences: list[int], start: int) -> list[int]:
    """Some of ``sequences`` from ``start`` on: one, and as many more as may be loaded together."""
    page: list[int] = []
    size = 0
    for sequence in sequences[start : start + _READ_RECORDS]:
        size += stream.index.size(sequence) or 0
        if page and size > _READ_BYTES:
            break
        page.append(sequence)
    return page
