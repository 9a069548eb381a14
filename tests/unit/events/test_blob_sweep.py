"""Blobs that nothing names are removed, in two steps; what an event names stays, wherever the event is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest

from tests.unit.events.world import BROKER, event
from torpor.blobs import BlobStore, Kept
from torpor.blobs.lifetime import ASIDE_SECONDS, Lifetime
from torpor.blobs.objects import ObjectPlace
from torpor.clock import SystemClock, cancel
from torpor.errors import BlobError, BlobNotFoundError, EventLogError
from torpor.events import names
from torpor.events.blob_sweep import EVERY_SECONDS, FIRST_SECONDS, BlobSweep
from torpor.events.claims import BlobOptions
from torpor.events.declaration import Declaration
from torpor.events.log import Record, Stored, StreamSpec
from torpor.events.memory import MemoryLog
from torpor.events.service import Service
from torpor.events.stats import Stats
from torpor.spec.models import Metadata, Schedule, ScheduledEvent, ScheduleSpec
from torpor.testing.clock import MovableClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from torpor.blobs.lifetime import Step

DAY = 86_400.0
TTL = 7 * DAY


class World:
    def __init__(self, folder: Path, ttl_seconds: float = TTL) -> None:
        self.clock = MovableClock(SystemClock().now())
        self.log = MemoryLog(self.clock)
        self.keeper = ObjectPlace(folder.as_uri())
        self.store = BlobStore(folder.as_uri(), self.keeper)
        self.stats = Stats()
        self.declared: list[str] = []
        self.sweep = BlobSweep(
            self.log, self.keeper, self.clock, self.stats, ttl_seconds, lambda: self.declared
        )
        self._count = 0

    async def name(self, stream: str, reference: str, *, in_data: bool = False) -> str:
        """Have an event in a stream that names a blob; its key."""
        await self.log.ensure_stream(StreamSpec(stream))
        self._count += 1
        key = f"k{self._count}"
        made = event(key, data=b'{"picture": "%s"}' % reference.encode()) if in_data else None
        record = Record(key, key, made or event(key, dataref=reference))
        await self.log.append(stream, [record])
        return key

    async def later(self, seconds: float) -> None:
        await self.clock.advance(seconds, lambda: asyncio.sleep(0))
        await self.sweep.sweep()

    async def is_there(self, reference: str) -> bool:
        try:
            await self.store.get(reference)
        except BlobNotFoundError:
            return False
        return True

    async def aside(self) -> list[bool]:
        return [kept.aside async for kept in self.keeper.list()]


@pytest.mark.parametrize(
    ("aside", "age", "due"),
    [
        (False, TTL - 1, False),
        (False, TTL + 1, True),
        (True, ASIDE_SECONDS - 1, False),
        (True, ASIDE_SECONDS + 1, True),
    ],
)
def test_when_a_blob_is_due(aside: bool, age: float, due: bool) -> None:
    assert Lifetime(TTL).is_due(Kept("a", 1e9, aside), 1e9 + age) is due
    assert Lifetime(10.0).is_due(Kept("a", 1e9, aside), 1e9 + 11)


@pytest.mark.parametrize(
    ("aside", "named", "step"),
    [
        (False, True, None),
        (False, False, "set aside"),
        (True, True, "bring back"),
        (True, False, "remove"),
    ],
)
def test_what_is_done_with_it(aside: bool, named: bool, step: Step | None) -> None:
    assert Lifetime(TTL).step(Kept("a", 0.0, aside), {"a"} if named else {"b"}) == step


def test_what_nothing_names_is_set_aside_and_then_removed(tmp_path: Path) -> None:
    async def run() -> None:
        it = World(tmp_path / "blobs")
        reference = await it.store.put(b"large", "text/plain")
        await it.later(TTL - 60)
        assert await it.aside() == [False]
        await it.later(120)
        assert await it.aside() == [True]
        assert await it.is_there(reference)
        # It was set aside by the machine's clock, which stands where the other one started.
        await it.later(ASIDE_SECONDS)
        assert not await it.is_there(reference)
        assert it.stats.blobs_removed == 1
        assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []

    asyncio.run(run())


@pytest.mark.parametrize("in_data", [False, True])
@pytest.mark.parametrize(
    "stream", [names.broker_stream(BROKER), names.dead_stream(BROKER), names.groups_stream("default/t"), "x"]
)
def test_what_an_event_names_stays_for_as_long_as_the_event(
    stream: str, in_data: bool, tmp_path: Path
) -> None:
    async def run() -> None:
        it = World(tmp_path)
        reference = await it.store.put(b"large")
        key = await it.name(stream, reference, in_data=in_data)
        for _ in range(4):
            await it.later(TTL)
            assert await it.aside() == [False]
        await it.log.purge(stream, key)
        await it.later(60)
        await it.later(ASIDE_SECONDS + 60)
        assert not await it.is_there(reference)

    asyncio.run(run())


def test_what_is_declared_names_blobs_too(tmp_path: Path) -> None:
    async def run() -> None:
        it = World(tmp_path)
        reference = await it.store.put(b"large")
        it.declared.append(f'{{"extensions": {{"dataref": "{reference}"}}}}')
        await it.later(2 * TTL)
        await it.later(2 * TTL)
        assert await it.aside() == [False]

    asyncio.run(run())


def test_what_is_named_or_stored_while_it_is_aside_comes_back(tmp_path: Path) -> None:
    async def run() -> None:
        it = World(tmp_path)
        named, stored = await it.store.put(b"named"), await it.store.put(b"stored")
        await it.later(TTL + 60)
        assert await it.aside() == [True, True]
        await it.name(names.broker_stream(BROKER), named)
        await it.store.put(b"stored")
        await it.later(ASIDE_SECONDS + 60)
        assert await it.is_there(named)
        assert await it.is_there(stored)
        assert it.stats.blobs_removed == 1  # what was aside; what was stored since is another

    asyncio.run(run())


def test_a_log_that_cannot_be_read_removes_nothing(tmp_path: Path) -> None:
    class Broken(MemoryLog):
        def read(self, stream: str, key: str, *, since: float = 0.0) -> AsyncIterator[Stored]:
            raise EventLogError("away")

    async def run() -> None:
        it = World(tmp_path)
        reference = await it.store.put(b"large")
        broken = Broken(it.clock)
        await broken.ensure_stream(StreamSpec(names.broker_stream(BROKER)))
        sweep = BlobSweep(broken, it.keeper, it.clock, it.stats, TTL, lambda: ())
        await it.clock.advance(TTL + 60, lambda: asyncio.sleep(0))
        with pytest.raises(EventLogError):
            await sweep.sweep()
        assert await it.aside() == [False]
        assert await it.is_there(reference)

    asyncio.run(run())


class Faulty(ObjectPlace):
    failures = 0

    async def tidy(self, before: float) -> None:
        if self.failures:
            self.failures -= 1
            raise BlobError("away")
        await super().tidy(before)


async def until(wanted: object, ask: object) -> None:
    async with asyncio.timeout(20):
        while ask() != wanted:  # type: ignore[operator]
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("ttl_seconds", [TTL, 0.0])
def test_it_runs_now_and_then_and_again_after_a_failure(ttl_seconds: float, tmp_path: Path) -> None:
    async def run() -> None:
        it = World(tmp_path, ttl_seconds)
        reference = await it.store.put(b"large")
        faulty = Faulty(tmp_path.as_uri())
        faulty.failures = 1
        sweep = BlobSweep(it.log, faulty, it.clock, it.stats, ttl_seconds, lambda: ())
        running = asyncio.create_task(sweep.run())
        try:
            await it.clock.advance(TTL + FIRST_SECONDS, lambda: asyncio.sleep(0))
            await until(1, lambda: it.stats.blob_sweeps_failed)
            for _ in range(3):
                await until(1, lambda: len(it.clock._sleepers))
                await it.clock.advance(2 * EVERY_SECONDS, lambda: asyncio.sleep(0))
            await until(1, lambda: len(it.clock._sleepers))
            assert await it.is_there(reference) is (ttl_seconds == 0)
        finally:
            await cancel(running)

    asyncio.run(run())


def test_the_service_keeps_what_schedules_name_and_removes_the_rest(tmp_path: Path) -> None:
    async def run() -> None:
        it = World(tmp_path)
        named, other = await it.store.put(b"named"), await it.store.put(b"other")
        options = BlobOptions(tmp_path.as_uri(), it.keeper, TTL, 1024)
        service = Service(it.log, it.clock, blobs=options)
        schedule = Schedule(
            metadata=Metadata(name="s"),
            spec=ScheduleSpec(cron="0 0 1 1 *", event=ScheduledEvent(extensions={"dataref": named})),
        )
        keeping = asyncio.create_task(service.keep_blobs())
        try:
            await service.declare(Declaration(schedules=(schedule,)))
            await it.clock.advance(TTL + FIRST_SECONDS, lambda: asyncio.sleep(0))

            async def hours() -> None:
                # It is counted after it has gone.
                while b"torpor_blobs_removed_total 1.0" not in generate_latest(service.registry):
                    await it.clock.advance(EVERY_SECONDS, lambda: asyncio.sleep(0))
                    await asyncio.sleep(0.005)

            await asyncio.wait_for(hours(), 20)
            assert await it.is_there(named)
            assert not await it.is_there(other)
        finally:
            await cancel(keeping)
            await service.close(0.0)

    asyncio.run(run())
