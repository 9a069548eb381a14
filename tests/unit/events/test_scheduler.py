"""Schedulers on the log in memory: one, two on one log, restarts, and a log that is away."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.events.test_schedule import HOUR, START, hours, schedule
from tests.unit.events.world import BROKER, event
from torpor.errors import EventLogError
from torpor.events import names
from torpor.events.intake import Intake
from torpor.events.log import Record, StreamSpec
from torpor.events.memory import MemoryLog
from torpor.events.schedule_marks import time_text
from torpor.events.scheduler import Scheduler
from torpor.events.stats import Stats
from torpor.spec.models import ScheduledEvent
from torpor.testing.clock import MovableClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from torpor.binding import WireEvent
    from torpor.spec.models import Schedule

HOURLY = schedule()


class Faulty:
    """A log whose calls fail while ``away``, or once after the call of that name took effect."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.away = False
        self.fault: Exception | None = None
        self.lose_answer_of = ""
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        work = getattr(self.log, name)
        if name == "read":
            return self._read

        async def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append(name)
            if self.fault is not None:
                raise self.fault
            if self.away:
                raise EventLogError("the log is away")
            result = await work(*arguments, **options)
            told = " ".join((name, *arguments[:1])) if name in ("append", "purge") else name
            if told == self.lose_answer_of:
                self.lose_answer_of = ""
                raise EventLogError("the answer was lost")
            return result

        return call

    async def _read(self, *arguments: str) -> Any:
        if self.away:
            raise EventLogError("the log is away")
        async for stored in self.log.read(*arguments):
            yield stored


class World:
    def __init__(self, number: int = 1) -> None:
        self.clock = MovableClock()
        self.memory = MemoryLog(self.clock)
        self.logs = [Faulty(self.memory) for _ in range(number)]
        self.stats = [Stats() for _ in range(number)]
        self.schedulers = [self._scheduler(index) for index in range(number)]

    def _scheduler(self, index: int) -> Scheduler:
        shared = len(self.logs) > 1
        log, stats = self.logs[index], self.stats[index]
        return Scheduler(log, self.clock, stats, Intake(log, self.clock, stats), shared=shared)

    async def declare(self, *schedules: Schedule) -> None:
        await self.memory.ensure_stream(StreamSpec(names.broker_stream(BROKER)))
        for each in self.schedulers:
            await each.apply(schedules)
            await self.settle()

    async def crash(self, index: int = 0) -> None:
        await self.schedulers[index].close()
        self.schedulers[index] = self._scheduler(index)

    async def settle(self) -> None:
        for _ in range(15):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        await self.clock.advance(seconds, self.settle)

    async def events(self) -> list[WireEvent]:
        return [stored.event async for stored in self.memory.read(names.broker_stream(BROKER), ">")]

    async def fired(self) -> list[str]:
        return [event.attributes["time"] for event in await self.events()]

    async def marks(self) -> list[str]:
        return [stored.key async for stored in self.memory.read(names.SCHEDULES, ">")]

    def counted(self, key: str = "default/s") -> tuple[int, int]:
        tallies = [stats.of_schedule(key) for stats in self.stats]
        return sum(tally.fired for tally in tallies), sum(tally.missed for tally in tallies)


@asynccontextmanager
async def world(*schedules: Schedule, number: int = 1) -> AsyncIterator[World]:
    made = World(number)
    await made.declare(*schedules)
    try:
        yield made
    finally:
        for each in made.schedulers:
            await each.close()


def at(*numbers: int) -> list[str]:
    return [time_text(planned) for planned in hours(*numbers)]


def test_it_fires_at_its_times_and_keeps_one_mark() -> None:
    async def run() -> None:
        async with world(HOURLY) as it:
            await it.advance(HOUR - 1)
            assert await it.fired() == []
            await it.advance(1)
            assert await it.fired() == at(1)
            await it.advance(2 * HOUR)
            assert await it.fired() == at(1, 2, 3)
            assert await it.marks() == [f"default.s.{START + 3 * HOUR}"]
            assert it.counted() == (3, 0)
            work = it.schedulers[0].at_work()["default/s"]
            assert (work.last, work.next) == (START + 3 * HOUR, START + 4 * HOUR)

    asyncio.run(run())


@pytest.mark.parametrize("number", [2, 3])
def test_several_on_one_log_fire_once(number: int) -> None:
    async def run() -> None:
        async with world(HOURLY, schedule("*/20 * * * * *", name="often"), number=number) as it:
            await it.advance(3 * HOUR)
            events = await it.events()
            assert [one.attributes["time"] for one in events if one.type == "s.fired"] == at(1, 2, 3)
            assert len({one.id for one in events}) == len(events) == 3 + 3 * 180
            assert it.counted() == (3, 0)
            assert len(await it.marks()) == 2

    asyncio.run(run())


