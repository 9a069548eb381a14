"""Deletes from Kafka what a stream needs no more, so that its topic does not grow for ever.

Messages are deleted from the head of a partition alone. So that one old record does not keep all that came
after it, the few that are still wanted are written into the registry with the stream (*carried*), and who
opens the stream begins with them, at the offset that goes with them. The journal is replaced by a snapshot in
the same way.

Any process may do this, at the same time as others. What goes by an entry of the registry is deleted only
when the entry is :data:`SETTLED_SECONDS` old: until then somebody may be opening the stream by the last one.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING

from torpor.events import kafka_codec as codec
from torpor.events.kafka_codec import Appended
from torpor.events.kafka_stream import JOURNAL, RECORDS

if TYPE_CHECKING:
    from torpor.clock import Clock
    from torpor.events.kafka_registry import Entry, Registry
    from torpor.events.kafka_stream import Stream
    from torpor.events.kafka_wire import Wire
    from torpor.events.log import Record

SETTLED_SECONDS = 45.0
JOURNAL_MESSAGES = 20_000
"""A journal of as many is replaced by a snapshot."""
CARRY_MESSAGES = 10_000
"""Records are carried where that lets as many messages go."""
MOST_CARRIED = 64
MOST_CARRIED_BYTES = 512 * 1024


async def reclaim(
    wire: Wire,
    registry: Registry,
    clock: Clock,
    stream: Stream,
    *,
    worth: int = CARRY_MESSAGES,
    journal_messages: int = JOURNAL_MESSAGES,
    settled_seconds: float = SETTLED_SECONDS,
) -> None:
    """Delete what can go, and prepare what can go the next time.

    Raises :class:`~torpor.errors.EventLogError`.
    """
    passed = stream.passed()
    await registry.sync()
    entry = registry.get(stream.name)
    if entry is None:
        return
    await stream.sync()
    await stream.sync_journal()
    stream.rest(passed)
    window = stream.index.spec.duplicate_window_seconds
    since = await wire.first_since(stream.topic, RECORDS, max(0.0, passed - window))
    wanted = codec.offset_of(stream.index.first())
    settled = clock.now() - entry.at >= settled_seconds
    if not entry.carried:
        await _cut(wire, stream.topic, RECORDS, min(since, wanted))
    elif settled:
        await _cut(wire, stream.topic, RECORDS, entry.start)
    if entry.snapshot is not None and settled:
        await _cut(wire, stream.topic, JOURNAL, entry.snapshot["end"])
    if not settled:
        return
    new = entry
    if since - wanted >= worth or (entry.carried and since > entry.start):
        new = await _carrying(stream, new, since)
    if stream.journal.end - await wire.first(stream.topic, JOURNAL) >= journal_messages:
        new = replace(new, snapshot=stream.journal.dump())
    if new is entry:
        return
    at = clock.now()

    def reclaimed(now: Entry) -> Entry:
        if (now.generation, now.at) != (entry.generation, entry.at):
            return now  # somebody else was faster
        return replace(now, start=new.start, carried=new.carried, snapshot=new.snapshot, at=at)

    await registry.change(stream.name, reclaimed)


async def _cut(wire: Wire, topic: str, partition: int, offset: int) -> None:
    if offset > await wire.first(topic, partition):
        await wire.delete_before(topic, partition, offset)


async def _carrying(stream: Stream, entry: Entry, start: int) -> Entry:
    """``entry`` with the records before the offset ``start``, unless they are too many or too large."""
    found = stream.index.find((), 0, MOST_CARRIED + 1).sequences
    before = [sequence for sequence in found if codec.offset_of(sequence) < start]
    if len(before) > MOST_CARRIED or sum(stream.index.size(it) or 0 for it in before) > MOST_CARRIED_BYTES:
        return entry
    carried = []
    for sequence in before:
        record, at = await stream.record(sequence)
        carried.append([sequence, at, _text(record)])
    return replace(entry, start=start, carried=carried)


def carried_records(entry: Entry) -> list[tuple[int, float, Record]]:
    """What the entry carries: sequence, time and record."""
    return [(sequence, at, _record(text)) for sequence, at, text in entry.carried or ()]


def _text(record: Record) -> str:
    _, value = codec.encode((record,), single=False)
    return base64.b64encode(value or b"").decode()


def _record(text: str) -> Record:
    said = codec.decode(codec.BATCH, base64.b64decode(text))
    if not isinstance(said, Appended):
        raise TypeError("what is carried is no record")
    return said.record(0)
