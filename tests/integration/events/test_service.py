"""The events process: control API, counters over a restart, what happens without NATS, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.integration.events.process import PATIENCE_SECONDS, EventsProcess, Functions, until
from torpor.errors import EventLogError
from torpor.events.declaration import Declaration
from torpor.events.nats_server import NatsServer
from torpor.spec.letters import DeadLetter, LetterAction, LetterSelection
from torpor.spec.models import Delivery, Filter, Metadata, Subscriber, Trigger, TriggerSpec
from torpor.spec.replays import Replay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from torpor.binding import WireEvent

EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "done"}
TRIGGER = Trigger(metadata=Metadata(name="t"), spec=TriggerSpec(subscriber=Subscriber(function="swallow")))


class _Swallow(Functions):
    def __init__(self) -> None:
        super().__init__(0)
        self.swallowed: list[str] = []

    def swallow(self, events: list[WireEvent]) -> list[WireEvent]:
        self.swallowed += [event.id for event in events]
        return []


@asynccontextmanager
async def _running(
    folder: Path, functions: Functions | None = None, trigger: Trigger = TRIGGER
) -> AsyncIterator[tuple[NatsServer, EventsProcess]]:
    nats = NatsServer(folder / "nats")
    await nats.start()
    functions, ready, end = functions or _Swallow(), asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(functions.serve(ready, end))
    await ready.wait()
    events = EventsProcess(folder, nats)
    events.declaration = Declaration(triggers=(trigger,), gateway=str(functions.endpoint))
    await events.start()
    try:
        yield nats, events
    finally:
        await events.close()
        end.set()
        await serving
        await nats.close()


async def _post(url: str, event_id: str = "1", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_SECONDS) as client:
        return await client.post("/events/default/default", headers={**EVENT, "ce-id": event_id, **headers})


def test_requests_wait_until_the_process_knows_what_to_do(tmp_path: Path) -> None:
    async def run() -> None:
        async with _running(tmp_path) as (_, events):
            posting = asyncio.create_task(_post(events.url))

            async def answers() -> bool:
                try:
                    return not (await events.client.health()).declared
                except EventLogError:  # on a busy machine its start takes longer than a call may
                    return False

            await until(answers)
            assert not posting.done()
            await events.client.declare(events.declaration)
            assert (await posting).status_code == 202
            health = await events.client.health()
            assert (health.connected, health.declared) == (True, True)

    asyncio.run(run())


def test_counters_and_events_outlast_the_process(tmp_path: Path) -> None:
    async def run() -> None:
        async with _running(tmp_path) as (_, events):
            await events.client.declare(events.declaration)
            for event_id in ("1", "2", "2"):
                assert (await _post(events.url, event_id)).status_code == 202
            refused = await _post(events.url, "3", **{"ce-type": ""})
            assert refused.status_code == 400

            async def delivered() -> bool:
                counts = (await events.client.state()).counts("default/t")
                return counts is not None and (counts.delivered, counts.pending) == (2, 0)

            await until(delivered)
            before = await events.client.state()
            assert await events.terminate() == 0
            await events.start()
            await events.client.declare(events.declaration)
            after = await events.client.state()
            assert after == before
            assert after.published("default/default") == 2
            assert after.refused == {"malformed-event": 1}
            metrics = await events.client.metrics()
            assert 'torpor_events_published_total{broker="default",namespace="default"} 2.0' in metrics

    asyncio.run(run())


def test_filters_by_expression_and_on_data_let_through_what_they_should(tmp_path: Path) -> None:
    filters = (
        Filter(sql="type IN ('made', 'done') AND subject LIKE 'a%'"),
        Filter(not_=Filter(exact={"data.order.country": "de"})),
    )
    trigger = Trigger(
        metadata=Metadata(name="t"),
        spec=TriggerSpec(filters=filters, subscriber=Subscriber(function="swallow")),
    )
    cases = {
        "1": ({"ce-type": "made", "ce-subject": "ab"}, {"order": {"country": "fr"}}),
        "2": ({"ce-type": "made", "ce-subject": "b"}, {"order": {"country": "fr"}}),
        "3": ({"ce-type": "sold", "ce-subject": "ab"}, {"order": {"country": "fr"}}),
        "4": ({"ce-type": "done", "ce-subject": "ab"}, {"order": {"country": "de"}}),
        "5": ({"ce-type": "made"}, {}),
        "6": ({"ce-type": "done", "ce-subject": "a"}, {}),
    }

    async def run() -> None:
        functions = _Swallow()
        async with _running(tmp_path, functions, trigger) as (_, events):
            await events.client.declare(events.declaration)
            async with httpx.AsyncClient(base_url=events.url, timeout=PATIENCE_SECONDS) as client:
                for event_id, (headers, data) in cases.items():
                    sent = {**EVENT, "ce-id": event_id, **headers}
                    answer = await client.post("/events/default/default", headers=sent, json=data)
                    assert answer.status_code == 202

            async def done() -> bool:
                counts = (await events.client.state()).counts("default/t")
                return counts is not None and (counts.delivered, counts.pending) == (2, 0)

            await until(done)
        assert sorted(functions.swallowed) == ["1", "6"]

    asyncio.run(run())


def test_tail_gives_events_as_they_come_and_says_when_it_ends(tmp_path: Path) -> None:
    async def run() -> None:
        async with _running(tmp_path) as (nats, events):
            await events.client.declare(events.declaration)
            await _post(events.url, "before")
            tail = await events.client.tail("default/default")
            await _post(events.url, "1")
            async with asyncio.timeout(PATIENCE_SECONDS):
                new = await anext(tail)
            assert (new.id, new.attributes.get("torporreplay")) == ("1", None)
            until_now = datetime.now(UTC) + timedelta(minutes=1)
            again = Replay(since=until_now - timedelta(hours=1), until=until_now, run="a" * 32)
            page = await events.client.replay_events("default/default", again)
            assert [each.id for each in page.items] == ["before", "1"]
            async with asyncio.timeout(PATIENCE_SECONDS):
                replayed = [await anext(tail), await anext(tail)]
            told = [(each.id, each.attributes.get("torporreplay")) for each in replayed]
            assert told == [("before", "true"), ("1", "true")]
            pid = nats.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)

            async def taken_in() -> bool:
                return (await _post(events.url, "2")).status_code == 202

            await until(taken_in)
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert (await anext(tail)).id == "2"
            await events.terminate()
            with pytest.raises(EventLogError):
                await anext(tail)
            with pytest.raises(EventLogError):
                await events.client.state()

    asyncio.run(run())


def test_tail_of_an_unknown_broker_is_an_error(tmp_path: Path) -> None:
    async def run() -> None:
        async with _running(tmp_path) as (_, events):
            await events.client.declare(events.declaration)
            with pytest.raises(EventLogError, match="stream not found"):
                await events.client.tail("default/other")

    asyncio.run(run())


def test_without_nats_producers_are_asked_to_come_again(tmp_path: Path) -> None:
    async def run() -> None:
        async with _running(tmp_path) as (nats, events):
            await events.client.declare(events.declaration)
            await nats.close()

            async def away() -> bool:
                return not (await events.client.health()).connected

            await until(away)
            response = await _post(events.url)
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            state = await events.client.state()
            assert "NATS" in state.problem("default/t")

            await nats.start()

            async def taken_in() -> bool:
                return (await _post(events.url)).status_code == 202

            await until(taken_in)

            async def delivered() -> bool:
                counts = (await events.client.state()).counts("default/t")
                return counts is not None and counts.delivered == 1

            await until(delivered)

    asyncio.run(run())


def test_the_process_ends_with_its_platform(tmp_path: Path) -> None:
    async def run() -> None:
        async with _running(tmp_path) as (_, events):
            await events.client.declare(events.declaration)
            process = events.process
            assert process is not None
            assert process.stdin is not None
            process.stdin.close()
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await process.wait() == 0

    asyncio.run(run())


@pytest.mark.parametrize("line", [b"", b"{}", b"no json\n"])
def test_a_wrong_configuration_is_said_to_be(line: bytes, tmp_path: Path) -> None:
    async def run() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "torpor.events", "3", "4"),
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate(line)
        assert process.returncode == 2
        assert b"wrong configuration" in said
        assert b"Traceback" not in said

    asyncio.run(run())


class _Broken(Functions):
    """Takes nothing until it is mended."""

    mended = False

    def swallow(self, events: list[WireEvent]) -> list[WireEvent]:
        if not self.mended:
            raise RuntimeError("it is broken")
        return []


def test_dead_letters_are_told_replayed_and_dropped(tmp_path: Path) -> None:
    async def run() -> None:
        functions = _Broken(0)
        trigger = TRIGGER.model_copy(
            update={"spec": TRIGGER.spec.model_copy(update={"delivery": Delivery(retry=0)})}
        )
        async with _running(tmp_path, functions, trigger) as (_, events):
            await events.client.declare(events.declaration)
            for number in range(3):
                assert (await _post(events.url, str(number))).status_code == 202

            async def letters(**selection: Any) -> list[DeadLetter]:
                found = await events.client.dead_letters(LetterSelection(**selection))
                return [each async for each in found]

            async def dead() -> bool:
                return len(await letters()) == 3

            await until(dead)
            first, second, third = sorted(await letters(), key=lambda each: each.event_id)
            assert (first.trigger, first.function, first.code) == ("default/t", "default/swallow", 500)
            assert [each.id for each in await letters(filters=["id=1"], triggers=["default/t"])] == [
                second.id
            ]
            whole = await events.client.dead_letter(second.id)
            assert whole is not None
            assert whole.event is not None
            assert whole.event["id"] == "1"
            assert await events.client.dead_letter("0" * 28) is None
            assert await events.client.dead_letter("../x") is None
            functions.mended = True
            [would] = await events.client.replay(LetterAction(ids=(first.id,), dry_run=True))
            assert would.outcome == "replayed"
            assert len(await letters()) == 3
            outcomes = await events.client.replay(LetterAction(ids=(first.id, second.id)))
            assert [each.outcome for each in outcomes] == ["replayed", "replayed"]
            assert [each.id for each in await letters()] == [third.id]

            async def delivered() -> bool:
                counts = (await events.client.state()).counts("default/t")
                return counts is not None and (counts.delivered, counts.pending) == (2, 0)

            await until(delivered)
            [dropped, unknown] = await events.client.drop(LetterAction(ids=(third.id, first.id)))
            assert (dropped.outcome, unknown.outcome) == ("dropped", "unknown")
            assert await letters() == []
            assert functions.calls["swallow"] == 5

    asyncio.run(run())