def test_one_that_is_late_fires_nothing_that_another_has_fired_however_late_it_is() -> None:
    async def run() -> None:
        async with world(HOURLY, number=2) as it:
            it.logs[1].away = True
            await it.advance(2 * HOUR + 1800)
            assert it.schedulers[1].at_work()["default/s"].problem == "the log is away"
            it.logs[1].away = False
            await it.advance(10)
            assert await it.fired() == at(1, 2)
            assert it.counted() == (2, 0)
            assert it.schedulers[1].at_work()["default/s"].problem == ""
            await it.advance(HOUR)
            assert await it.fired() == at(1, 2, 3)

    asyncio.run(run())


@pytest.mark.parametrize("missed", ["skip", "run-once", "run-all"])
def test_no_firing_is_lost_while_the_log_is_away(missed: str) -> None:
    async def run() -> None:
        async with world(schedule(missed=missed)) as it:
            it.logs[0].away = True
            await it.advance(3 * HOUR + 1800)
            assert await it.fired() == []
            it.logs[0].away = False
            await it.advance(10)
            assert await it.fired() == at(1, 2, 3)
            assert it.counted() == (3, 0)
            assert it.stats[0].of_schedule("default/s").late_seconds == pytest.approx(1800, abs=10)

    asyncio.run(run())


@pytest.mark.parametrize(("missed", "made_up_for"), [("skip", []), ("run-once", [4]), ("run-all", [2, 3, 4])])
@pytest.mark.parametrize("number", [1, 2])
def test_what_was_missed_while_it_was_down(missed: str, made_up_for: list[int], number: int) -> None:
    async def run() -> None:
        it = World(number)
        one = schedule(missed=missed)
        await it.declare(one)
        await it.advance(HOUR)
        for index in range(number):
            await it.crash(index)
        await it.advance(3 * HOUR + 1800)
        await it.declare(one)
        assert await it.fired() == at(1, *made_up_for)
        assert it.counted() == (1 + len(made_up_for), 3 - len(made_up_for))
        await it.advance(1800)
        assert await it.fired() == at(1, *made_up_for, 5)
        for each in it.schedulers:
            await each.close()

    asyncio.run(run())


def test_a_short_restart_misses_nothing() -> None:
    async def run() -> None:
        async with world(HOURLY) as it:
            await it.advance(HOUR - 20)
            await it.crash()
            await it.advance(60)
            await it.declare(HOURLY)
            assert await it.fired() == at(1)

    asyncio.run(run())


@pytest.mark.parametrize("lost", ["append broker.default.default", "append schedules", "purge schedules"])
@pytest.mark.parametrize("down_seconds", [1, 1800])
@pytest.mark.parametrize("missed", ["skip", "run-all"])
def test_a_crash_between_any_two_steps_doubles_nothing(lost: str, down_seconds: int, missed: str) -> None:
    async def run() -> None:
        one = schedule(missed=missed)
        async with world(one) as it:
            await it.advance(HOUR - 1)
            it.logs[0].lose_answer_of = lost
            await it.advance(1)
            assert it.logs[0].lose_answer_of == ""
            await it.crash()
            await it.advance(down_seconds)
            await it.declare(one)
            assert await it.fired() == at(1)
            await it.advance(HOUR)
            assert await it.fired() == at(1, 2)
            assert await it.marks() == [f"default.s.{START + 2 * HOUR}"]

    asyncio.run(run())


def test_an_answer_that_was_lost_is_made_good_without_a_crash() -> None:
    async def run() -> None:
        async with world(HOURLY) as it:
            it.logs[0].lose_answer_of = "append broker.default.default"
            await it.advance(HOUR + 10)
            assert await it.fired() == at(1)
            assert await it.marks() == [f"default.s.{START + HOUR}"]

    asyncio.run(run())


def test_one_whose_times_have_changed_begins_anew() -> None:
    async def run() -> None:
        async with world(schedule(missed="run-all"), number=2) as it:
            await it.advance(HOUR + 1800)
            await it.declare(schedule("*/20 * * * *", missed="run-all"))
            assert await it.fired() == at(1)
            await it.advance(600)
            assert await it.fired() == [*at(1), "2026-01-01T01:40:00Z"]
            assert len(await it.marks()) == 1

    asyncio.run(run())


