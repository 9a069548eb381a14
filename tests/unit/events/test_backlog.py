"""Backlog limits: what producers are told, what becomes a dead letter, and that nothing is lost."""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.events.test_sharing import pair
from tests.unit.events.world import BROKER, answer, event, linear, trigger, world
from torpor.binding import encode_batch
from torpor.errors import EventLogError
from torpor.events.admission import Admission, BacklogFullError
from torpor.events.backlog import FULL_SECONDS, Level
from torpor.events.dead_letters import original
from torpor.events.explain import Explainer
from torpor.events.ingress import Ingress, IngressLimits
from torpor.events.intake import Intake, append_events
from torpor.events.reckoning import FRESH_SECONDS
from torpor.spec.history import Question
from torpor.spec.models import Backlog, Batch, Filter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.unit.events.world import World
    from torpor.binding import WireEvent
    from torpor.events.log import Record
    from torpor.events.memory import MemoryLog

REJECT = Backlog(limit=4)
OLDEST = Backlog(limit=4, on_limit="deadLetterOldest")


# --- the level, which is pure -------------------------------------------------------------------------------


def test_a_level_is_counted_when_it_is_old_or_may_be_full() -> None:
    level = Level(3)
    assert not level.is_known(0.0)
    level.begin()
    level.counted(1, 0.0)
    assert level.is_known(0.0)
    level.take(1)
    assert (level.waiting, level.full, level.is_known(0.1)) == (2, False, True)
    assert not level.is_known(FRESH_SECONDS)
    level.take(1)  # full as far as is known here: some may have been delivered
    assert (level.full, level.is_known(0.1)) == (True, False)


def test_a_count_without_room_holds_for_a_moment() -> None:
    level = Level(3)
    level.begin()
    level.counted(3, 10.0)
    assert level.is_known(10.0 + FULL_SECONDS / 2)
    assert not level.is_known(10.0 + FULL_SECONDS)


def test_what_is_under_way_when_a_count_begins_counts_beside_it() -> None:
    level = Level(10)
    level.take(2)
    level.begin()
    level.take(3)
    level.done(2)
    level.counted(4, 0.0)
    assert level.waiting == 4 + 2 + 3
    level.begin()
    level.counted(9, 0.1)
    assert level.waiting == 9 + 3  # what is still under way
    level.done(3)
    level.begin()
    level.counted(9, 0.2)
    assert level.waiting == 9


@given(st.lists(st.sampled_from(["take", "store", "done", "begin", "counted"]), max_size=80))
def test_one_process_never_lets_in_too_much(steps: list[str]) -> None:
    """Whenever counts are made and whatever is under way: what is in the log stays within the limit."""
    level, stored, under_way, in_log = Level(5), 0, 0, 0
    seen: int | None = None
    for step in steps:
        if step == "take" and level.is_known(0.0) and not level.full:
            level.take(1)
            under_way += 1
        elif step == "store" and stored < under_way:
            stored += 1
            in_log += 1
        elif step == "done" and stored:
            level.done(1)
            stored, under_way = stored - 1, under_way - 1
        elif step == "begin":
            level.begin()
            seen = in_log
        elif step == "counted" and seen is not None:
            level.counted(seen, 0.0)
            seen = None
        assert in_log <= 5


# --- producers are refused ----------------------------------------------------------------------------------


@asynccontextmanager
async def _door(it: World, limits: IngressLimits | None = None) -> AsyncIterator[Ingress]:
    admission = Admission(it.clock, it.dispatcher.stats, it.dispatcher.pending)
    admission.set_routes(it.dispatcher.all_routes())
    ingress = Ingress(it.dispatcher.intake, it.clock, it.dispatcher.stats, admission=admission, limits=limits)
    ingress.set_brokers([BROKER])
    yield ingress


async def _post(ingress: Ingress, *events: WireEvent) -> tuple[int, dict[bytes, bytes], dict[str, object]]:
    sent = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": encode_batch(events), "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/cloudevents-batch+json")]
    scope = {"type": "http", "method": "POST", "path": f"/events/{BROKER}", "headers": headers}
    await ingress(scope, receive, send)  # type: ignore[arg-type]
    start, body = sent
    told = orjson.loads(body["body"]) if body["body"] else {}  # type: ignore[arg-type]
    return start["status"], dict(start["headers"]), told  # type: ignore[call-overload,return-value]


