"""Writes down what happens to events, before it is acknowledged.

What is added while a write is under way goes with the next one (group commit), so that the busier it is, the
less each line costs. A record never holds up what it tells of: when it can't be written, that is counted, and
the event goes on. The stream has its bounds, and makes room by forgetting the older half.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import TYPE_CHECKING

from torpor.binding import WireEvent
from torpor.clock import cancel
from torpor.errors import EventLogError, StreamFullError
from torpor.events import names
from torpor.events.log import Record, StreamSpec
from torpor.events.records import messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torpor.clock import Clock
    from torpor.events.log import EventLog
    from torpor.events.records import Line
    from torpor.events.stats import Stats

_LOG = logging.getLogger("torpor.events")
AGE_SECONDS = 7 * 86_400.0
MAX_BYTES = 1024**3


def stream_spec(broker_key: str) -> StreamSpec:
    """The stream of what happened to the events of a broker."""
    return StreamSpec(names.records_stream(broker_key), max_age_seconds=AGE_SECONDS, max_bytes=MAX_BYTES)


class _Lane:
    """What is to be written about one broker."""

    def __init__(self) -> None:
        self.waiting: list[Line] = []
        self.upcoming = asyncio.Event()
        self.current: asyncio.Event | None = None
        self.writer: asyncio.Task[None] | None = None


class Recorder:
    """The records of all brokers; ``name`` tells this process from others."""

    def __init__(self, log: EventLog, clock: Clock, stats: Stats, name: str) -> None:
        self._log = log
        self._clock = clock
        self._stats = stats
        self._own = uuid.uuid4().hex
        self._written = 0
        self._lanes: dict[str, _Lane] = {}
        self.name = name

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock.now()

    def add(self, broker_key: str, lines: Iterable[Line]) -> None:
        """Have ``lines`` written by the next :meth:`flush`."""
        self._lane(broker_key).waiting.extend(lines)

    async def flush(self, broker_key: str) -> None:
        """Return once all that was added is durable, or can't be made so."""
        lane = self._lane(broker_key)
        written = lane.upcoming if lane.waiting else lane.current
        if written is None:
            return
        if lane.writer is None:
            lane.writer = asyncio.create_task(self._write(broker_key, lane))
        await written.wait()

    async def close(self) -> None:
        """Write no more, and let nobody wait for it."""
        await cancel(*(lane.writer for lane in self._lanes.values() if lane.writer is not None))
        for lane in self._lanes.values():
            lane.upcoming.set()

    def _lane(self, broker_key: str) -> _Lane:
        lane = self._lanes.get(broker_key)
        if lane is None:
            lane = self._lanes[broker_key] = _Lane()
        return lane

    async def _write(self, broker_key: str, lane: _Lane) -> None:
        try:
            while lane.waiting:
                lines, lane.waiting = lane.waiting, []
                lane.current, lane.upcoming = lane.upcoming, asyncio.Event()
                try:
                    await self._append(broker_key, lines)
                finally:
                    lane.current.set()
                    lane.current = None
        finally:
            lane.writer = None

    async def _append(self, broker_key: str, lines: Sequence[Line]) -> None:
        stream = names.records_stream(broker_key)
        for key, content in messages(lines):
            self._written += 1
            identity = f"{self._own}:{self._written}"
            event = WireEvent(
                {
                    "specversion": "1.0",
                    "id": identity,
                    "source": f"/events/{broker_key}",
                    "type": "dev.torpor.records",
                    "datacontenttype": "application/x-ndjson",
                },
                content,
            )
            try:
                await self._keep(stream, Record(key, identity, event))
            except EventLogError as error:
                self._stats.unrecorded += len(lines)
                _LOG.warning("what happened to events is not recorded", extra={"error": str(error)})
                return

    async def _keep(self, stream: str, record: Record) -> None:
        try:
            await self._log.append(stream, [record])
        except StreamFullError:
            async for oldest in self._log.read(stream, ">"):
                await self._log.trim(stream, (oldest.stored_at + self._clock.now()) / 2)
                break
            await self._log.append(stream, [record])
