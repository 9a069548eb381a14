"""Schedules on a real NATS and a real Kafka, with a clock that is moved: each firing is one event."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.integration.events.process import until
from tests.unit.events.test_schedule import HOUR, START, hours, schedule
from torpor.binding import WireEvent
from torpor.events import names
from torpor.events.dispatcher import Retention
from torpor.events.intake import Intake
from torpor.events.jetstream import JetStreamLog
from torpor.events.kafka import KafkaLog
from torpor.events.log import Record, StreamSpec
from torpor.events.nats_server import NatsServer
from torpor.events.schedule_marks import time_text
from torpor.events.scheduler import Scheduler
from torpor.events.stats import Stats
from torpor.testing.clock import MovableClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from torpor.events.kafka_server import KafkaServer
    from torpor.events.log import EventLog
    from torpor.spec.models import Schedule

KEY = "default/s"
STREAM = names.broker_stream("default/default")


class _World:
    """Two schedulers, each with a connection of its own, that share a clock."""

    def __init__(self, logs: Sequence[EventLog], window_seconds: float) -> None:
        self.clock = MovableClock()
        self.logs = logs
        self.stats = [Stats() for _ in logs]
        self.window_seconds = window_seconds
        self.schedulers = self._schedulers()

    def _schedulers(self) -> list[Scheduler]:
        return [
            Scheduler(log, self.clock, stats, Intake(log, self.clock, stats), shared=True)
            for log, stats in zip(self.logs, self.stats, strict=True)
        ]

    async def declare(self, *schedules: Schedule) -> None:
        spec = StreamSpec(STREAM, duplicate_window_seconds=self.window_seconds)
        await self.logs[0].ensure_stream(spec)
        await asyncio.gather(*(each.apply(schedules) for each in self.schedulers))
        await self.settle()

    async def settle(self) -> None:
        """Return when every schedule of every process waits for time."""

        async def reached() -> bool:
            at_work = sum(len(each.at_work()) for each in self.schedulers)
            return sum(not woken.done() for *_, woken in self.clock._sleepers) >= at_work

        await until(reached)

    async def crash(self) -> None:
        for each in self.schedulers:
            await each.close()
        self.schedulers = self._schedulers()

    async def fired(self) -> list[str]:
        return [stored.event.attributes["time"] async for stored in self.logs[0].read(STREAM, "s=2Efired")]

    async def marks(self) -> list[str]:
        return [stored.key async for stored in self.logs[0].read(names.SCHEDULES, ">")]

    async def outlive_the_window(self) -> None:
        """Return when the broker knows nothing as a duplicate any more that it has stored by now."""
        probe = [Record("probe", "probe", WireEvent({"id": "1", "source": "/probe", "type": "probe"}, None))]

        async def forgotten() -> bool:
            [new] = await self.logs[0].append(STREAM, probe)
            return new

        assert await forgotten()
        await until(forgotten)

    def counted(self) -> tuple[int, int]:
        tallies = [stats.of_schedule(KEY) for stats in self.stats]
        return sum(tally.fired for tally in tallies), sum(tally.missed for tally in tallies)


@asynccontextmanager
async def _world(
    folder: Path, window_seconds: float | None = None
) -> AsyncIterator[tuple[_World, NatsServer]]:
    nats = NatsServer(folder / "nats", sync="interval")
    await nats.start()
    logs = [await JetStreamLog.connect(nats.url, token=nats.token) for _ in range(2)]
    it = _World(logs, window_seconds or Retention().duplicate_window_seconds)
    try:
        yield it, nats
    finally:
        for each in it.schedulers:
            await each.close()
        for log in logs:
            await log.close()
        await nats.close()


def _at(*numbers: int) -> list[str]:
    return [time_text(planned) for planned in hours(*numbers)]


def test_two_processes_fire_once_and_keep_one_mark(tmp_path: Path) -> None:
    async def run() -> None:
        async with _world(tmp_path) as (it, _):
            await it.declare(schedule())
            assert await it.marks() == [f"default.s.{START}"]  # one of both has begun
            await it.clock.advance(3 * HOUR, it.settle)
            assert await it.fired() == _at(1, 2, 3)
            assert await it.marks() == [f"default.s.{START + 3 * HOUR}"]
            assert it.counted() == (3, 0)
            assert [each.at_work()[KEY].last for each in it.schedulers] == [START + 3 * HOUR] * 2

    asyncio.run(run())


@pytest.mark.parametrize(("missed", "made_up_for"), [("skip", []), ("run-once", [4]), ("run-all", [2, 3, 4])])
def test_what_was_missed_while_both_were_down(tmp_path: Path, missed: str, made_up_for: list[int]) -> None:
    async def run() -> None:
        async with _world(tmp_path) as (it, nats):
            await it.declare(schedule(missed=missed))
            await it.clock.advance(HOUR, it.settle)
            await it.crash()
            await nats.close()
            await it.clock.advance(3 * HOUR + 1800)
            await nats.start()
            await it.declare(schedule(missed=missed))
            assert await it.fired() == _at(1, *made_up_for)
            assert it.counted() == (1 + len(made_up_for), 3 - len(made_up_for))
            await it.clock.advance(1800, it.settle)
            assert await it.fired() == _at(1, *made_up_for, 5)

    asyncio.run(run())


def test_what_the_broker_does_not_know_as_a_duplicate_any_more_is_looked_up(tmp_path: Path) -> None:
    async def run() -> None:
        async with _world(tmp_path, window_seconds=0.1) as (it, _):
            await it.declare(schedule(missed="run-all"))
            mark = [stored async for stored in it.logs[0].read(names.SCHEDULES, ">")]
            await it.clock.advance(HOUR, it.settle)
            await it.crash()
            # As if both had been killed after the event was stored, and before the mark was.
            await it.logs[0].remove_stream(names.SCHEDULES)
            await it.logs[0].ensure_stream(StreamSpec(names.SCHEDULES))
            await it.logs[0].append(names.SCHEDULES, [Record(mark[0].key, "again", mark[0].event)])
            await it.clock.advance(1800)
            await it.outlive_the_window()
            await it.declare(schedule(missed="run-all"))
            assert await it.fired() == _at(1)
            await it.clock.advance(HOUR, it.settle)
            assert await it.fired() == _at(1, 2)

    asyncio.run(run())


def test_one_that_is_suspended_or_gone_leaves_no_mark_and_begins_anew(tmp_path: Path) -> None:
    async def run() -> None:
        async with _world(tmp_path) as (it, _):
            await it.declare(schedule())
            await it.declare(schedule(suspend=True))
            assert await it.marks() == []
            await it.clock.advance(2 * HOUR, it.settle)
            await it.declare(schedule())  # a guard on keys that had records once
            await it.clock.advance(HOUR, it.settle)
            assert await it.fired() == _at(3)
            await it.declare()
            assert [await each.strays() for each in it.schedulers] == [{KEY}] * 2
            await it.schedulers[0].remove({KEY})
            assert await it.marks() == []

    asyncio.run(run())


def test_two_processes_on_kafka_fire_once_and_miss_nothing(kafka: KafkaServer) -> None:
    async def run() -> None:
        prefix = f"schedules-{uuid.uuid4().hex[:8]}"
        logs = [await KafkaLog.connect(kafka.servers, prefix=prefix, options=kafka.options) for _ in range(2)]
        it = _World(logs, Retention().duplicate_window_seconds)
        try:
            await it.declare(schedule(missed="run-all"))
            assert await it.marks() == [f"default.s.{START}"]
            await it.clock.advance(HOUR, it.settle)
            await it.crash()
            await it.clock.advance(2 * HOUR + 1800)
            await it.declare(schedule(missed="run-all"))
            assert await it.fired() == _at(1, 2, 3)
            assert it.counted() == (3, 0)
            assert await it.marks() == [f"default.s.{START + 3 * HOUR}"]
            await it.declare(schedule(suspend=True))
            assert await it.marks() == []
            await it.declare(schedule())
            await it.clock.advance(HOUR, it.settle)
            assert await it.fired() == _at(1, 2, 3, 4)
        finally:
            for each in it.schedulers:
                await each.close()
            for name in await logs[0].streams():
                await logs[0].remove_stream(name)
            for log in logs:
                await log.close()

    asyncio.run(run())