def test_producers_are_told_which_trigger_is_full_and_nothing_is_stored() -> None:
    async def run() -> None:
        async with world() as it:
            it.functions.gate = asyncio.Event()
            await it.declare(trigger("slow", "a", parallelism=1, backlog=REJECT), trigger("other", "b"))
            async with _door(it) as ingress:
                for number in range(4):
                    assert (await _post(ingress, event(f"{number}", "a")))[0] == 202
                both = (event("x", "b"), event("4", "a"))
                status, headers, told = await _post(ingress, *both)
                assert status == 429
                assert headers[b"retry-after"] == b"1"
                assert headers[b"content-type"] == b"application/problem+json"
                assert told["type"] == "https://torpor.dev/problems/backlog-full"
                assert (told["trigger"], told["limit"], told["waiting"]) == ("default/slow", 4, 4)
                assert "default/slow" in str(told["detail"])
                assert [each.id for each in await it.events("b")] == []
                assert len(await it.events("a")) == 4
                # Events that this trigger does not match are taken in as ever.
                assert (await _post(ingress, event("x", "b")))[0] == 202
                counts = it.dispatcher.stats.of("default/slow")
                assert counts.backlog_refused == 1
                assert it.dispatcher.stats.refused == {"backlog-full": 1}
                it.functions.gate.set()
                await it.advance(1.0)
                assert (await _post(ingress, *both))[0] == 202
                await it.advance(1.0)
                assert [ids for _, _, ids, _ in it.functions.calls if ids == ["4"]] == [["4"]]

    asyncio.run(run())


def test_requests_at_once_do_not_go_over_the_limit() -> None:
    async def run() -> None:
        async with world() as it:
            it.functions.gate = asyncio.Event()
            await it.declare(trigger("slow", "a", parallelism=1, backlog=REJECT))
            async with _door(it) as ingress:
                posts = [_post(ingress, event(f"{number}", "a")) for number in range(50)]
                answers = [status for status, _, _ in await asyncio.gather(*posts)]
                assert sorted(answers) == [202] * 4 + [429] * 46
                assert len(await it.events("a")) == 4

    asyncio.run(run())


def test_one_request_goes_in_whole_while_there_is_room() -> None:
    async def run() -> None:
        async with world() as it:
            it.functions.gate = asyncio.Event()
            await it.declare(trigger("slow", "a", parallelism=1, backlog=REJECT))
            async with _door(it) as ingress:
                assert (await _post(ingress, *(event(f"{n}", "a") for n in range(20))))[0] == 202
                assert (await _post(ingress, event("20", "a")))[0] == 429

    asyncio.run(run())


def test_a_function_that_replies_and_a_replay_are_not_refused() -> None:
    async def run() -> None:
        async with world() as it:
            it.functions.gate = asyncio.Event()
            await it.declare(trigger("slow", "a", parallelism=1, backlog=REJECT))
            await it.publish(*(event(f"{number}", "a") for number in range(9)))
            assert await it.dispatcher.pending("default/slow") == 9
            async with _door(it) as ingress:
                assert (await _post(ingress, event("9", "a")))[0] == 429

    asyncio.run(run())


def test_a_limit_that_grows_lets_more_in() -> None:
    async def run() -> None:
        async with world() as it:
            it.functions.gate = asyncio.Event()
            await it.declare(trigger("slow", "a", parallelism=1, backlog=REJECT))
            await it.publish(*(event(f"{number}", "a") for number in range(4)))
            admission = Admission(it.clock, it.dispatcher.stats, it.dispatcher.pending)
            admission.set_routes(it.dispatcher.all_routes())
            with pytest.raises(BacklogFullError):
                async with admission.admitted(BROKER, [event("4", "a")]):
                    pass
            await it.declare(trigger("slow", "a", parallelism=1, backlog=Backlog(limit=5)))
            admission.set_routes(it.dispatcher.all_routes())
            async with admission.admitted(BROKER, [event("4", "a")]):
                pass
            await it.declare()
            admission.set_routes(it.dispatcher.all_routes())
            async with admission.admitted(BROKER, [event("5", "a")]):
                pass

    asyncio.run(run())


