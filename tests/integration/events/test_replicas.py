"""Several events services on one real broker: each event is delivered once, however the lead moves."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.integration.events.process import (
    PATIENCE_SECONDS,
    Functions,
    Kafka,
    Server,
    kill_nats,
    nats_in,
    until,
)
from tests.integration.events.test_crashes import TRIGGERS, outcome
from torpor.binding import WireEvent
from torpor.children import tied
from torpor.clock import SystemClock
from torpor.events import names
from torpor.events.brokers import Broker, connect
from torpor.events.declaration import Declaration
from torpor.events.intake import append_events
from torpor.events.log import ConsumerSpec, EventLog
from torpor.spec.models import Filter, Metadata, Subscriber, Trigger, TriggerSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

GROUPS, TILES = 30, 20
BROKER = "default/default"


class _Replica:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, broker: Broker, declaration: Declaration) -> _Replica:
        process = await asyncio.create_subprocess_exec(
            *tied(sys.executable, "-m", "tests.integration.events.replica"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        made = cls(process)
        given = {
            "url": broker.url,
            "token": broker.token,
            "options": dict(broker.options),
            "declaration": declaration.model_dump(mode="json"),
        }
        await made.say(orjson.dumps(given), "declared")
        return made

    async def lead(self, leads: bool = True) -> None:
        word = "lead" if leads else "follow"
        await self.say(word.encode(), word)

    async def say(self, line: bytes, expected: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + b"\n")
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await self.process.stdout.readline()).decode().strip() == expected

    async def end(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.process.wait()


@dataclass
class _Counting(Functions):
    """Counts how often each event was worked on."""

    worked: Counter[str] = field(default_factory=Counter)
    joined: Counter[str] = field(default_factory=Counter)

    def work(self, events: list[WireEvent]) -> list[WireEvent]:
        self.worked.update(each.id for each in events)
        return super().work(events)

    def join(self, events: list[WireEvent]) -> list[WireEvent]:
        self.joined[events[0].attributes["fanoutid"]] += 1
        return super().join(events)


class _Rig:
    def __init__(self, server: Server, functions: _Counting, triggers: Sequence[Trigger]) -> None:
        self.server = server
        self.functions = functions
        self.declaration = Declaration(
            triggers=tuple(triggers), brokers=(BROKER,), gateway=str(functions.endpoint)
        )
        self.replicas: list[_Replica] = []

    async def add(self) -> _Replica:
        replica = await _Replica.start(self.server.broker, self.declaration)
        self.replicas.append(replica)
        return replica

    async def log(self) -> EventLog:
        return await connect(self.server.broker, SystemClock())

    async def upload(self, *ids: str) -> None:
        log = await self.log()
        events = [
            WireEvent({"specversion": "1.0", "id": each, "source": "/test", "type": "upload"}, None)
            for each in ids
        ]
        await append_events(log, BROKER, events)
        await log.close()

    async def worked(self, count: int) -> None:
        async def reached() -> bool:
            return len(self.functions.worked) >= count

        await until(reached)

    async def quiet(self) -> None:
        """Nothing waits any more, and all groups are cleared away."""
        log = await self.log()

        async def reached() -> bool:
            stream = names.broker_stream(BROKER)
            for name in await log.consumers(stream):
                consumer = await log.consumer(ConsumerSpec(stream, name), keep=True)
                waiting = await consumer.pending()
                await consumer.close()
                if waiting:
                    return False
            keys = [each.key async for each in log.read("groups.default.to-join", ">")]
            return not [key for key in keys if not key.startswith("turn.")]

        await until(reached)
        await log.close()


@pytest.fixture(params=["nats", "kafka"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AbstractAsyncContextManager[Server]:
    if request.param == "nats":
        return nats_in(tmp_path, sync="interval")
    return nullcontext(Kafka(request.getfixturevalue("kafka")))


@asynccontextmanager
async def _rig(
    broker: AbstractAsyncContextManager[Server], triggers: Sequence[Trigger] = TRIGGERS
) -> AsyncIterator[_Rig]:
    async with broker as server, _working(server, triggers) as rig:
        yield rig


@asynccontextmanager
async def _working(server: Server, triggers: Sequence[Trigger]) -> AsyncIterator[_Rig]:
    functions, ready, end = _Counting(TILES), asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(functions.serve(ready, end))
    await ready.wait()
    rig = _Rig(server, functions, triggers)
    try:
        yield rig
    finally:
        for replica in rig.replicas:
            await replica.end(signal.SIGKILL)
        end.set()
        await serving


def test_two_share_the_work_and_deliver_once(broker: AbstractAsyncContextManager[Server]) -> None:
    """Nothing is disturbed, so each function is called exactly once for each event and group."""

    async def run() -> None:
        async with _rig(broker) as rig:
            first, _ = await rig.add(), await rig.add()
            await first.lead()
            await rig.upload(*(f"g{number}" for number in range(GROUPS)))
            await _all_joined(rig)
            assert rig.functions.calls == {"split": GROUPS, "work": GROUPS * TILES, "join": GROUPS}
            assert set(rig.functions.worked.values()) == set(rig.functions.joined.values()) == {1}

    asyncio.run(run())


async def _hand_over(rig: _Rig) -> None:
    """In order: one follows before the other leads."""
    first, second = rig.replicas[-2:]
    await first.lead(False)
    await second.lead()
    rig.replicas.append(rig.replicas.pop(-2))


async def _seize(rig: _Rig) -> None:
    """Both lead for a while, as when the first does not notice that its lease has run out."""
    first, second = rig.replicas[-2:]
    await second.lead()
    await rig.worked(min(len(rig.functions.worked) + TILES, GROUPS * TILES))
    await first.lead(False)
    rig.replicas.append(rig.replicas.pop(-2))


async def _replace(rig: _Rig, number: signal.Signals) -> None:
    """The one that leads ends by that signal, the other leads, and a new one comes."""
    first, second = rig.replicas[-2:]
    await first.end(number)
    await second.lead()
    await rig.add()
    rig.replicas.append(rig.replicas.pop(-2))


async def _terminate(rig: _Rig) -> None:
    await _replace(rig, signal.SIGTERM)


@pytest.mark.parametrize("move", [_hand_over, _seize, _terminate])
def test_the_lead_moves_without_a_call_too_many(
    move: Callable[[_Rig], Awaitable[None]], broker: AbstractAsyncContextManager[Server]
) -> None:
    async def run() -> None:
        async with _rig(broker) as rig:
            await _disturbed(rig, move)
            assert set(rig.functions.worked.values()) == set(rig.functions.joined.values()) == {1}

    asyncio.run(run())


async def _kill(rig: _Rig) -> None:
    await _replace(rig, signal.SIGKILL)


async def _kill_broker(rig: _Rig) -> None:
    await kill_nats(rig.server)


@pytest.mark.parametrize("disturb", [_kill, _kill_broker])
def test_nothing_is_lost_or_doubled(
    disturb: Callable[[_Rig], Awaitable[None]], broker: AbstractAsyncContextManager[Server]
) -> None:
    """What was under way in a killed process may be called again; what comes of it counts once."""

    async def run() -> None:
        async with _rig(broker) as rig:
            await _disturbed(rig, disturb)

    asyncio.run(run())


async def _disturbed(rig: _Rig, disturb: Callable[[_Rig], Awaitable[None]]) -> None:
    """Two services at work on all groups, and ``disturb`` three times in the middle of it."""
    first, _ = await rig.add(), await rig.add()
    await first.lead()
    await rig.upload(*(f"g{number}" for number in range(GROUPS)))
    for share in (2, 5, 8):
        await rig.worked(GROUPS * TILES * share // 10)
        await disturb(rig)
    await _all_joined(rig)


async def _all_joined(rig: _Rig) -> None:
    """Every group was joined once, of all its tiles, and nothing is left over."""

    async def done() -> bool:
        ids, _, _ = await outcome(rig.server)
        return len(ids) >= GROUPS

    await until(done)
    await rig.quiet()
    ids, data, dead = await outcome(rig.server)
    assert dead == []
    assert sorted(ids) == sorted(f"g{number}/joined" for number in range(GROUPS))
    assert data == [list(range(TILES))] * GROUPS


def test_a_trigger_of_which_one_knows_more_loses_nothing(tmp_path: Path) -> None:
    """Its filters change; the one that has not heard of it lets nothing pass by that the new ones match."""

    def swallow(prefix: str) -> Trigger:
        spec = TriggerSpec(
            filters=(Filter(prefix={"type": prefix}),), subscriber=Subscriber(function="work"), parallelism=8
        )
        return Trigger(metadata=Metadata(name="some"), spec=spec)

    async def run() -> None:
        async with _rig(nats_in(tmp_path, sync="interval"), [swallow("other.")]) as rig:
            await rig.add()
            rig.declaration = rig.declaration.model_copy(update={"triggers": (swallow("upload"),)})
            newer = await rig.add()
            await rig.upload(*(f"e{number}" for number in range(200)))
            await rig.worked(200)
            assert set(rig.functions.worked.values()) == {1}
            await newer.end(signal.SIGTERM)

    asyncio.run(run())
