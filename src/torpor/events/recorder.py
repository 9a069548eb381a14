"""Writes down what happens to events, before it is acknowledged.

A write costs the same for one line as for a hundred (group commit). So an acknowledgement that nobody waits
for waits for others of its kind: until enough came together, until nothing is under way that could bring
more, or for :data:`PAUSE_SECONDS`. Who does wait, such as a producer, has it written at once, with all that
is there by then.

A record never holds up what it tells of: when it can't be written, that is counted, and the event goes on.
The stream has its bounds, and makes room by forgetting the older half.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import TYPE_CHECKING

from torpor.binding import WireEvent
from torpor.clock import cancel, first_of, happens_within
from torpor.errors import EventLogError, RecordTooLargeError, StreamFullError
from torpor.events import names
from torpor.events.log import Record, StreamSpec
from torpor.events.records import messages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from torpor.clock import Clock
    from torpor.events.log import EventLog
    from torpor.events.records import Line
    from torpor.events.stats import Stats

_LOG = logging.getLogger("torpor.events")
AGE_SECONDS = 7 * 86_400.0
MAX_BYTES = 1024**3
PAUSE_SECONDS = 0.05
_ENOUGH = 512
_MOST_WAITING = 4096


def stream_spec(broker_key: str) -> StreamSpec:
    """The stream of what happened to the events of a broker."""
    return StreamSpec(names.records_stream(broker_key), max_age_seconds=AGE_SECONDS, max_bytes=MAX_BYTES)


class _Lane:
    """What is to be written about one broker, and what is to be done then."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.then: list[Callable[[], Awaitable[None]]] = []
        self.upcoming = asyncio.Event()
        self.current: asyncio.Event | None = None
        self.hurry = asyncio.Event()
        self.writer: asyncio.Task[None] | None = None


class Recorder:
    """The records of all brokers; ``name`` tells this process from others."""

    def __init__(self, log: EventLog, clock: Clock, stats: Stats, name: str) -> None:
        self._log = log
        self._clock = clock
        self._stats = stats
        self._own = uuid.uuid4().hex
        self._written = 0
        self._under_way = 0
        self._lanes: dict[str, _Lane] = {}
        self.name = name

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock.now()

    def began(self) -> None:
        """Something is under way that will be written down."""
        self._under_way += 1

    def ended(self) -> None:
        """It is not under way any more."""
        self._under_way -= 1
        if not self._under_way:
            for lane in self._lanes.values():
                lane.hurry.set()

    def add(self, broker_key: str, lines: Iterable[Line]) -> None:
        """Have ``lines`` written by the next write, which :meth:`flush` and :meth:`afterwards` see to."""
        self._lane(broker_key).lines.extend(lines)

    async def flush(self, broker_key: str) -> None:
        """Return once all that was added is durable, or can't be made so."""
        lane = self._lane(broker_key)
        written = lane.upcoming if lane.lines or lane.then else lane.current
        if written is None:
            return
        lane.hurry.set()
        self._write_on(broker_key, lane)
        await written.wait()

    async def afterwards(self, broker_key: str, action: Callable[[], Awaitable[None]]) -> None:
        """Have ``action`` done once all that was added is durable or can't be made so; nobody waits for it.

        What it raises of :class:`~torpor.errors.EventLogError` is not told: it must be safe to leave undone.
        """
        lane = self._lane(broker_key)
        lane.then.append(action)
        if len(lane.then) >= _MOST_WAITING:
            await self.flush(broker_key)
            return
        if len(lane.lines) >= _ENOUGH or not self._under_way:
            lane.hurry.set()
        self._write_on(broker_key, lane)

    async def drain(self, most_seconds: float) -> None:
        """Write all that is there, for that long at most."""
        writers = [lane.writer for lane in self._lanes.values() if lane.writer is not None]
        for lane in self._lanes.values():
            lane.hurry.set()
        if writers:
            await first_of(asyncio.wait(writers), self._clock.sleep(most_seconds))

    async def close(self) -> None:
        """Write no more, and let nobody wait for it."""
        await cancel(*(lane.writer for lane in self._lanes.values() if lane.writer is not None))

    # --- within ---------------------------------------------------------------------------------------------

    def _lane(self, broker_key: str) -> _Lane:
        lane = self._lanes.get(broker_key)
        if lane is None:
            lane = self._lanes[broker_key] = _Lane()
        return lane

    def _write_on(self, broker_key: str, lane: _Lane) -> None:
        if lane.writer is None:
            lane.writer = asyncio.create_task(self._write(broker_key, lane))
            lane.writer.add_done_callback(_fell)

    async def _write(self, broker_key: str, lane: _Lane) -> None:
        try:
            while lane.lines or lane.then:
                await happens_within(self._clock, PAUSE_SECONDS, lane.hurry)
                lane.hurry.clear()
                lines, lane.lines = lane.lines, []
                then, lane.then = lane.then, []
                lane.current, lane.upcoming = lane.upcoming, asyncio.Event()
                try:
                    await self._append(broker_key, lines)
                finally:
                    lane.current.set()
                    lane.current = None
                await _do(then)
        except BaseException:  # whoever waits for the next write would wait for ever
            lane.upcoming.set()
            lane.upcoming = asyncio.Event()
            raise
        finally:
            lane.writer = None

    async def _append(self, broker_key: str, lines: Sequence[Line]) -> None:
        stream = names.records_stream(broker_key)
        left = len(lines)
        for key, content in messages(lines):
            in_it = content.count(b"\n") + 1
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
                await keep(self._log, stream, Record(key, identity, event), self._clock.now())
            except EventLogError as error:
                is_large = isinstance(error, RecordTooLargeError)
                self._stats.unrecorded += in_it if is_large else left
                _LOG.warning("what happened to events is not recorded", extra={"error": str(error)})
                if not is_large:
                    return
            left -= in_it


async def keep(log: EventLog, stream: str, record: Record, now: float) -> bool:
    """Append to a stream that makes room by forgetting the older half of what it has, as of ``now``; whether
    it was new.
    """
    try:
        [is_new] = await log.append(stream, [record])
    except StreamFullError:
        async for oldest in log.read(stream, ">"):
            await log.trim(stream, (oldest.stored_at + now) / 2)
            break
        [is_new] = await log.append(stream, [record])
    return is_new


def _fell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _LOG.error("writing down what happened ended unexpectedly", exc_info=error)


async def _do(actions: Iterable[Callable[[], Awaitable[None]]]) -> None:
    for action in actions:
        try:
            await action()
        except EventLogError as error:
            _LOG.debug("what was written down could not be acknowledged", extra={"error": str(error)})