def test_many_that_ask_at_once_are_answered_by_one_count() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("slow", "a", backlog=Backlog(limit=1000)))
            asked = 0

            async def pending(key: str) -> int:
                nonlocal asked
                assert key == "default/slow"
                asked += 1
                await asyncio.sleep(0)
                return 1000

            admission = Admission(it.clock, it.dispatcher.stats, pending)
            admission.set_routes(it.dispatcher.all_routes())

            async def ask() -> None:
                with pytest.raises(BacklogFullError):
                    async with admission.admitted(BROKER, [event("1", "a")]):
                        pass

            await asyncio.gather(*(ask() for _ in range(100)))
            await ask()  # the count holds for a moment
            assert asked == 1
            await it.advance(FULL_SECONDS)
            await ask()
            assert asked == 2

    asyncio.run(run())


def test_while_it_cannot_be_counted_producers_are_told_that_it_is_unavailable() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("slow", "a", backlog=Backlog(limit=1000)))

            async def pending(_: str) -> int:
                raise EventLogError("away")

            admission = Admission(it.clock, it.dispatcher.stats, pending)
            admission.set_routes(it.dispatcher.all_routes())
            ingress = Ingress(it.dispatcher.intake, it.clock, it.dispatcher.stats, admission=admission)
            ingress.set_brokers([BROKER])
            status, headers, _ = await _post(ingress, event("1", "a"))
            assert (status, headers[b"retry-after"]) == (503, b"1")
            assert await it.events("a") == []

    asyncio.run(run())


class _SlowLog:
    """A log whose appends wait for a gate."""

    def __init__(self, log: MemoryLog, gate: asyncio.Event) -> None:
        self._log = log
        self._gate = gate

    async def append(self, stream: str, records: Sequence[Record]) -> list[bool]:
        await self._gate.wait()
        return await self._log.append(stream, records)

    async def size_bytes(self, stream: str) -> int:
        return await self._log.size_bytes(stream)


def test_requests_under_way_are_bounded() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("slow", "a"))
            gate = asyncio.Event()
            stats = it.dispatcher.stats
            intake = Intake(_SlowLog(it.log, gate), it.clock, stats)  # type: ignore[arg-type]
            ingress = Ingress(intake, it.clock, stats, limits=IngressLimits(requests=3))
            ingress.set_brokers([BROKER])
            posts = [asyncio.ensure_future(_post(ingress, event(f"{n}", "a"))) for n in range(3)]
            await it.settle()
            status, headers, told = await _post(ingress, event("3", "a"))
            assert (status, headers[b"retry-after"]) == (503, b"1")
            assert told["type"] == "https://torpor.dev/problems/overloaded"
            gate.set()
            assert [status for status, _, _ in await asyncio.gather(*posts)] == [202] * 3
            assert (await _post(ingress, event("3", "a")))[0] == 202

    asyncio.run(run())


# --- the oldest become dead letters -------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [None, Batch(size=2, wait_seconds=0.1)])
def test_the_oldest_that_wait_become_dead_letters(batch: Batch | None) -> None:
    async def run() -> None:
        async with world() as it:
            it.functions.gate = asyncio.Event()
            held = 1 if batch is None else 4  # a call that is under way, and a batch in the making
            limited = trigger(
                "slow", "a", parallelism=1, batch=batch, backlog=Backlog(limit=6, on_limit="deadLetterOldest")
            )
            await it.declare(limited)
            await it.publish(*(event(f"{number}", "a") for number in range(12)))
            await it.advance(1.5)
            dead = await it.dead()
            assert [each.id for each in dead] == [str(held + number) for number in range(6)]
            letter = dead[0]
            assert original(letter) == event(str(held), "a")
            assert letter.attributes["knativeerrordest"] == "/function/f.default"
            assert letter.attributes["knativeerrorcode"] == "429"
            told = orjson.loads(base64.b64decode(letter.attributes["knativeerrordata"]))
            assert (told["trigger"], told["limit"], told["waiting"]) == ("default/slow", 6, 12)
            assert letter.attributes["torporattempts"] == "0"
            assert "more than 6 events waited" in letter.attributes["torporerror"]
            await it.advance(5.0)
            assert len(await it.dead()) == 6
            counts = it.dispatcher.stats.of("default/slow")
            assert (counts.backlog_overflowed, counts.dead_lettered) == (6, 6)
            it.functions.gate.set()
            await it.advance(5.0)
            delivered = {one for _, _, ids, _ in it.functions.calls for one in ids}
            assert delivered | {each.id for each in dead} == {str(number) for number in range(12)}
            assert await it.pending() == 0

    asyncio.run(run())