def test_one_whose_event_has_changed_goes_on_where_it_was() -> None:
    async def run() -> None:
        async with world(HOURLY) as it:
            await it.advance(HOUR)
            await it.declare(schedule(event=ScheduledEvent(data=1)))
            await it.advance(HOUR)
            assert [(one.attributes["time"], one.data) for one in await it.events()] == list(
                zip(at(1, 2), (None, b"1"), strict=True)
            )

    asyncio.run(run())


def test_one_that_is_suspended_rests_and_makes_up_for_nothing() -> None:
    async def run() -> None:
        async with world(schedule(missed="run-all"), number=2) as it:
            await it.advance(HOUR)
            await it.declare(schedule(missed="run-all", suspend=True))
            await it.advance(3 * HOUR)
            assert await it.fired() == at(1)
            assert await it.marks() == []
            await it.declare(schedule(missed="run-all"))
            await it.advance(HOUR)
            assert await it.fired() == at(1, 5)

    asyncio.run(run())


def test_one_that_is_declared_no_more_is_forgotten() -> None:
    async def run() -> None:
        async with world(HOURLY, schedule(name="other")) as it:
            await it.declare(schedule(name="other"))
            await it.advance(2 * HOUR)
            assert {one.type for one in await it.events()} == {"other.fired"}
            assert await it.marks() == [f"default.other.{START + 2 * HOUR}"]
            await it.declare()
            assert await it.marks() == []

    asyncio.run(run())


def test_one_that_is_declared_again_begins_anew() -> None:
    async def run() -> None:
        async with world(schedule(missed="run-all")) as it:
            await it.declare()
            await it.advance(2 * HOUR)
            await it.declare(schedule(missed="run-all"))
            await it.advance(HOUR)
            assert await it.fired() == at(3)

    asyncio.run(run())


def test_of_several_processes_none_forgets_what_another_knows_unless_it_is_told_to() -> None:
    async def run() -> None:
        async with world(HOURLY, number=2) as it:
            await it.schedulers[0].apply([])
            assert await it.marks() == [f"default.s.{START}"]
            assert await it.schedulers[0].strays() == {"default/s"}
            assert await it.schedulers[1].strays() == set()
            await it.schedulers[1].remove(["default/s"])  # it knows better
            assert await it.marks() == [f"default.s.{START}"]
            await it.schedulers[0].remove(["default/s"])
            assert await it.marks() == []

    asyncio.run(run())


def test_without_any_there_is_no_stream() -> None:
    async def run() -> None:
        async with world() as it:
            assert names.SCHEDULES not in await it.memory.streams()
            assert await it.schedulers[0].strays() == set()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("key", "data"),
    [
        ("one", b"{}"),
        ("a.b.c.d", b"{}"),
        ("default.s.x", b"{}"),
        ("default.s.1", b"[]"),
        ("default.s.2", b"no"),
    ],
)
def test_what_another_program_wrote_among_the_marks_is_left_out(key: str, data: bytes) -> None:
    async def run() -> None:
        async with world(HOURLY) as it:
            await it.memory.append(names.SCHEDULES, [Record(key, "theirs", event("theirs", data=data))])
            await it.crash()
            await it.declare(HOURLY)
            await it.advance(2 * HOUR)
            assert await it.fired() == at(1, 2)

    asyncio.run(run())


def test_a_fault_is_told_and_does_not_end_it() -> None:
    async def run() -> None:
        async with world(HOURLY) as it:
            [log] = it.logs
            log.fault = RuntimeError("what is this?")
            await it.advance(1.5 * HOUR)
            [task] = it.schedulers[0].at_work().values()
            assert task.problem == "what is this?"
            log.fault = None
            await it.advance(2 * HOUR)
            assert await it.fired() == at(1, 2, 3)
            assert task.problem == ""

    asyncio.run(run())


def test_what_it_says_is_in_the_metrics_and_outlasts_the_process() -> None:
    async def run() -> None:
        async with world(HOURLY) as it:
            await it.advance(2 * HOUR)
            [stats] = it.stats
            lines = {
                (sample.name, *sample.labels.values()): sample.value
                for family in stats.collect()
                for sample in family.samples
                if "schedule" in sample.name
            }
            assert lines["torpor_schedule_fired_total", "default", "s"] == 2
            assert lines["torpor_schedule_missed_total", "default", "s"] == 0
            assert lines["torpor_schedule_lateness_seconds_count", "default", "s"] == 2
            later = Stats()
            later.load(stats.dump())
            assert later.of_schedule("default/s").fired == 2
            later.forget_all_but([], [])
            assert later.schedules == {}

    asyncio.run(run())
