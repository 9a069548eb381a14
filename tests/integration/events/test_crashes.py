"""The events process and a real broker, killed in the middle of fan-outs: nothing is lost or doubled."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING

import httpx
import orjson
import pytest

from tests.integration.events.process import (
    PATIENCE_SECONDS,
    EventsProcess,
    Functions,
    Kafka,
    Nats,
    Server,
    kill_nats,
    nats_in,
    until,
)
from torpor.clock import SystemClock
from torpor.events.brokers import connect
from torpor.events.declaration import Declaration
from torpor.events.nats_server import NatsServer
from torpor.spec.models import Delivery, Filter, Join, Metadata, Subscriber, Trigger, TriggerSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

GROUPS, TILES = 25, 20


def _trigger(name: str, event_type: str, function: str, join: Join | None = None) -> Trigger:
    return Trigger(
        metadata=Metadata(name=name),
        spec=TriggerSpec(
            filters=(Filter(exact={"type": event_type}),),
            subscriber=Subscriber(function=function),
            delivery=Delivery(retry=50, backoff_policy="linear", backoff_delay_seconds=0.05),
            join=join,
        ),
    )


TRIGGERS = (
    _trigger("to-split", "upload", "split"),
    _trigger("to-work", "tile", "work"),
    _trigger("to-join", "tile.done", "join", Join()),
)


class _Rig:
    def __init__(self, server: Server, events: EventsProcess, functions: Functions) -> None:
        self.server, self.events, self.functions = server, events, functions

    async def declare(self) -> None:
        declaration = Declaration(
            triggers=TRIGGERS, brokers=("default/default",), gateway=str(self.functions.endpoint)
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.events.client.declare(declaration)

    async def publish_all(self) -> None:
        async with httpx.AsyncClient(base_url=self.events.url, timeout=30) as client:
            for number in range(GROUPS):
                await self._publish(client, f"g{number}")

    async def _publish(self, client: httpx.AsyncClient, event_id: str) -> None:
        headers = {"ce-specversion": "1.0", "ce-id": event_id, "ce-source": "/test", "ce-type": "upload"}
        while True:  # a producer that got no answer sends it again
            try:
                response = await client.post("/events/default/default", headers=headers)
            except httpx.TransportError:
                continue
            if response.status_code == 202:
                return
            assert response.status_code == 503

    async def outcome(self) -> tuple[list[str], list[list[int]], list[str]]:
        return await outcome(self.server)

    async def done(self) -> bool:
        ids, _, _ = await self.outcome()
        return len(ids) >= GROUPS

    async def quiet(self) -> bool:
        state = await self.events.client.state()
        return all(report.pending == 0 for report in state.triggers.values())


async def outcome(server: NatsServer | Server) -> tuple[list[str], list[list[int]], list[str]]:
    """Ids and data of the joined results, and the dead letters, as the log has them."""
    broker = Nats(server).broker if isinstance(server, NatsServer) else server.broker
    log = await connect(broker, SystemClock())
    try:
        joined = [s.event async for s in log.read("broker.default.default", "joined")]
        dead = [s.event.attributes["torporerror"] async for s in log.read("dead.default.default", ">")]
    finally:
        await log.close()
    return [e.id for e in joined], [orjson.loads(e.data or b"") for e in joined], dead


@asynccontextmanager
async def _rig(folder: Path, server: Server) -> AsyncIterator[_Rig]:
    functions, ready, end = Functions(TILES), asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(functions.serve(ready, end))
    await ready.wait()
    events = EventsProcess(folder, server)
    await events.start()
    try:
        yield _Rig(server, events, functions)
    finally:
        await events.close()
        end.set()
        await serving


async def _kill_broker(rig: _Rig) -> None:
    await kill_nats(rig.server)


async def _kill_events(rig: _Rig) -> None:
    await rig.events.kill()
    await rig.events.start()
    await rig.declare()


async def _restart_events(rig: _Rig) -> None:
    assert await rig.events.terminate() == 0
    await rig.events.start()
    await rig.declare()


@pytest.mark.parametrize("disturb", [_kill_broker, _kill_events, _restart_events])
@pytest.mark.parametrize("broker", ["nats", "kafka"])
def test_nothing_is_lost_or_doubled(
    disturb: Callable[[_Rig], Awaitable[None]], broker: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    kept = nats_in(tmp_path) if broker == "nats" else nullcontext(Kafka(request.getfixturevalue("kafka")))

    async def run() -> None:
        async with kept as server, _rig(tmp_path, server) as rig:
            await rig.declare()
            publishing = asyncio.create_task(rig.publish_all())
            for share in (1, 4, 8):  # of all calls of `work`, in tenths: early, in the middle, late

                async def reached(share: int = share) -> bool:
                    return rig.functions.calls.get("work", 0) >= GROUPS * TILES * share // 10

                await until(reached)
                await disturb(rig)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await publishing
            await until(rig.done)
            await until(rig.quiet)
            ids, data, dead = await rig.outcome()
            assert dead == []
            assert sorted(ids) == sorted(f"g{number}/joined" for number in range(GROUPS))
            assert data == [list(range(TILES))] * GROUPS
            streams = await _streams(rig)
            assert streams == {"groups.default.to-join": 0}

    asyncio.run(run())


async def _streams(rig: _Rig) -> dict[str, int]:
    """How much the groups' streams still hold."""
    log = await connect(rig.server.broker, SystemClock())
    try:
        names = [name for name in await log.streams() if name.startswith("groups.")]
        keys = {name: [stored.key async for stored in log.read(name, ">")] for name in names}
        return {
            name: len([key for key in found if not key.startswith("turn.")]) for name, found in keys.items()
        }
    finally:
        await log.close()