def test_explain_tells_that_it_was_too_much() -> None:
    async def run() -> None:
        async with world() as it:
            it.functions.gate = asyncio.Event()
            await it.declare(trigger("slow", "a", parallelism=1, backlog=OLDEST))
            await it.publish(*(event(f"{number}", "a") for number in range(6)))
            await it.advance(1.5)
            explainer = Explainer(it.log, it.clock, it.dispatcher.routes)
            told = await explainer.explain(Question(id="1"))
            [found] = told.items
            steps = [step.text for step in found.steps if step.what == "dead letter"]
            assert len(steps) == 1
            assert "more than 4 events waited for the trigger" in steps[0]

    asyncio.run(run())


def test_what_fails_while_too_many_wait_is_not_tried_again() -> None:
    async def run() -> None:
        async with world() as it:
            it.functions.behave = lambda *_: answer(503)
            slowly = linear(backoff_delay_seconds=3600.0)
            await it.declare(trigger("broken", "a", parallelism=2, delivery=slowly, backlog=OLDEST))
            await it.publish(*(event(f"{number}", "a") for number in range(4)))
            await it.advance(5.0)
            assert await it.dead() == []  # as many wait for their retry as may
            it.functions.gate = asyncio.Event()
            await it.publish(event("4", "a"), event("5", "a"))
            await it.advance(1.5)  # all of it is under way, or waits for a retry
            assert await it.dead() == []
            it.functions.gate.set()
            await it.settle()
            dead = await it.dead()
            assert [each.id for each in dead] == ["4", "5"]
            assert {each.attributes["torporattempts"] for each in dead} == {"1"}
            assert await it.pending() == 4

    asyncio.run(run())


def test_what_does_not_match_is_settled_and_no_dead_letter() -> None:
    async def run() -> None:
        async with world() as it:
            it.functions.gate = asyncio.Event()
            plain = trigger("t", parallelism=1, backlog=OLDEST)
            filters = (Filter(sql="EXISTS wanted"),)
            spec = plain.spec.model_copy(update={"filters": filters})
            await it.declare(plain.model_copy(update={"spec": spec}))
            await it.publish(
                event("0", "a", wanted="x"),
                *(event(f"not-{number}", "a") for number in range(5)),
                *(event(f"{number}", "a", wanted="x") for number in range(1, 4)),
            )
            await it.advance(2.5)
            assert await it.dead() == []
            assert await it.pending() == 4

    asyncio.run(run())


def test_of_several_processes_the_one_that_leads_moves() -> None:
    async def run() -> None:
        shared = trigger("slow", "a", parallelism=2, backlog=OLDEST)
        async with pair(shared) as it:
            it.functions.gate = asyncio.Event()
            await append_events(it.log, BROKER, [event(f"{number}", "a") for number in range(12)])
            await it.clock.advance(3.0, it.settle)
            dead = [stored.event async for stored in it.log.read("dead.default.default", ">")]
            assert dead == []
            await it.two.lead(True)
            await it.clock.advance(3.0, it.settle)
            dead = [stored.event async for stored in it.log.read("dead.default.default", ">")]
            assert [each.id for each in dead] == [str(number) for number in range(4, 12)]
            it.functions.gate.set()

    asyncio.run(run())


def test_without_a_limit_all_waits() -> None:
    async def run() -> None:
        async with world() as it:
            it.functions.gate = asyncio.Event()
            await it.declare(trigger("slow", "a", parallelism=1))
            await it.publish(*(event(f"{number}", "a") for number in range(200)))
            await it.advance(5.0)
            assert await it.dead() == []
            assert await it.pending() == 200

    asyncio.run(run())
