"""Fires schedules: one task for each, which looks at the clock, publishes what is due, and writes a mark.

Every process fires everything. The event of a firing is the same whoever publishes it, so that the broker
takes it once; and the mark is written after it, so that nothing is lost. What can't be known by the broker's
duplicate window any more, since it is too long ago, is looked up before it is published: whether another
process has written a mark, and whether the event itself is there.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import TYPE_CHECKING

from torpor.clock import cancel
from torpor.errors import SupersededError, TorporError
from torpor.events import names
from torpor.events.log import Guard, StreamSpec
from torpor.events.records import taken_in
from torpor.events.schedule import Standing, Timing
from torpor.events.schedule_marks import (
    Mark,
    event_of,
    key_of,
    keys_of,
    marks_of,
    record_of,
    timing_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torpor.clock import Clock
    from torpor.events.intake import Intake
    from torpor.events.log import EventLog
    from torpor.events.recorder import Recorder
    from torpor.events.stats import Stats
    from torpor.spec.models import Schedule

_LOG = logging.getLogger("torpor.events")
SURE_SECONDS = 300.0
"""How late a firing may be published and surely be known to the broker if another process was faster: half of
the duplicate window, the rest being for clocks that differ and for the publishing itself.
"""
_LONGEST_SLEEP_SECONDS = 30.0  # so that a clock that was set is noticed
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 5.0


class Scheduler:
    """Keeps a task for each schedule.

    ``shared`` says that other processes work on the same log. Then marks of schedules that are not declared
    to this one are removed only when asked for (:meth:`remove`): another process may know more. What fires is
    written down by ``recorder``, if there is one.
    """

    def __init__(
        self,
        log: EventLog,
        clock: Clock,
        stats: Stats,
        intake: Intake,
        recorder: Recorder | None = None,
        *,
        shared: bool = False,
    ) -> None:
        self._log = log
        self._clock = clock
        self._stats = stats
        self._intake = intake
        self._recorder = recorder
        self._shared = shared
        self._tasks: dict[str, tuple[ScheduleTask, asyncio.Task[None]]] = {}
        self._declared: dict[str, Schedule] = {}
        self._applying = asyncio.Lock()

    async def apply(self, schedules: Sequence[Schedule]) -> None:
        """Bring the tasks to what is declared; their brokers are there already.

        Raises :class:`~torpor.errors.EventLogError` when some of it failed; it is to be called again.
        """
        async with self._applying:
            self._declared = {one.key: one for one in schedules}
            at_work = {key: one for key, one in self._declared.items() if not one.spec.suspend}
            outdated = [key for key, (it, _) in self._tasks.items() if at_work.get(key) != it.schedule]
            await cancel(*(self._tasks.pop(key)[1] for key in outdated))
            if not schedules and names.SCHEDULES not in await self._log.streams():
                return
            await self._log.ensure_stream(StreamSpec(names.SCHEDULES))
            marks = await self._marks()
            resting = {key for key in marks.keys() - at_work.keys() if key in self._declared}
            await self._remove(resting | (set() if self._shared else marks.keys() - self._declared.keys()))
            for key in at_work.keys() - self._tasks.keys():
                work = ScheduleTask(
                    at_work[key],
                    self._log,
                    self._clock,
                    self._stats,
                    self._intake,
                    marks.get(key, ()),
                    self._recorder,
                )
                self._tasks[key] = work, asyncio.create_task(work.run())

    async def strays(self) -> set[str]:
        """The keys of schedules that have marks in the log and were not declared to this process."""
        async with self._applying:
            if names.SCHEDULES not in await self._log.streams():
                return set()
            return (await self._marks()).keys() - self._declared.keys()

    async def remove(self, keys: Iterable[str]) -> None:
        """Forget where schedules stand, but for those that are declared by now."""
        async with self._applying:
            await self._remove(set(keys) - self._declared.keys())

    def at_work(self) -> dict[str, ScheduleTask]:
        """The schedules that fire, by key."""
        return {key: it for key, (it, _) in self._tasks.items()}

    async def close(self) -> None:
        """Fire nothing more."""
        async with self._applying:
            tasks, self._tasks = [task for _, task in self._tasks.values()], {}
            await cancel(*tasks)

    async def _marks(self) -> dict[str, list[Mark]]:
        return marks_of([stored async for stored in self._log.read(names.SCHEDULES, ">")])

    async def _remove(self, keys: Iterable[str]) -> None:
        for key in sorted(keys):
            await self._log.purge(names.SCHEDULES, keys_of(key))


class ScheduleTask:
    """One schedule at work. ``marks`` are those that the log has of it, the newest last."""

    def __init__(
        self,
        schedule: Schedule,
        log: EventLog,
        clock: Clock,
        stats: Stats,
        intake: Intake,
        marks: Sequence[Mark],
        recorder: Recorder | None = None,
    ) -> None:
        self.schedule = schedule
        self._recorder = recorder
        self._log = log
        self._clock = clock
        self._stats = stats
        self._intake = intake
        self._timing = Timing(schedule)
        self._marks = list(marks)
        self._standing: Standing | None = None
        self._missed = 0
        self.last: int | None = None
        """For when the newest firing was planned."""
        self.next: int | None = None
        """For when the next one is planned."""
        self.problem = ""
        """What keeps it from firing."""

    async def run(self) -> None:
        """Fire, for as long as it is let."""
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            try:
                wake_at = await self._look()
            except Exception as error:  # noqa: BLE001 - whatever it is must be told, and must not end it
                if not self.problem:
                    fault = None if isinstance(error, TorporError) else error
                    about = {"schedule": self.schedule.key, "error": str(error)}
                    _LOG.warning("a schedule can't fire yet", extra=about, exc_info=fault)
                self.problem = str(error) or type(error).__name__
                await self._clock.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
                continue
            self.problem = ""
            pause_seconds = _FIRST_PAUSE_SECONDS
            while wake_at is None or self._clock.now() < wake_at:
                left = _LONGEST_SLEEP_SECONDS if wake_at is None else wake_at - self._clock.now()
                await self._clock.sleep(min(left, _LONGEST_SLEEP_SECONDS))

    async def _look(self) -> float | None:
        """Fire what is due; when to look again."""
        if self._standing is None:
            self._standing = Standing(await self._begin())
        look = self._timing.look(self._standing, self._clock.now())
        self._standing, self.next = look.standing, look.next_planned
        self._missed += look.missed
        if look.standing.pending:
            await self._fire(look.standing.pending)
            self._standing = Standing(look.standing.seen)
        if self._standing.seen > self._marks[-1].seen:
            await self._mark(self._standing.seen)
        return look.wake_at

    # --- where it stands ------------------------------------------------------------------------------------

    async def _begin(self) -> int:
        """Up to which time everything is done with; for a schedule that is new or was changed, until now."""
        timing, key = timing_of(self.schedule), self.schedule.key
        while True:
            if self._marks and self._marks[-1].timing == timing:
                self.last = self._marks[-1].fired
                return self._marks[-1].seen
            newest = max((mark.sequence for mark in self._marks), default=0)
            mark = Mark(int(self._clock.now()), timing, self._marks[-1].fired if self._marks else None)
            try:
                # Of several processes one begins, so that all begin at the same time.
                await self._log.append(
                    names.SCHEDULES,
                    [record_of(key, mark, f"{key}#{uuid.uuid4()}")],
                    guard=Guard(keys_of(key), newest),
                )
            except SupersededError:
                self._marks = await self._read()
                continue
            before, self._marks = self._marks, [mark]
            await self._forget(before)

    async def _mark(self, seen: int) -> None:
        """Have it known that all is done with up to ``seen``, and what was missed counted once."""
        key = self.schedule.key
        mark = Mark(seen, timing_of(self.schedule), self.last)
        # Of several processes one writes it: by the identity, that is.
        [new] = await self._log.append(names.SCHEDULES, [record_of(key, mark, f"{key}@{seen}")])
        if new:
            self._stats.of_schedule(key).missed += self._missed
        self._missed = 0
        before, self._marks = self._marks, [mark]
        await self._forget(before)

    async def _forget(self, marks: Iterable[Mark]) -> None:
        for mark in marks:
            if mark.seen != self._marks[-1].seen:
                await self._log.purge(names.SCHEDULES, key_of(self.schedule.key, mark.seen))

    async def _read(self) -> list[Mark]:
        key = self.schedule.key
        found = marks_of([stored async for stored in self._log.read(names.SCHEDULES, keys_of(key))])
        return found.get(key, [])

    # --- firing ---------------------------------------------------------------------------------------------

    async def _fire(self, planned: Sequence[int]) -> None:
        """Publish the events of firings, those left out that were published before."""
        counts = self._stats.of_schedule(self.schedule.key)
        events = {one: event_of(self.schedule, one) for one in planned}
        if self._clock.now() - self._timing.due(planned[0]) > SURE_SECONDS:
            there = await self._published(events)
            events = {one: event for one, event in events.items() if one not in there}
        if events:
            broker, fired = self.schedule.broker_key, list(events.values())
            new = await self._intake.publish(broker, fired)
            now = self._clock.now()
            for one, is_new in zip(events, new, strict=True):
                if is_new:
                    counts.observe(max(0.0, now - self._timing.due(one)))
            if self._recorder is not None:
                lines = taken_in(
                    fired, new, at=now, by=self._recorder.name, how="schedule", schedule=self.schedule.key
                )
                self._recorder.add(broker, lines)
                await self._recorder.flush(broker)
        self.last = planned[-1]

    async def _published(self, events: Mapping[int, object]) -> set[int]:
        """Which of the firings other processes, or this one before a crash, have published already."""
        marks = [mark for mark in await self._read() if mark.timing == timing_of(self.schedule)]
        if marks and marks[-1].seen > self._marks[-1].seen:
            self._marks = marks
        there = {one for one in events if marks and one <= marks[-1].seen}
        missing = {event_of(self.schedule, one).id: one for one in events if one not in there}
        if missing:
            sample = event_of(self.schedule, next(iter(events)))
            stream = names.broker_stream(self.schedule.broker_key)
            async for stored in self._log.read(stream, names.token(sample.type)):
                if stored.event.source == sample.source and stored.event.id in missing:
                    there.add(missing[stored.event.id])
        return there
