"""Which streams there are in Kafka: a compacted topic that every process follows.

Its messages are keyed by stream, and have versions: of two that were made from the same entry the first
counts, and who wrote the other makes the change once more, of what has become of the entry. Of all messages
of a key Kafka keeps the last. Where that does not count, what does is written again: at once by who wrote it,
and by :meth:`Registry.repair` where nobody did.

A stream that was removed keeps an entry, since one that is made again is another topic: Kafka ends the old
one in its own time.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from torpor.errors import EventLogError
from torpor.events import kafka_codec as codec
from torpor.events.kafka_partition import Followed
from torpor.events.kafka_writes import Writes, headers_and_token
from torpor.events.log import StreamSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Message

    from torpor.events.kafka_wire import Wire

_LOG = logging.getLogger("torpor.events")


@dataclass(frozen=True, slots=True)
class Entry:
    """A stream. ``generation`` counts the streams of that name, and ``version`` the entries of one of them.

    ``snapshot`` is of its consumers. ``carried`` are records before the offset ``start``: sequence, time and
    text (:mod:`torpor.events.kafka_reclaim`). ``at`` is when that was written, in seconds since the epoch.
    """

    spec: StreamSpec
    generation: int
    removed: bool = False
    snapshot: dict[str, Any] | None = None
    start: int = 0
    carried: list[Any] | None = None
    at: float = 0.0
    version: int = 0


_FIELDS = frozenset(field.name for field in fields(Entry))


class Registry:
    """All streams; ``changed`` is called for each that changes."""

    def __init__(self, wire: Wire, topic: str, changed: Callable[[str], None]) -> None:
        self._wire = wire
        self._topic = topic
        self._changed = changed
        self._entries: dict[str, Entry] = {}
        self._beaten: set[str] = set()  # streams whose last message does not count
        self._followed = Followed(wire, topic, 0, self._take, self._fall)
        self._writes: Writes[bool] = Writes(wire, topic)

    async def open(self) -> None:
        """Read what there is."""
        await self._followed.open()

    def close(self) -> None:
        """Read no more; whoever waits is told so."""
        error = EventLogError("the connection to Kafka is closed")
        self._followed.close(error)
        self._writes.close(error)

    async def sync(self) -> None:
        """Know everything written before this call."""
        await self._followed.sync()

    def get(self, name: str) -> Entry | None:
        """The stream, if there is one."""
        entry = self._entries.get(name)
        return None if entry is None or entry.removed else entry

    def names(self) -> list[str]:
        """The names of all streams, sorted."""
        return sorted(name for name, entry in self._entries.items() if not entry.removed)

    def last_generation(self, name: str) -> int:
        """How many streams of that name there have been."""
        entry = self._entries.get(name)
        return 0 if entry is None else entry.generation

    async def put(self, entry: Entry) -> bool:
        """Write an entry; whether it counts. If another one came before, that is written again after it."""
        counts = await self._write(entry)
        await self._write_again(entry.spec.name)
        return counts

    async def repair(self) -> None:
        """Write again what counts, of each stream whose last message does not."""
        for name in list(self._beaten):
            await self._write_again(name)

    async def change(self, name: str, change: Callable[[Entry], Entry]) -> None:
        """Have ``change`` made of a stream's entry, if there is one, whoever else changes it."""
        while (entry := self.get(name)) is not None:
            new = change(entry)
            if new == entry or await self.put(replace(new, version=entry.version + 1)):
                return

    async def remove(self, entry: Entry) -> None:
        """Write that a stream is removed."""
        await self.put(replace(entry, removed=True, snapshot=None, carried=None))

    async def _write_again(self, name: str) -> None:
        while name in self._beaten:
            entry = self._entries[name]
            await self._write(replace(entry, version=entry.version + 1))

    async def _write(self, entry: Entry) -> bool:
        """Write an entry; returns once it is known here whether it counts."""
        value = codec.dumps({**asdict(entry)})
        return await self._wire.within_patience(self._writes.write(0, [], value, entry.spec.name))

    def _fall(self) -> None:
        _LOG.error("%s can't be followed any more: what was to be read was removed", self._topic)

    def _take(self, message: Message) -> None:
        _, token = headers_and_token(message)
        try:
            document = codec.loads(message.value())
            # Who is newer may write more.
            known = {name: value for name, value in document.items() if name in _FIELDS}
            entry = Entry(**{**known, "spec": StreamSpec(**document["spec"])})
        except (EventLogError, LookupError, TypeError) as error:
            _LOG.warning("an entry of %s is left out: %r", self._topic, error)
            return
        old = self._entries.get(entry.spec.name)
        counts = old is None or entry == old or _place(entry) > _place(old)
        if counts:
            self._beaten.discard(entry.spec.name)
            self._entries[entry.spec.name] = entry
            self._changed(entry.spec.name)
        else:
            self._beaten.add(entry.spec.name)
        self._writes.answer(token, counts)


def _place(entry: Entry) -> tuple[int, bool, int]:
    """Of two entries of a stream the one with the greater place counts, however late the other one came."""
    return entry.generation, entry.removed, entry.version
