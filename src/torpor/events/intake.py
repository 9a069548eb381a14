"""Appends events to brokers: what functions reply, and what comes from elsewhere while there is room for it.

An event is done with only once its replies are durable. A broker full of events whose functions reply would
stand still for ever: so what comes from elsewhere, from producers, schedules, replays and sinks, is taken in
only while less than fifteen sixteenths of the broker are in use, and the rest is left to replies.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torpor.clock import Together
from torpor.errors import EventLogError, StreamFullError
from torpor.events import names
from torpor.events.dead_letters import ADDED_BYTES
from torpor.events.log import EventLog, Record
from torpor.events.reckoning import Reckoning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torpor.binding import WireEvent
    from torpor.clock import Clock
    from torpor.events.stats import Stats

MAX_BYTES = 8 * 1024**3
"""What a broker holds at most, unless it is told otherwise."""
_FULL_SECONDS = 0.5
"""How long after the last try to make room there is none, however many ask."""
_HEAD_BYTES = 1024
"""What a record is taken to have beside its data until the log is asked again."""


class Intake:
    """Appends to all brokers, of which each holds ``max_bytes`` at most.

    How much a broker holds is asked of the log for all that want to know at the same time together, and
    reckoned in between: several processes may together go over what is left to replies by what they take in
    during that time.
    """

    def __init__(self, log: EventLog, clock: Clock, stats: Stats, max_bytes: int = MAX_BYTES) -> None:
        self._log = log
        self._clock = clock
        self._stats = stats
        self._most = max_bytes * 15 // 16
        self._held: dict[str, _Held] = {}

    async def publish(self, broker_key: str, events: Sequence[WireEvent]) -> list[bool]:
        """Append events from elsewhere, all or none; per event whether it was new and so appended.

        Raises :class:`~torpor.errors.EventLogError`, of which :class:`~torpor.errors.StreamFullError` says
        that what is left is for replies, and :class:`~torpor.errors.RecordTooLargeError`.
        """
        return self._counted(broker_key, await self.store(broker_key, _records(events)))

    async def store(self, broker_key: str, records: Sequence[Record]) -> list[bool]:
        """The same for records that have keys of their own; they are not counted as published."""
        held = self._of(broker_key)
        size = sum(len(record.event.data or b"") for record in records) + _HEAD_BYTES * len(records)
        await self._find_room(broker_key, held, size)
        held.add(size)
        try:
            return await store_in(self._log, names.broker_stream(broker_key), records)
        finally:
            held.done(size)

    async def reply(self, broker_key: str, events: Sequence[WireEvent]) -> list[bool]:
        """Append what a function replied, as long as there is any room; as :meth:`publish` does."""
        try:
            new = await append_events(self._log, broker_key, events)
        except StreamFullError:
            await self._of(broker_key).make_room()
            new = await append_events(self._log, broker_key, events)
        return self._counted(broker_key, new)

    def _of(self, broker_key: str) -> _Held:
        held = self._held.get(broker_key)
        if held is None:
            held = self._held[broker_key] = _Held(self._log, self._clock, broker_key)
        return held

    def _counted(self, broker_key: str, new: list[bool]) -> list[bool]:
        self._stats.count_published(broker_key, sum(new))
        return new

    async def _find_room(self, broker_key: str, held: _Held, size: int) -> None:
        if not held.is_fresh(self._clock.monotonic()):
            await held.look()
        if held.amount + size <= self._most:
            return
        if self._clock.monotonic() - held.cleared_at >= _FULL_SECONDS:
            await held.make_room()
        if held.amount + size > self._most:
            raise StreamFullError(
                f"broker {broker_key} is full: {held.amount} bytes wait in it, of which there may be "
                f"{self._most}; the rest is for what functions reply"
            )


class _Held(Reckoning):
    """How many bytes a broker holds."""

    def __init__(self, log: EventLog, clock: Clock, broker_key: str) -> None:
        super().__init__()
        self._log = log
        self._clock = clock
        self._stream = names.broker_stream(broker_key)
        self.cleared_at = -math.inf
        """When room was last made."""
        self.look = Together(self._look)
        """Ask the log. Raises :class:`~torpor.errors.EventLogError`."""
        self.make_room = Together(self._make_room)
        """Remove what every trigger has had, and ask. Raises :class:`~torpor.errors.EventLogError`."""

    async def _look(self) -> None:
        began = self._clock.monotonic()
        self.begin()
        self.seen(await self._log.size_bytes(self._stream), began)

    async def _make_room(self) -> None:
        # What was delivered is kept for a while for those who look back: that goes first.
        await self._log.trim(self._stream, math.inf)
        await self.look()
        self.cleared_at = self._clock.monotonic()


def _records(events: Sequence[WireEvent]) -> list[Record]:
    return [
        Record(names.token(event.type), names.identity(event.source, event.id), event, ADDED_BYTES)
        for event in events
    ]


async def append_events(log: EventLog, broker_key: str, events: Sequence[WireEvent]) -> list[bool]:
    """Append ``events`` to a broker's stream, all or none; per event whether it was new.

    Raises :class:`~torpor.errors.EventLogError`, :class:`~torpor.errors.RecordTooLargeError`.
    """
    return await _append(log, names.broker_stream(broker_key), _records(events))


async def store_in(log: EventLog, stream: str, records: Sequence[Record]) -> list[bool]:
    """Append ``records`` to a stream, all or none; per record whether it was new.

    A full stream is made room in by removing what every trigger has had.
    Raises :class:`~torpor.errors.EventLogError`, :class:`~torpor.errors.RecordTooLargeError`.
    """
    try:
        return await _append(log, stream, records)
    except StreamFullError:
        await log.trim(stream, math.inf)
        return await _append(log, stream, records)


async def _append(log: EventLog, stream: str, records: Sequence[Record]) -> list[bool]:
    new = await log.append(stream, records)
    if len(new) != len(records):
        raise EventLogError(f"the log answered for {len(new)} of {len(records)} records")
    return new
