"""One stream in Kafka as this process sees it: its records, its consumers, and what is under way to it.

A stream is a topic of two partitions. The first has the records, in one order; the second is the journal of
its durable consumers. Each process follows both, and whatever it writes has happened once it reads it back.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, NamedTuple

from torpor.clock import first_of
from torpor.errors import EventLogError, StreamFullError, SupersededError
from torpor.events import kafka_codec as codec
from torpor.events.kafka_codec import Appended, Purged, Records, Trimmed
from torpor.events.kafka_groups import Groups
from torpor.events.kafka_index import Index, Verdict
from torpor.events.kafka_journal import Journal, purge, trim
from torpor.events.kafka_partition import Followed
from torpor.events.kafka_writes import Writes, headers_and_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from confluent_kafka import Message

    from torpor.clock import Clock
    from torpor.events.kafka_consumer import KafkaConsumer
    from torpor.events.kafka_wire import Reader, Wire
    from torpor.events.log import Record, Stored, StreamSpec

_LOG = logging.getLogger("torpor.events")
RECORDS, JOURNAL = 0, 1
_TAIL_RECORDS = 100_000
_WORDS_SECONDS = 0.02  # a claim, which goes with them, mostly comes sooner
_WORDS_AT_ONCE = 1000
_DRIFT_SECONDS = 0.001
_UNSURE_SECONDS = 120.0  # a replica that hangs may keep a message from readers for half a minute
_SOON_SECONDS = 2.0
_RECORD_BYTES = 1300  # what Python needs beside the texts: objects and a table


class Entry(NamedTuple):
    """A message that appends, as the cache has it; ``size`` is about what that takes of memory."""

    record: Callable[[int], Record]
    at: float
    size: int


def _entry(records: Records, at: float) -> Entry:
    return Entry(records.record, at, records.total * _RECORD_BYTES + records.size)


class Cache:
    """The messages that came last, of all streams together, and those that were read once more.

    The latter have a quarter of the room, and push out only each other: who reads a backlog from its
    beginning would else lose what it is about to come to.
    """

    def __init__(self, max_bytes: int) -> None:
        self._came = _Newest(max_bytes - max_bytes // 4)
        self._read = _Newest(max_bytes // 4)

    def get(self, topic: str, offset: int) -> Entry | None:
        """The message, if it is here."""
        return self._came.entries.get((topic, offset)) or self._read.entries.get((topic, offset))

    def put(self, topic: str, offset: int, entry: Entry, *, again: bool = False) -> None:
        """Keep a message that came, or was read ``again``."""
        (self._read if again else self._came).put((topic, offset), entry)


class _Newest:
    """Messages of ``max_bytes``; the oldest go."""

    def __init__(self, max_bytes: int) -> None:
        self.entries: OrderedDict[tuple[str, int], Entry] = OrderedDict()
        self._max_bytes = max_bytes
        self._bytes = 0

    def put(self, key: tuple[str, int], entry: Entry) -> None:
        """Keep one, at least until the next."""
        old = self.entries.pop(key, None)
        self._bytes += entry.size - (old.size if old else 0)
        self.entries[key] = entry
        while self._bytes > self._max_bytes and len(self.entries) > 1:
            _, gone = self.entries.popitem(last=False)
            self._bytes -= gone.size


class Stream:
    """A stream that this process works with."""

    def __init__(self, wire: Wire, cache: Cache, clock: Clock, topic: str, spec: StreamSpec) -> None:
        self._wire = wire
        self._cache = cache
        self._clock = clock
        self.topic = topic
        self.name = spec.name
        self.index = Index(spec)
        self.journal = Journal()
        self.gone: EventLogError | None = None
        """Why it can't be worked with any more."""
        self.readers: dict[str, KafkaConsumer] = {}
        """Those who claim, by their ids."""
        self._records = Followed(wire, topic, RECORDS, self._take_record, self._fall)
        self._entries = Followed(wire, topic, JOURNAL, self._take_entry, self._fall)
        self._writes: Writes[list[Verdict]] = Writes(wire, topic, self._notify)
        self._groups = Groups(self._write)
        self._bytes_under_way = 0
        self._tails: list[deque[int]] = []
        self._changed: asyncio.Future[None] | None = None
        self._catching_up: asyncio.Task[None] | None = None
        self._words: dict[tuple[str, str, int], list[list[Any]]] = {}
        self._flushing: asyncio.TimerHandle | None = None
        self._posted: asyncio.Future[list[Verdict]] | None = None
        self._behind_seconds: float | None = None
        self._ahead_seconds = -math.inf
        self._reader: Reader | None = None
        self._carried: dict[int, tuple[Record, float]] = {}

    async def open(
        self,
        snapshot: dict[str, Any] | None = None,
        start: int = 0,
        carried: Sequence[tuple[int, float, Record]] = (),
    ) -> None:
        """Read the journal from ``snapshot`` on, and begin with the records from the offset ``start`` on,
        before which there are ``carried``.
        """
        if snapshot is not None:
            self.journal = Journal.load(snapshot)
        self.carry(carried)
        for sequence, at, record in carried:
            self.index.carry(sequence, at, codec.head(record))
        try:
            await asyncio.gather(
                self._records.begin(start),
                self._entries.open(self.journal.end),
                self._wire.prepare(self.topic),
            )
        except BaseException:
            await self.close(EventLogError(f"stream {self.name!r} can't be read"))
            raise
        self.index.skip(self._records.end)
        self._catching_up = asyncio.create_task(self._catch_up())

    async def _catch_up(self) -> None:
        try:
            await self._records.reach(self._records.first_new)
        except EventLogError as error:
            self._end(error)
        self._notify()

    @property
    def is_whole(self) -> bool:
        """Whether all is known that there was when this was opened."""
        return self._records.end >= self._records.first_new

    async def whole(self) -> None:
        """Return once all is known that there was when this was opened."""
        if self._catching_up is not None and not self.is_whole:
            await asyncio.shield(self._catching_up)
        self.require()

    def claimable(self, after: int) -> int | None:
        """From which sequence on a consumer may claim that has had all below ``after``; ``None`` if not yet.

        Until all is known, what is known may be removed by what is not: by a trim, of which the journal says
        how far, by its age or by its key. And what the consumer has had may come again, and has to be known.
        """
        if self.is_whole:
            return after
        removes = self.journal.purged or self.index.spec.max_age_seconds is not None
        return None if removes or self.index.end < after else max(after, self.journal.trimmed)

    def carry(self, carried: Sequence[tuple[int, float, Record]]) -> None:
        """Have these records at hand, which Kafka may have no more."""
        self._carried = {sequence: (record, at) for sequence, at, record in carried}

    async def close(self, error: EventLogError) -> None:
        """Let go; whoever waits is told ``error``."""
        self._flush()
        self._end(error)
        if self._catching_up is not None:
            await asyncio.wait([self._catching_up])
        if self._reader is not None:
            await self._reader.close()

    def _fall(self) -> None:
        self._end(EventLogError(f"what was to be read of stream {self.name!r} was removed"))

    def _end(self, error: EventLogError) -> None:
        if self.gone is None:
            self.gone = error
            self._records.close(error)
            self._entries.close(error)
            self._writes.close(error)
            self._notify()

    def require(self) -> None:
        """Raise when it can't be worked with any more."""
        if self.gone is not None:
            raise EventLogError(str(self.gone))

    def now(self) -> float:
        """About what time it is for the broker; as here, until something was written since the start."""
        return self._clock.now() - (self._behind_seconds or 0.0)

    def passed(self) -> float:
        """A time that the broker's clock has surely passed: that of the last message, and what went by since.

        Minus infinity if no message was read yet.
        """
        return self._ahead_seconds + self._clock.monotonic()

    def rest(self, passed: float) -> None:
        """Let go of what mattered no more at a time that the broker's clock had :meth:`passed`.

        All processes must judge alike: everything that was written by then has to be known here.
        """
        if not math.isinf(passed):
            self.index.expire(passed - _UNSURE_SECONDS)

    def change(self) -> asyncio.Future[None]:
        """Done with the next change after this call."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        return asyncio.shield(self._changed)

    def _notify(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
        self._changed = None

    async def sync(self) -> int:
        """Know every record written before this call; returns the sequence that comes next."""
        end = await self.upcoming()
        await self.reach(end)
        return end

    async def upcoming(self) -> int:
        """The sequence that comes next for the broker, whatever is known here."""
        self.require()
        return codec.sequence_of(await self._records.ask())

    async def reach(self, sequence: int) -> None:
        """Know all below ``sequence``, and all that there was when this was opened."""
        await self.whole()
        await self._records.reach(codec.offset_of(sequence))

    async def reach_soon(self, sequence: int) -> None:
        """:meth:`reach`, for who asks how things are and does not want to wait for them to become well.

        Raises :class:`~torpor.errors.EventLogError` when that takes longer than some two seconds.
        """
        end = max(codec.offset_of(sequence), self._records.first_new)
        if self._records.end < end:
            await first_of(self.reach(sequence), self._clock.sleep(_SOON_SECONDS))
        self.require()
        if (left := end - self._records.end) > 0:
            raise EventLogError(
                f"how much waits is not known yet: {left} messages of stream {self.name!r} are to be read"
            )

    async def sync_journal(self) -> None:
        """Know everything that consumers did before this call."""
        self.require()
        await self._entries.sync()

    def wanted(self) -> int:
        """The first sequence that a consumer waits for; the one that comes next if none does."""
        first = self.index.end
        for durable in self.journal.consumers.values():
            fresh = self.index.find(durable.spec.keys, durable.next, 1).sequences
            held = [sequence for sequence in durable.held if self.index.holds(sequence)]
            first = min([first, *fresh, *held])
        return first

    # --- what is read ---------------------------------------------------------------------------------------

    def _take_record(self, message: Message) -> None:
        offset, at = message.offset() or 0, self._at(message, self._records)
        headers, token = headers_and_token(message)
        said: Appended | Purged | Trimmed | None = self._writes.appended(token)
        if said is None:
            try:
                said = codec.decode(headers, message.value())
            except EventLogError as error:
                _LOG.warning("a message of %s is left out: %s", self.topic, error)
                self.index.skip(offset + 1)
                return
        verdicts = self.index.apply(offset, at, said)
        if isinstance(said, Appended):
            if self.journal.consumers or self._tails:  # who else reads, reads later
                self._cache.put(self.topic, offset, _entry(said.records(), at))
            new = [codec.sequence_of(offset, place) for place, it in enumerate(verdicts) if it is Verdict.NEW]
            for tail in self._tails:
                tail.extend(new)
        self._writes.answer(token, verdicts)
        self._notify()

    def _take_entry(self, message: Message) -> None:
        offset, at = message.offset() or 0, self._at(message, self._entries)
        _, token = headers_and_token(message)
        try:
            outcomes = self.journal.apply(offset, at, codec.loads(message.value()))
        except (EventLogError, LookupError, TypeError) as error:
            _LOG.warning("an entry of the journal of %s is left out: %r", self.topic, error)
            return
        for outcome in outcomes:
            if (reader := self.readers.get(outcome.reader)) is not None:
                reader.granted(outcome.grants)
        self._writes.answer(token, [])
        self._notify()

    def _at(self, message: Message, of: Followed) -> float:
        at = message.timestamp()[1] / 1000
        if (message.offset() or 0) >= of.first_new:  # what was there may be of any age
            behind = self._clock.now() - at
            known = self._behind_seconds
            self._behind_seconds = behind if known is None else min(known + _DRIFT_SECONDS, behind)
        self._ahead_seconds = at - self._clock.monotonic()  # its clock may be set back
        return at

    # --- what is written ------------------------------------------------------------------------------------

    async def append(self, given: Appended) -> list[bool]:
        """Write what fits into one message; per record whether it was new."""
        await self.whole()
        now, guard, index = self.now(), given.guard, self.index
        known = [guard is None and index.knows(digest, key, now) for key, digest, _ in given.heads]
        appended = given.without(known) if True in known else given
        if not appended.heads:
            return [False] * len(known)
        size = appended.size
        most = index.spec.max_bytes
        if most is not None and index.bytes + self._bytes_under_way + size > most:
            raise StreamFullError(f"stream {self.name!r} is full: it holds {index.bytes} bytes")
        writing = self._groups.append(appended)
        self._bytes_under_way += size
        try:
            verdicts = await self._wire.within_patience(writing)
        finally:
            writing.cancel()  # if it was not sent yet, it is not to be any more
            self._bytes_under_way -= size
        if Verdict.SUPERSEDED in verdicts and guard is not None:
            raise SupersededError(f"the newest record under {guard.key!r} is not {guard.sequence}")
        outcome = iter(verdicts)
        return [not is_known and next(outcome) is Verdict.NEW for is_known in known]

    def _write(self, appended: Appended) -> asyncio.Future[list[Verdict]]:
        """Write one message; the future is done once this process has read it."""
        fresh = appended.all()
        key = fresh[0].event.attributes.get("partitionkey") if len(fresh) == 1 else None
        return self._writes.write(RECORDS, *codec.encode(fresh, appended.guard), key, appended)

    async def remove(self, change: Purged | Trimmed) -> None:
        """Remove records; the journal is told before, for who has to know before it has read all records."""
        await self.whole()
        if isinstance(change, Trimmed):
            await self.say(trim(change.before))
        elif not self.journal.purged:
            await self.say(purge())
        await self._wire.within_patience(self._writes.write(RECORDS, *codec.encode_change(change)))

    def post(self, *entries: dict[str, Any]) -> asyncio.Future[list[Verdict]]:
        """Write to the journal; the future is done once this process has read it."""
        self.require()
        self._posted = self._writes.write(JOURNAL, [], codec.dumps([*self._said(), *entries]))
        return self._posted

    def settle(
        self, consumer: str, born: int, sequence: int, attempt: int, delay_seconds: float | None
    ) -> None:
        """End an attempt; several go together."""
        self._say_soon(("settle", consumer, born), [sequence, attempt, delay_seconds])

    def extend(self, consumer: str, born: int, sequence: int, attempt: int) -> None:
        """Start an attempt's time anew; several go together."""
        self._say_soon(("extend", consumer, born), [sequence, attempt])

    def _say_soon(self, what: tuple[str, str, int], word: list[Any]) -> None:
        if self.gone is not None:
            return
        of = self._words.setdefault(what, [])
        of.append(word)
        if len(of) >= _WORDS_AT_ONCE:
            self._flush()
        elif self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(_WORDS_SECONDS, self._flush)

    def _flush(self) -> None:
        if self._words and self.gone is None:
            self.post()

    async def say(self, entry: dict[str, Any]) -> None:
        """Write to the journal; returns once this process has read it."""
        await self._wire.within_patience(self.post(entry))

    async def tell(self) -> None:
        """Have the journal know every attempt that was ended before this call."""
        last = self.post() if self._words else self._posted
        if last is not None and not last.done():
            await self._wire.within_patience(last)  # what was written before it has been read before it

    def _said(self) -> list[dict[str, Any]]:
        """What is to be said of attempts, in the order in which it was begun to be said."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        words, self._words = self._words, {}
        return [
            {"do": verb, "consumer": consumer, "born": born, "of": of}
            for (verb, consumer, born), of in words.items()
        ]

    # --- records --------------------------------------------------------------------------------------------

    async def load(self, sequences: Iterable[int]) -> list[Stored]:
        """The records, in the order of ``sequences``; what is gone is left out."""
        wanted = list(sequences)
        offsets = dict.fromkeys(codec.offset_of(each) for each in wanted if each not in self._carried)
        found = {offset: self._cache.get(self.topic, offset) for offset in offsets}
        missing = [offset for offset, entry in found.items() if entry is None]
        if missing:
            found.update(await self._read(missing))
        loaded = []
        for sequence in wanted:
            if (carried := self._carried.get(sequence)) is not None:
                loaded.append(codec.stored(carried[0], sequence, carried[1]))
            elif (entry := found.get(codec.offset_of(sequence))) is not None:
                record = entry.record(codec.place_of(sequence))
                loaded.append(codec.stored(record, sequence, entry.at))
        return loaded

    async def record(self, sequence: int) -> tuple[Record, float]:
        """A record that is held, with its identity, and when it was stored."""
        if (carried := self._carried.get(sequence)) is not None:
            return carried
        offset = codec.offset_of(sequence)
        entry = self._cache.get(self.topic, offset) or (await self._read([offset])).get(offset)
        if entry is None:
            raise EventLogError(f"record {sequence} of stream {self.name!r} is gone")
        return entry.record(codec.place_of(sequence)), entry.at

    async def _read(self, offsets: list[int]) -> dict[int, Entry]:
        if self._reader is None:
            self._reader = self._wire.reader(self.topic)
        found: dict[int, Entry] = {}
        for message in await self._reader.read(offsets):
            records = codec.decode_records(headers_and_token(message)[0], message.value())
            if records is not None:
                at, offset = message.timestamp()[1] / 1000, message.offset() or 0
                entry = found[offset] = _entry(records, at)
                self._cache.put(self.topic, offset, entry, again=True)
        return found

    def look_on(self) -> deque[int]:
        """The sequences of records that come from now on are added to what is returned."""
        tail: deque[int] = deque(maxlen=_TAIL_RECORDS)
        self._tails.append(tail)
        return tail

    def look_away(self, tail: deque[int]) -> None:
        """The contrary of :meth:`look_on`."""
        self._tails = [each for each in self._tails if each is not tail]
