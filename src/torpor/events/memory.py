"""An event log in memory, for tests and the embedded platform: the contract of every log, but for a restart.

Time is its clock's alone, so that a test that moves the clock moves retries, acknowledgement times and ages.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torpor.errors import EventLogError, StreamFullError, SupersededError
from torpor.events.log import (
    MAX_APPEND,
    MAX_FETCH,
    ConsumerSpec,
    Delivery,
    Guard,
    Record,
    Stored,
    StreamSpec,
    require_size,
)
from torpor.events.names import any_key_matches, key_matches
from torpor.events.waiting import sleep_or

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence

    from torpor.clock import Clock

MAX_RECORD_BYTES = 8 * 1024 * 1024


@dataclass(slots=True)
class _Stream:
    spec: StreamSpec
    records: dict[int, Stored] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    bytes: int = 0
    last_sequence: int = 0
    identities: dict[str, float] = field(default_factory=dict)  # in the order of their times
    keys: dict[str, int] = field(default_factory=dict)  # key -> how many records have it
    consumers: dict[str, _Durable] = field(default_factory=dict)
    tails: list[deque[Stored]] = field(default_factory=list)


@dataclass(slots=True)
class _Durable:
    """What the log remembers of a consumer: its place, the leases under way, and what waits for a retry."""

    spec: ConsumerSpec
    next_sequence: int
    attempts: dict[int, int] = field(default_factory=dict)
    leases: dict[int, tuple[int, float]] = field(
        default_factory=dict
    )  # sequence -> attempt, until (monotonic)
    delayed: list[tuple[float, int]] = field(default_factory=list)


class MemoryLog:
    """Keeps :class:`torpor.events.log.EventLog`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._streams: dict[str, _Stream] = {}
        self._changed: asyncio.Future[None] | None = None

    connected = True

    def on_reconnect(self, listener: Callable[[], None]) -> Callable[[], None]:  # noqa: ARG002
        """It is never lost."""
        return lambda: None

    # --- streams and records --------------------------------------------------------------------------------

    async def ensure_stream(self, spec: StreamSpec) -> bool:
        """Create the stream or bring it to ``spec``; whether it is new."""
        stream = self._streams.get(spec.name)
        if stream is None:
            self._streams[spec.name] = _Stream(spec)
        else:
            stream.spec = spec
        return stream is None

    async def streams(self) -> list[str]:
        """The names of all streams, sorted."""
        return sorted(self._streams)

    async def remove_stream(self, name: str) -> None:
        """Delete a stream with all that belongs to it."""
        self._streams.pop(name, None)
        self._notify()

    async def append(
        self, stream: str, records: Sequence[Record], *, guard: Guard | None = None
    ) -> list[bool]:
        """Write all of ``records`` or none; per record whether it was new."""
        target = self._stream(stream)
        if guard is not None:
            _check(target, guard, len(records))
        if len(records) > MAX_APPEND:
            raise EventLogError(f"{len(records)} records in one append, at most {MAX_APPEND} were expected")
        self._expire(target)
        sizes = [_size(record) for record in records]
        for record, size in zip(records, sizes, strict=True):
            require_size(record, size, MAX_RECORD_BYTES)
        new = _new(target, records)
        total = target.bytes + sum(size for size, is_new in zip(sizes, new, strict=True) if is_new)
        if target.spec.max_bytes is not None and total > target.spec.max_bytes:
            raise StreamFullError(f"stream {stream!r} is full: it holds {target.bytes} bytes")
        for record, size, is_new in zip(records, sizes, new, strict=True):
            if is_new:
                self._store(target, record, size)
        self._notify()
        return new

    def _store(self, stream: _Stream, record: Record, size: int) -> None:
        stream.last_sequence += 1
        stored = Stored(record.key, stream.last_sequence, self._clock.now(), record.event)
        stream.records[stored.sequence] = stored
        stream.sizes[stored.sequence] = size
        stream.bytes += size
        stream.identities[record.identity] = stored.stored_at
        stream.keys[record.key] = stream.keys.get(record.key, 0) + 1
        for tail in stream.tails:
            tail.append(stored)

    async def read(self, stream: str, key: str, *, since: float = 0.0) -> AsyncIterator[Stored]:
        """The records now under ``key``, oldest first."""
        target = self._stream(stream)
        self._expire(target)
        for stored in list(target.records.values()):
            if stored.stored_at >= since and key_matches(key, stored.key):
                yield stored

    async def newest(
        self, stream: str, key: str, limit: int, *, before: int | None = None
    ) -> Sequence[Stored]:
        """The last records now under ``key``, newest first."""
        target = self._stream(stream)
        self._expire(target)
        found: list[Stored] = []
        size = 0
        for stored in reversed(target.records.values()):
            if (before is None or stored.sequence < before) and key_matches(key, stored.key):
                size += target.sizes[stored.sequence]
                if len(found) == limit or (found and size > MAX_RECORD_BYTES):
                    break
                found.append(stored)
        return found

    async def tail(self, stream: str) -> AsyncGenerator[Stored, None]:
        """Each record appended from now on; a reader that falls 10,000 behind loses the oldest."""
        target = self._stream(stream)
        waiting: deque[Stored] = deque(maxlen=10_000)
        target.tails.append(waiting)
        return self._follow(target, waiting)

    async def _follow(self, stream: _Stream, waiting: deque[Stored]) -> AsyncGenerator[Stored, None]:
        try:
            while True:
                while waiting:
                    yield waiting.popleft()
                await self._change()
        finally:
            stream.tails.remove(waiting)

    async def size_bytes(self, stream: str) -> int:
        """How much the stream holds."""
        target = self._stream(stream)
        self._expire(target)
        return target.bytes

    async def purge(self, stream: str, key: str) -> None:
        """Remove the records under ``key``."""
        target = self._stream(stream)
        for stored in [item for item in target.records.values() if key_matches(key, item.key)]:
            _remove(target, stored)

    async def trim(self, stream: str, before: float) -> None:
        """Remove records stored before that time that no consumer waits for."""
        target = self._stream(stream)
        needed = [_floor(target, durable) for durable in target.consumers.values()]
        limit = min(needed, default=target.last_sequence + 1)
        for stored in [item for item in target.records.values() if item.stored_at < before]:
            if stored.sequence < limit:
                _remove(target, stored)

    async def close(self) -> None:
        """Nothing to let go of."""

    def _stream(self, name: str) -> _Stream:
        stream = self._streams.get(name)
        if stream is None:
            raise EventLogError(f"there is no stream {name!r}")
        return stream

    def _expire(self, stream: _Stream) -> None:
        now = self._clock.now()
        window = stream.spec.duplicate_window_seconds
        while stream.identities:
            identity, seen = next(iter(stream.identities.items()))
            if seen > now - window:
                break
            del stream.identities[identity]
        if stream.spec.max_age_seconds is not None:
            oldest = now - stream.spec.max_age_seconds
            for stored in [item for item in stream.records.values() if item.stored_at <= oldest]:
                _remove(stream, stored)

    # --- consumers ------------------------------------------------------------------------------------------

    async def consumer(self, spec: ConsumerSpec, *, keep: bool = False) -> MemoryConsumer:
        """Create the durable consumer or bring it to ``spec``, and read from it."""
        stream = self._stream(spec.stream)
        durable = stream.consumers.get(spec.name)
        if durable is None:
            first = 1 if spec.start == "first" else stream.last_sequence + 1
            stream.consumers[spec.name] = _Durable(spec, first)
        elif not keep:
            durable.spec = spec
        return MemoryConsumer(self, spec.stream, spec.name)

    async def remove_consumer(self, stream: str, name: str) -> None:
        """Delete a durable consumer."""
        target = self._streams.get(stream)
        if target is not None:
            target.consumers.pop(name, None)
            self._notify()

    async def consumers(self, stream: str) -> list[str]:
        """The names of the durable consumers."""
        return sorted(self._stream(stream).consumers)

    def durable(self, stream: str, name: str) -> tuple[_Stream, _Durable]:
        """The state of a consumer; for :class:`MemoryConsumer`."""
        target = self._stream(stream)
        durable = target.consumers.get(name)
        if durable is None:
            raise EventLogError(f"there is no consumer {name!r} of stream {stream!r}")
        return target, durable

    def take(self, stream: str, name: str, limit: int) -> list[MemoryDelivery]:
        """Up to ``limit`` deliveries, each with a new lease."""
        target, durable = self.durable(stream, name)
        self._expire(target)
        deliveries = []
        for sequence in self._ready(target, durable, limit):
            attempt = durable.attempts.get(sequence, 0) + 1
            durable.attempts[sequence] = attempt
            durable.leases[sequence] = (attempt, self._clock.monotonic() + durable.spec.ack_wait_seconds)
            deliveries.append(MemoryDelivery(self, durable, target.records[sequence], attempt))
        return deliveries

    def _ready(self, stream: _Stream, durable: _Durable, limit: int) -> list[int]:
        """The next sequences to hand out: expired leases and due retries before what is new."""
        now = self._clock.monotonic()
        expired = [sequence for sequence, (_, until) in durable.leases.items() if until <= now]
        due = [sequence for at, sequence in sorted(durable.delayed) if at <= now]
        again = [sequence for sequence in (*expired, *due) if sequence in stream.records]
        under_way = len(durable.leases) + len(durable.delayed)
        room = min(max(0, durable.spec.max_in_flight - under_way), max(0, limit - len(again)))
        fresh: list[int] = []
        position = durable.next_sequence
        while position <= stream.last_sequence and len(fresh) < room:
            stored = stream.records.get(position)
            keys = durable.spec.keys
            if stored is not None and (not keys or any_key_matches(keys, stored.key)):
                fresh.append(position)
            position += 1
        chosen = [*again[:limit], *fresh]
        durable.next_sequence = position if room else durable.next_sequence
        gone = {sequence for sequence in (*expired, *due) if sequence not in stream.records}
        taken = gone.union(chosen)
        for sequence in taken:
            durable.leases.pop(sequence, None)
        for sequence in gone:
            durable.attempts.pop(sequence, None)
        durable.delayed = [item for item in durable.delayed if item[1] not in taken]
        heapq.heapify(durable.delayed)
        return chosen

    def next_due(self, stream: str, name: str) -> float | None:
        """In how many seconds a lease or a retry of the consumer is due, if there is one."""
        _, durable = self.durable(stream, name)
        times = [until for _, until in durable.leases.values()]
        times.extend(at for at, _ in durable.delayed)
        return max(0.0, min(times) - self._clock.monotonic()) if times else None

    def settle(self, durable: _Durable, sequence: int, attempt: int, delay_seconds: float | None) -> None:
        """End one attempt; with a delay, the record comes again.

        An attempt that no longer holds the lease is ignored.
        """
        if durable.leases.get(sequence, (0, 0.0))[0] != attempt:
            return
        del durable.leases[sequence]
        if delay_seconds is None:
            del durable.attempts[sequence]
        else:
            heapq.heappush(durable.delayed, (self._clock.monotonic() + delay_seconds, sequence))
        self._notify()

    def extend(self, durable: _Durable, sequence: int, attempt: int) -> None:
        """Start the acknowledgement's time anew."""
        if durable.leases.get(sequence, (0, 0.0))[0] == attempt:
            until = self._clock.monotonic() + durable.spec.ack_wait_seconds
            durable.leases[sequence] = (attempt, until)

    # --- waiting --------------------------------------------------------------------------------------------

    def _notify(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
        self._changed = None

    def _change(self) -> asyncio.Future[None]:
        """Done with the next change after this call."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        return asyncio.shield(self._changed)

    async def change_or(self, delay_seconds: float | None) -> None:
        """Return after the next change of the log, or after ``delay_seconds``."""
        await sleep_or(self._clock, delay_seconds, self._change())


@dataclass(frozen=True, slots=True)
class MemoryDelivery:
    """Keeps :class:`torpor.events.log.Delivery`."""

    log: MemoryLog
    durable: _Durable
    record: Stored
    attempt: int

    async def ack(self) -> None:
        """The record is done with."""
        self.log.settle(self.durable, self.record.sequence, self.attempt, None)

    async def retry(self, delay_seconds: float) -> None:
        """Deliver the record again later."""
        self.log.settle(self.durable, self.record.sequence, self.attempt, delay_seconds)

    async def extend(self) -> None:
        """Work is under way."""
        self.log.extend(self.durable, self.record.sequence, self.attempt)


@dataclass(frozen=True, slots=True)
class MemoryConsumer:
    """Keeps :class:`torpor.events.log.Consumer`."""

    log: MemoryLog
    stream: str
    name: str

    async def fetch(self, limit: int) -> Sequence[Delivery]:
        """Up to ``limit`` deliveries, as soon as there is one."""
        while True:
            deliveries = self.log.take(self.stream, self.name, min(limit, MAX_FETCH))
            if deliveries:
                return deliveries
            await self.log.change_or(self.log.next_due(self.stream, self.name))

    @property
    def under_way(self) -> int:
        """None: they are here at once, or are not asked for."""
        return 0

    async def pending(self) -> int:
        """How many records wait to be delivered or acknowledged."""
        stream, durable = self.log.durable(self.stream, self.name)
        fresh = sum(1 for _ in _fresh(stream, durable))
        return fresh + len(durable.leases) + len(durable.delayed)

    async def waiting_since(self) -> float | None:
        """When the oldest record was stored that was never delivered."""
        stream, durable = self.log.durable(self.stream, self.name)
        first = next(_fresh(stream, durable), None)
        return None if first is None else stream.records[first].stored_at

    async def outstanding(self) -> int:
        """How many records were delivered and are not acknowledged."""
        _, durable = self.log.durable(self.stream, self.name)
        return len(durable.leases) + len(durable.delayed)

    async def revision(self) -> str:
        """The revision of the spec that the durable consumer was brought to last."""
        _, durable = self.log.durable(self.stream, self.name)
        return durable.spec.revision

    async def close(self) -> None:
        """The durable consumer stays."""


def _check(stream: _Stream, guard: Guard, records: int) -> None:
    if records != 1:
        raise EventLogError(f"{records} records in a guarded append, 1 was expected")
    newest = max(
        (each.sequence for each in stream.records.values() if key_matches(guard.key, each.key)), default=0
    )
    if newest != guard.sequence:
        raise SupersededError(f"the newest record under {guard.key!r} is {newest}, not {guard.sequence}")


def _new(stream: _Stream, records: Sequence[Record]) -> list[bool]:
    identities: set[str] = set()
    keys: set[str] = set()
    new = []
    for record in records:
        taken = record.identity in stream.identities or record.identity in identities
        if stream.spec.once_per_key:
            taken = taken or record.key in stream.keys or record.key in keys
        identities.add(record.identity)
        keys.add(record.key)
        new.append(not taken)
    return new


def _remove(stream: _Stream, stored: Stored) -> None:
    del stream.records[stored.sequence]
    stream.bytes -= stream.sizes.pop(stored.sequence)
    left = stream.keys[stored.key] - 1
    if left:
        stream.keys[stored.key] = left
    else:
        del stream.keys[stored.key]


def _floor(stream: _Stream, durable: _Durable) -> int:
    """The first sequence that the consumer waits for; one after the stream's last if it waits for none."""
    held = [*durable.leases, *(sequence for _, sequence in durable.delayed)]
    return min([*held, next(_fresh(stream, durable), stream.last_sequence + 1)])


def _fresh(stream: _Stream, durable: _Durable) -> Iterator[int]:
    """The sequences that were never delivered to the consumer, in order."""
    keys = durable.spec.keys
    for sequence, stored in stream.records.items():
        if sequence >= durable.next_sequence and (not keys or any_key_matches(keys, stored.key)):
            yield sequence


def _size(record: Record) -> int:
    texts = sum(len(name) + len(value) for name, value in record.event.attributes.items())
    return texts + len(record.event.data or b"")
