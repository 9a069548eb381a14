"""Reads a durable consumer in Kafka: claims records through the journal, and hands them out."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from torpor.errors import EventLogError
from torpor.events.log import MAX_FETCH
from torpor.events.waiting import sleep_or

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Mapping, Sequence

    from torpor.clock import Clock
    from torpor.events.kafka_index import Verdict
    from torpor.events.kafka_journal import Durable, Grant
    from torpor.events.kafka_stream import Stream
    from torpor.events.log import Delivery, Stored

_SPARE = 2  # records named beyond the limit, for when another process is faster
_PAUSE_SECONDS = 0.5
_LOAD_BYTES = 16 * 1024 * 1024


@dataclass(slots=True)
class KafkaDelivery:
    """Keeps :class:`torpor.events.log.Delivery`."""

    consumer: KafkaConsumer
    record: Stored
    attempt: int
    settled: bool = False

    async def ack(self) -> None:
        """The record is done with."""
        self._settle(None)

    async def retry(self, delay_seconds: float) -> None:
        """Deliver the record again later."""
        self._settle(max(0.0, delay_seconds))

    async def extend(self) -> None:
        """Work is under way."""
        if not self.settled:
            self.consumer.extend(self.record.sequence, self.attempt)

    def _settle(self, delay_seconds: float | None) -> None:
        if not self.settled:
            self.settled = True
            self.consumer.settle(self.record.sequence, self.attempt, delay_seconds)


class KafkaConsumer:
    """Keeps :class:`torpor.events.log.Consumer`."""

    def __init__(self, stream: Stream, name: str, clock: Clock, there: int) -> None:
        self._stream = stream
        self._name = name
        self._clock = clock
        self._there = there  # what there was when it was opened is below this sequence
        self._id = uuid.uuid4().hex
        self._born = self._durable().born
        self._granted: dict[Grant, None] = {}  # in the order in which they came
        self._asked = 0  # for so many, if it is claimed at the moment
        self._failed = False
        self._closed = False
        self._seen = (0, 0)  # of that version of the spec, nothing that matches is below that sequence
        stream.readers[self._id] = self

    async def fetch(self, limit: int) -> Sequence[Delivery]:
        """Up to ``limit`` deliveries, as soon as there is one."""
        while True:
            durable = self._durable()
            if self._closed:
                raise EventLogError(f"a reader of consumer {self._name!r} was closed")
            if self._granted:
                deliveries = await self._take(limit)
                if deliveries:
                    return deliveries
                continue
            if self._failed:  # the brokers are away, which is waited out
                self._failed = False
                await self._clock.sleep(_PAUSE_SECONDS)
                continue
            change = self._stream.change()
            await sleep_or(self._clock, self._ask(durable, min(limit, MAX_FETCH)), change)

    @property
    def under_way(self) -> int:
        """How many deliveries may still come that were asked for."""
        return self._asked + len(self._granted)

    def _ask(self, durable: Durable, limit: int) -> float | None:
        """Claim what is there; otherwise in how many seconds something will be, if that is known."""
        if self._asked:
            return None
        index, now = self._stream.index, self._stream.now()
        start = self._stream.claimable(durable.next)
        if start is None:
            return None
        due = durable.next_due()
        again = due is not None and due <= now
        start = max(start, self._seen[1] if self._seen[0] == durable.version else 0)
        fresh: list[int] = []
        upto = start
        if len(durable.held) < durable.spec.max_in_flight:
            found = index.find(durable.spec.keys, start, _SPARE * limit)
            fresh, upto = found.sequences, found.upto
            if not fresh:
                self._seen = (durable.version, upto)
        if not again and not fresh:
            return None if due is None else max(0.0, due - now)
        self._asked = limit
        claim = {
            "do": "claim",
            "consumer": self._name,
            "born": self._born,
            "reader": self._id,
            "limit": limit,
            "version": durable.version,
            "fresh": fresh,
            "upto": upto,
        }
        self._stream.post(claim).add_done_callback(self._answered)
        return None

    def _answered(self, future: Future[list[Verdict]]) -> None:
        if self._asked and (future.cancelled() or future.exception() is not None):
            self._asked, self._failed = 0, True
            if self._closed:
                self._give_back()

    def granted(self, grants: tuple[Grant, ...]) -> None:
        """The journal has come to a claim of this reader."""
        self._asked = 0
        self._granted.update(dict.fromkeys(grants))
        if self._closed:
            self._give_back()

    def settle(self, sequence: int, attempt: int, delay_seconds: float | None) -> None:
        """End an attempt; with a delay, the record comes again."""
        self._stream.settle(self._name, self._born, sequence, attempt, delay_seconds)

    def extend(self, sequence: int, attempt: int) -> None:
        """Start an attempt's time anew."""
        self._stream.extend(self._name, self._born, sequence, attempt)

    async def _take(self, limit: int) -> list[Delivery]:
        """Some of what was granted; without those that are not there any more, which are done with."""
        stream = self._stream
        # Another process may have seen more of the stream, and more may be granted meanwhile.
        while not (known := self._known(limit)):
            if not self._granted:
                return []  # it was closed
            change = stream.change()
            self._durable()
            await sleep_or(self._clock, None, change)
        held = self._durable().held
        chosen: list[Grant] = []
        live: list[int] = []
        size = 0
        for grant in known:
            found = stream.index.size(grant.sequence) if _lent(held, grant) else None
            if found is not None:
                size += found
                if live and size > _LOAD_BYTES:
                    break
                live.append(grant.sequence)
            chosen.append(grant)
        loaded = {each.sequence: each for each in await stream.load(live)}
        held = self._durable().held
        deliveries: list[Delivery] = []
        for grant in chosen:
            if grant not in self._granted:
                continue  # it was closed, and this given back
            del self._granted[grant]
            stored = loaded.get(grant.sequence)
            if not _lent(held, grant):
                continue  # it has waited here for too long, and is granted again
            if stored is not None:
                deliveries.append(KafkaDelivery(self, stored, grant.attempt))
            elif not stream.index.holds(grant.sequence):
                stream.settle(self._name, self._born, grant.sequence, grant.attempt, None)
            # Else it can't be read though it was not removed, as far as is known here: it comes again.
        return deliveries

    def _known(self, limit: int) -> list[Grant]:
        """The first of what was granted that this process has read."""
        end = self._stream.index.end
        known = (grant for grant in self._granted if grant.sequence < end)
        return list(islice(known, min(limit, MAX_FETCH)))

    async def pending(self) -> int:
        """How many records wait to be delivered or acknowledged."""
        await self._stream.reach_soon(self._there)
        durable, index = self._durable(), self._stream.index
        return index.count(durable.spec.keys, durable.next) + self._held(durable)

    async def waiting_since(self) -> float | None:
        """When the oldest record was stored that was never delivered, by the broker's time."""
        await self._stream.reach_soon(self._there)
        durable, index = self._durable(), self._stream.index
        if not index.count(durable.spec.keys, durable.next):  # to look for one would take long
            return None
        return index.stored_at(index.find(durable.spec.keys, durable.next, 1).sequences[0])

    async def outstanding(self) -> int:
        """How many records were delivered, to whomever, and are neither acknowledged nor removed."""
        await self._stream.tell()
        await self._stream.sync_journal()
        return self._held(self._durable())

    def _held(self, durable: Durable) -> int:
        index = self._stream.index
        return sum(1 for sequence in durable.held if sequence >= index.end or index.holds(sequence))

    async def revision(self) -> str:
        """The revision of the spec that the durable consumer was brought to last."""
        await self._stream.sync_journal()
        return self._durable().spec.revision

    async def close(self) -> None:
        """Stop reading; the durable consumer stays, and what was not fetched yet is for others at once."""
        self._closed = True
        self._give_back()

    def _give_back(self) -> None:
        """What was granted and not fetched is for others; what is under way will be."""
        granted, self._granted = self._granted, {}
        for grant in granted:
            self._stream.settle(self._name, self._born, grant.sequence, grant.attempt, 0.0)
        if not self._asked:
            self._stream.readers.pop(self._id, None)

    def _durable(self) -> Durable:
        self._stream.require()
        durable = self._stream.journal.consumers.get(self._name)
        if durable is None or (getattr(self, "_born", durable.born) != durable.born):
            raise EventLogError(f"there is no consumer {self._name!r} of stream {self._stream.name!r}")
        return durable


def _lent(held: Mapping[int, tuple[int, float, bool]], grant: Grant) -> bool:
    """Whether the record was not granted again since, nor settled."""
    attempt, _, waits = held.get(grant.sequence, (0, 0.0, True))
    return attempt == grant.attempt and not waits
