"""The events process, killed in the middle of joining many parts: each group has exactly one result."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.integration.events.process import (
    PATIENCE_SECONDS,
    EventsProcess,
    Functions,
    Kafka,
    Server,
    nats_in,
    until,
)
from torpor.binding import WireEvent
from torpor.clock import SystemClock
from torpor.events import names
from torpor.events.brokers import connect
from torpor.events.declaration import Declaration
from torpor.events.intake import append_events
from torpor.runtime import groups
from torpor.spec.models import Delivery, Filter, Join, Metadata, Subscriber, Trigger, TriggerSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from torpor.events.log import EventLog

BROKER = "default/default"
INNER, PARTS = 10, 100
OPEN = 300
_MIB = b"x" * 1024 * 1024


def _event(event_id: str, kind: str, place: dict[str, str], data: bytes = b"") -> WireEvent:
    attributes = {"specversion": "1.0", "id": event_id, "source": "/test", "type": kind}
    return WireEvent({**attributes, "datacontenttype": "text/plain", **place}, data)


class Nesting(Functions):
    """``split`` makes groups within groups, and ``join`` says how many parts there were."""

    def split(self, events: list[WireEvent]) -> list[WireEvent]:
        [event] = events
        kind, size = ("inner", INNER) if event.type == "outer" else ("part", PARTS)
        outer = groups.outer_of_parts(event.attributes)
        return [
            _event(f"{event.id}/{index}", kind, groups.part(event.id, index, size, outer))
            for index in range(size)
        ]

    def join(self, events: list[WireEvent]) -> list[WireEvent]:
        first = events[0]
        place = groups.restored(first.attributes)
        group = first.attributes[groups.ID]
        return [_event(f"{group}/joined", f"{first.type}.joined", place, b"%d" % len(events))]


def _trigger(event_type: str, function: str, join: Join | None = None) -> Trigger:
    return Trigger(
        metadata=Metadata(name=event_type.replace(".", "-")),
        spec=TriggerSpec(
            filters=(Filter(exact={"type": event_type}),),
            subscriber=Subscriber(function=function),
            delivery=Delivery(retry=50, backoff_policy="linear", backoff_delay_seconds=0.05),
            join=join,
        ),
    )


@dataclass
class _Rig:
    log: EventLog
    events: EventsProcess
    functions: Nesting
    triggers: tuple[Trigger, ...]

    async def start(self) -> None:
        await self.events.start()
        declaration = Declaration(
            triggers=self.triggers, brokers=(BROKER,), gateway=str(self.functions.endpoint)
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.events.client.declare(declaration)

    async def kill_at(self, calls_of_join: int) -> None:
        async def reached() -> bool:
            return self.functions.calls.get("join", 0) >= calls_of_join

        await until(reached)
        await self.events.kill()
        await self.start()

    async def publish(self, *events: WireEvent) -> None:
        await append_events(self.log, BROKER, events)

    async def results(self, event_type: str) -> list[bytes]:
        stream = names.broker_stream(BROKER)
        return [each.event.data or b"" async for each in self.log.read(stream, names.token(event_type))]

    async def until_quiet(self) -> None:
        async def quiet() -> bool:
            state = await self.events.client.state()
            waits = any(each.problem or each.pending for each in state.triggers.values())
            return not waits and not await self.left()  # a group is removed after it was acknowledged

        await until(quiet)

    async def left(self) -> list[str]:
        """The keys in the streams that shall be empty: of dead letters, parts and endings."""
        return await self.dead() + await self.held()

    async def dead(self) -> list[str]:
        """The ids of the events that are dead letters."""
        return [each.event.id async for each in self.log.read(names.dead_stream(BROKER), ">")]

    async def held(self) -> list[str]:
        """The keys of parts and endings."""
        found: list[str] = []
        for stream in await self.log.streams():
            if stream.startswith(f"{names.GROUPS}."):
                found += [stored.key async for stored in self.log.read(stream, ">")]
        return [key for key in found if not key.startswith("turn.")]


@asynccontextmanager
async def _rig(folder: Path, server: Server, *triggers: Trigger, blobs: bool = True) -> AsyncIterator[_Rig]:
    functions, ready, end = Nesting(0), asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(functions.serve(ready, end))
    await ready.wait()
    log = await connect(server.broker, SystemClock())
    rig = _Rig(log, EventsProcess(folder, server, blobs=blobs), functions, triggers)
    try:
        await rig.start()
        yield rig
    finally:
        await rig.events.close()
        await log.close()
        end.set()
        await serving


@pytest.fixture(params=["nats", "kafka"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    if request.param == "nats":
        return nats_in(tmp_path, sync="interval")
    return nullcontext(Kafka(request.getfixturevalue("kafka")))


def test_groups_within_a_group_have_one_result_each(server: nullcontext[Server], tmp_path: Path) -> None:
    triggers = (
        _trigger("outer", "split"),
        _trigger("inner", "split"),
        _trigger("part", "join", Join()),
        _trigger("part.joined", "join", Join()),
    )

    async def run() -> None:
        async with server as broker, _rig(tmp_path, broker, *triggers) as rig:
            await rig.publish(_event("g", "outer", {}))
            for calls_of_join in (1, INNER // 2):
                await rig.kill_at(calls_of_join)

            async def done() -> bool:
                return len(await rig.results("part.joined.joined")) > 0

            await until(done)
            await rig.until_quiet()
            assert await rig.results("part.joined") == [b"%d" % PARTS] * INNER
            assert await rig.results("part.joined.joined") == [b"%d" % INNER]

    asyncio.run(run())


def test_groups_that_run_out_of_time_have_one_result_each(
    server: nullcontext[Server], tmp_path: Path
) -> None:
    partial = _trigger("part", "join", Join(timeout_seconds=1.0, on_timeout="partial"))

    async def run() -> None:
        async with server as broker, _rig(tmp_path, broker, partial) as rig:
            first_parts = (groups.part(f"g{number}", 0, 3, None) for number in range(OPEN))
            await rig.publish(*(_event(place["fanoutid"], "part", place) for place in first_parts))
            await rig.kill_at(OPEN // 3)

            async def done() -> bool:
                return len(await rig.results("part.joined")) >= OPEN

            await until(done)
            await rig.until_quiet()
            assert await rig.results("part.joined") == [b"1"] * OPEN

    asyncio.run(run())


def test_a_group_too_large_to_send_becomes_each_part_one_dead_letter(
    server: nullcontext[Server], tmp_path: Path
) -> None:
    """Without a blob store, by a process that is killed when some of them are there."""
    size = 80  # of 1 MiB each, where 64 MiB are sent at most

    async def run() -> None:
        async with (
            server as broker,
            _rig(tmp_path, broker, _trigger("part", "join", Join()), blobs=False) as rig,
        ):
            for index in range(size):
                await rig.publish(_event(f"{index}", "part", groups.part("g", index, size, None), _MIB))

            async def begun() -> bool:
                return len(await rig.dead()) > 0

            await until(begun)
            await rig.events.kill()
            if len(await rig.dead()) < size:
                assert len(await rig.held()) == size + 1, "nothing goes before all are dead letters"
            await rig.start()

            async def done() -> bool:
                return len(await rig.dead()) >= size and not await rig.held()

            await until(done)
            assert sorted(await rig.dead(), key=int) == [f"{index}" for index in range(size)]
            assert rig.functions.calls == {}

    asyncio.run(run())
