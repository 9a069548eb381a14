"""Which streams there are in Kafka: a compacted topic that every process follows.

Its messages are keyed by stream, and the last one of a key counts. A stream that was removed keeps an entry,
since one that is made again is another topic: Kafka ends the old one in its own time.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import uuid
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from torpor.errors import EventLogError
from torpor.events import kafka_codec as codec
from torpor.events.kafka_partition import Followed
from torpor.events.log import StreamSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Message

    from torpor.events.kafka_wire import Wire

_LOG = logging.getLogger("torpor.events")
_TOKEN = "torpor-token"  # noqa: S105 - it tells one message from another


@dataclass(frozen=True, slots=True)
class Entry:
    """A stream. ``generation`` counts the streams of that name.

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


class Registry:
    """All streams; ``changed`` is called for each that changes."""

    def __init__(self, wire: Wire, topic: str, changed: Callable[[str], None]) -> None:
        self._wire = wire
        self._topic = topic
        self._changed = changed
        self._entries: dict[str, Entry] = {}
        self._followed = Followed(wire, topic, 0, self._take, self._fall)
        self._own = uuid.uuid4().hex[:12].encode() + b"."
        self._numbers = itertools.count(1)
        self._under_way: dict[bytes, asyncio.Future[None]] = {}

    async def open(self) -> None:
        """Read what there is."""
        await self._followed.open()

    def close(self) -> None:
        """Read no more."""
        self._followed.close(EventLogError("the connection to Kafka is closed"))

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

    async def put(self, entry: Entry) -> None:
        """Write an entry; returns once it is known here."""
        token = self._own + str(next(self._numbers)).encode()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way[token] = future

        def failed(error: EventLogError) -> None:
            if not future.done():
                future.set_exception(error)
                future.exception()  # who has gone away need not see it

        value = codec.dumps({**asdict(entry)})
        self._wire.send(self._topic, 0, [(_TOKEN, token)], value, key=entry.spec.name, failed=failed)
        try:
            await self._wire.within_patience(future)
        finally:
            self._under_way.pop(token, None)

    async def remove(self, entry: Entry) -> None:
        """Write that a stream is removed."""
        await self.put(replace(entry, removed=True, snapshot=None, carried=None))

    def _fall(self) -> None:
        _LOG.error("%s can't be followed any more: what was to be read was removed", self._topic)

    def _take(self, message: Message) -> None:
        headers: Any = message.headers() or []
        try:
            document = codec.loads(message.value())
            entry = Entry(**{**document, "spec": StreamSpec(**document["spec"])})
        except (EventLogError, LookupError, TypeError) as error:
            _LOG.warning("an entry of %s is left out: %r", self._topic, error)
            return
        old = self._entries.get(entry.spec.name)
        # Who was slower than a removal changes nothing by it.
        if old is None or (entry.generation, entry.removed) >= (old.generation, old.removed):
            self._entries[entry.spec.name] = entry
            self._changed(entry.spec.name)
        for name, token in headers:
            future = self._under_way.get(token) if name == _TOKEN else None
            if future is not None and not future.done():
                future.set_result(None)
