"""Backlog limits on real brokers: producers are refused, or the oldest are moved, and no event is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import httpx
import pytest

from tests.integration.events.process import PATIENCE_SECONDS, EventsProcess, Functions, Kafka, nats_in, until
from torpor.errors import EventLogError
from torpor.events.declaration import Declaration
from torpor.spec.letters import LetterSelection
from torpor.spec.models import Backlog, Metadata, Subscriber, Trigger, TriggerSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.events.process import Server
    from torpor.binding import WireEvent

LIMIT, PARALLELISM = 50, 4
EVENT = {"ce-specversion": "1.0", "ce-source": "/s", "ce-type": "work"}
BROKERS = ["nats", "kafka"]


class _Gated(Functions):
    """``work`` waits until it is let go."""

    def __init__(self) -> None:
        super().__init__(0)
        self.gate = asyncio.Event()
        self.worked: Counter[str] = Counter()

    async def app(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        await self.gate.wait()
        await super().app(scope, receive, send)

    def work(self, events: list[WireEvent]) -> list[WireEvent]:
        self.worked.update(each.id for each in events)
        return []


def _declaration(functions: Functions, on_limit: Literal["reject", "deadLetterOldest"]) -> Declaration:
    spec = TriggerSpec(
        subscriber=Subscriber(function="work"),
        parallelism=PARALLELISM,
        backlog=Backlog(limit=LIMIT, on_limit=on_limit),
    )
    trigger = Trigger(metadata=Metadata(name="t"), spec=spec)
    return Declaration(triggers=(trigger,), gateway=str(functions.endpoint))


@asynccontextmanager
async def _process(
    folder: Path, server: Server, functions: Functions, declaration: Declaration
) -> AsyncIterator[EventsProcess]:
    folder.mkdir(exist_ok=True)
    events = EventsProcess(folder, server)
    await events.start()
    try:
        await until_declared(events, declaration)
        yield events
    finally:
        await events.close()


async def until_declared(events: EventsProcess, declaration: Declaration) -> None:
    async def told() -> bool:
        try:
            await events.client.declare(declaration)
        except EventLogError:  # it is starting
            return False
        return True

    await until(told)


@asynccontextmanager
async def _gated() -> AsyncIterator[_Gated]:
    functions, ready, end = _Gated(), asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(functions.serve(ready, end))
    await ready.wait()
    try:
        yield functions
    finally:
        functions.gate.set()
        end.set()
        await serving


@pytest.fixture
def shared_kafka(request: pytest.FixtureRequest) -> Any:
    """Kafka, where the test asks for it."""
    wanted = request.node.callspec.params.get("broker") == "kafka"
    return request.getfixturevalue("kafka") if wanted else None


def _server(folder: Path, shared_kafka: Any) -> Any:
    return nats_in(folder) if shared_kafka is None else nullcontext(Kafka(shared_kafka))


async def _send(client: httpx.AsyncClient, url: str, event_id: str) -> httpx.Response:
    return await client.post(f"{url}/events/default/default", headers={**EVENT, "ce-id": event_id})


async def _pending(events: EventsProcess) -> int:
    counts = (await events.client.state()).counts("default/t")
    return counts.pending if counts is not None else -1


@pytest.mark.parametrize("broker", BROKERS)
def test_producers_are_refused_and_what_was_taken_in_is_delivered(
    tmp_path: Path, broker: str, shared_kafka: Any
) -> None:
    async def run() -> None:
        async with _server(tmp_path, shared_kafka) as server, _gated() as functions:
            declaration = _declaration(functions, "reject")
            async with (
                _process(tmp_path / "one", server, functions, declaration) as events,
                httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client,
            ):
                answers = await asyncio.gather(*(_send(client, events.url, str(n)) for n in range(3 * LIMIT)))
                accepted = [n for n, one in enumerate(answers) if one.status_code == 202]
                refused = [one for one in answers if one.status_code == 429]
                assert len(accepted) == LIMIT
                assert len(refused) == 2 * LIMIT
                assert all(1 <= int(one.headers["retry-after"]) <= 60 for one in refused)
                assert {one.json()["trigger"] for one in refused} == {"default/t"}
                assert await _pending(events) == LIMIT
                functions.gate.set()

                async def nothing_waits() -> bool:
                    return await _pending(events) == 0

                await until(nothing_waits)
                assert functions.worked == Counter(str(n) for n in accepted)
                assert (await _send(client, events.url, "more")).status_code == 202

    asyncio.run(run())


@pytest.mark.parametrize("broker", BROKERS)
def test_two_processes_go_over_by_no_more_than_what_they_take_in_between_two_counts(
    tmp_path: Path, broker: str, shared_kafka: Any
) -> None:
    async def run() -> None:
        async with _server(tmp_path, shared_kafka) as server, _gated() as functions:
            declaration = _declaration(functions, "reject")
            async with (
                _process(tmp_path / "one", server, functions, declaration) as one,
                _process(tmp_path / "two", server, functions, declaration) as two,
                httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client,
            ):
                refused: Counter[str] = Counter()
                accepted: list[str] = []

                async def flood(url: str, who: str) -> None:
                    number = 0
                    while refused[who] < 5:
                        number += 1
                        answer = await _send(client, url, f"{who}-{number}")
                        if answer.status_code == 202:
                            accepted.append(f"{who}-{number}")
                        else:
                            assert answer.status_code == 429
                            refused[who] += 1

                await asyncio.gather(*(flood(events.url, who) for who, events in (("a", one), ("b", two))))
                # Each may fill by itself what it knew to be free.
                assert LIMIT <= len(accepted) <= 2 * LIMIT
                functions.gate.set()

                async def nothing_waits() -> bool:
                    return await _pending(one) == 0

                await until(nothing_waits)
                assert set(functions.worked) == set(accepted)

    asyncio.run(run())


@pytest.mark.parametrize("broker", BROKERS)
def test_the_oldest_are_moved_to_dead_letters(tmp_path: Path, broker: str, shared_kafka: Any) -> None:
    async def run() -> None:
        async with _server(tmp_path, shared_kafka) as server, _gated() as functions:
            declaration = _declaration(functions, "deadLetterOldest")
            async with (
                _process(tmp_path / "one", server, functions, declaration) as events,
                httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client,
            ):
                for number in range(3 * LIMIT):
                    assert (await _send(client, events.url, str(number))).status_code == 202

                async def moved() -> bool:
                    return await _pending(events) <= LIMIT

                await until(moved)
                letters = [each async for each in await events.client.dead_letters(LetterSelection())]
                under_way = [str(number) for number in range(PARALLELISM)]
                assert not {each.event_id for each in letters} & set(under_way)
                assert {(each.code, each.attempts) for each in letters} == {(429, 0)}
                assert "backlog.limit" in letters[0].reason
                functions.gate.set()

                async def nothing_waits() -> bool:
                    return await _pending(events) == 0

                await until(nothing_waits)
                letters = [each async for each in await events.client.dead_letters(LetterSelection())]
                ids = [*functions.worked, *(each.event_id for each in letters)]
                assert sorted(ids) == sorted(str(number) for number in range(3 * LIMIT))
                newest = {str(number) for number in range(3 * LIMIT - LIMIT // 2, 3 * LIMIT)}
                assert newest <= set(functions.worked)

    asyncio.run(run())


def test_while_nats_stands_still_producers_are_told_to_come_again(tmp_path: Path) -> None:
    """Also those that send batches, of which few are written at once."""

    async def run() -> None:
        async with nats_in(tmp_path) as nats, _gated() as functions:
            declaration = _declaration(functions, "reject")
            async with (
                _process(tmp_path / "one", nats, functions, declaration) as events,
                httpx.AsyncClient(
                    timeout=PATIENCE_SECONDS, limits=httpx.Limits(max_connections=200)
                ) as client,
            ):
                assert (await _send(client, events.url, "before")).status_code == 202
                assert nats.pid is not None
                os.kill(nats.pid, signal.SIGSTOP)
                try:
                    batches = (
                        client.post(
                            f"{events.url}/events/default/default",
                            headers={"content-type": "application/cloudevents-batch+json"},
                            content=_batch(f"batch-{number}"),
                        )
                        for number in range(60)
                    )
                    singles = (_send(client, events.url, f"single-{number}") for number in range(60))
                    answers = await asyncio.gather(*singles, *batches)
                finally:
                    os.kill(nats.pid, signal.SIGCONT)
                assert {one.status_code for one in answers} == {503}
                assert all(1 <= int(one.headers["retry-after"]) <= 30 for one in answers)

                async def taken() -> bool:
                    return (await _send(client, events.url, "after")).status_code == 202

                functions.gate.set()
                await until(taken)

                async def worked() -> bool:
                    return functions.worked["before"] > 0 and functions.worked["after"] > 0

                await until(worked)

    asyncio.run(run())


def _batch(name: str) -> bytes:
    events = (
        f'{{"specversion": "1.0", "id": "{name}-{number}", "source": "/s", "type": "work"}}'
        for number in "ab"
    )
    return f"[{','.join(events)}]".encode()
