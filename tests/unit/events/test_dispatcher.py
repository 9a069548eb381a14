"""The dispatcher on the log in memory: delivery, retries by the clock, dead letters, bounds, crashes."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.unit.events.world import (
    BROKEN,
    CrashingLog,
    World,
    answer,
    event,
    holding,
    linear,
    replying,
    trigger,
    world,
)
from torpor.binding import decode
from torpor.errors import EventLogError
from torpor.events.declared import Callee, Declared
from torpor.events.dispatcher import HOLD_SECONDS, Dispatcher, Retention
from torpor.events.log import ConsumerSpec, Record, StreamSpec
from torpor.events.memory import MemoryConsumer, MemoryLog
from torpor.spec.models import Delivery

if TYPE_CHECKING:
    from torpor.transport import Response


def test_an_event_reaches_its_function_and_the_reply_its_broker() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "a"))
            it.functions.behave = lambda events, _: answer(events=[event(f"{events[0].id}/0", "b", b"{}")])
            await it.publish(event("1", "a", b"x", traceparent="00-a-b-01"), event("2", "other"))
            assert [call[1:] for call in it.functions.calls] == [("default/f", ["1"], 1)]
            headers = dict(it.functions.headers[0])
            assert headers[b"traceparent"] == b"00-a-b-01"
            assert headers[b"torpor-attempt"] == b"1"
            [delivered] = decode(it.functions.headers[0], b"x") or []
            assert delivered == event("1", "a", b"x", traceparent="00-a-b-01")
            assert [each.id for each in await it.events("b")] == ["1/0"]
            assert await it.pending() == 0
            counts = it.dispatcher.stats.of("default/t")
            assert (counts.delivered, counts.redelivered, counts.failed) == (1, 0, 0)
            assert it.dispatcher.stats.published == {"default/default": 3}

    asyncio.run(run())


def test_each_trigger_gets_every_event_that_matches() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(
                trigger("t", "a", function="f"), trigger("u", function="g"), trigger("v", "b", function="h")
            )
            await it.publish(event("1", "a"))
            assert sorted(call[1] for call in it.functions.calls) == ["default/f", "default/g"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("delivery", "times"),
    [
        # linear: 1, 2 and 3 s; exponential: 0.5 s times 2, 4, 8
        (linear(), [0.0, 1.0, 3.0, 6.0]),
        (linear(backoff_policy="exponential", backoff_delay_seconds=0.5), [0.0, 1.0, 3.0, 7.0]),
        (Delivery(retry=0), [0.0]),
    ],
)
@pytest.mark.parametrize("outcome", [answer(500), answer(429), BROKEN])
def test_the_schedule_is_kept_to_the_moment(
    delivery: Delivery, times: list[float], outcome: Response | Exception
) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(delivery=delivery))
            it.functions.behave = lambda *_: outcome
            await it.publish(event("1"))
            await it.advance(100.0)
            assert it.functions.times() == times
            assert [attempt for *_, attempt in it.functions.calls] == list(range(1, len(times) + 1))
            [letter] = await it.dead()
            assert letter.id == "1"
            assert letter.attributes["torporattempts"] == str(len(times))
            assert await it.pending() == 0
            counts = it.dispatcher.stats.of("default/t")
            assert (counts.delivered, counts.failed, counts.redelivered, counts.dead_lettered) == (
                0,
                len(times),
                len(times) - 1,
                1,
            )

    asyncio.run(run())


def test_retry_after_is_honoured() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger())
            it.functions.behave = lambda _, attempt: (
                answer(503, retry_after="7") if attempt == 1 else answer()
            )
            await it.publish(event("1"))
            await it.advance(60.0)
            assert it.functions.times() == [0.0, 7.0]
            assert await it.dead() == []

    asyncio.run(run())


def test_a_final_answer_makes_a_dead_letter_at_once() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger())
            it.functions.behave = lambda *_: answer(422)
            await it.publish(event("1"))
            [letter] = await it.dead()
            assert letter.attributes["torporerror"] == "the function answered 422, which is final"
            assert letter.attributes["knativeerrorcode"] == "422"
            assert len(it.functions.calls) == 1

    asyncio.run(run())


@pytest.mark.parametrize("attribute", ["id", "source", "type"])
def test_a_broken_reply_makes_a_dead_letter(attribute: str) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger())
            broken = event("1/0", "b")
            del broken.attributes[attribute]
            it.functions.behave = lambda *_: answer(events=[broken])
            await it.publish(event("1"))
            [letter] = await it.dead()
            assert f"attribute '{attribute}' is missing" in letter.attributes["torporerror"]

    asyncio.run(run())


def test_dead_letters_that_are_written_at_once_all_count(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger())
            it.functions.behave = lambda *_: answer(400)
            it.functions.gate = asyncio.Event()
            await it.publish(*(event(str(number)) for number in range(10)))
            go = holding(it.log, "a", monkeypatch)
            it.functions.gate.set()
            await it.settle()
            go.set()
            await it.settle()
            assert len(await it.dead()) == it.dispatcher.stats.of("default/t").dead_lettered == 10

    asyncio.run(run())


def test_poison_does_not_block() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(parallelism=1))
            it.functions.behave = lambda events, _: answer(500 if events[0].id == "bad" else 204)
            await it.publish(event("bad"), event("1"), event("2"))
            assert [call[2] for call in it.functions.calls] == [["bad"], ["1"], ["2"]]

    asyncio.run(run())


def test_a_function_that_answers_itself_is_stopped() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger())
            it.functions.behave = lambda events, _: answer(events=[event(events[0].id + "x", "a")])
            await it.publish(event("1"))
            for _ in range(100):
                await it.settle()
            [letter] = await it.dead()
            assert "answering itself" in letter.attributes["torporerror"]
            assert len(it.functions.calls) == 255

    asyncio.run(run())


def test_no_more_than_parallelism_is_under_way() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(parallelism=3))
            it.functions.gate = asyncio.Event()
            await it.publish(*(event(str(number)) for number in range(10)))
            assert it.functions.under_way == 3
            assert await it.pending() == 10
            it.functions.gate.set()
            await it.settle()
            assert len(it.functions.calls) == 10
            assert it.functions.most_under_way == 3
            assert await it.pending() == 0

    asyncio.run(run())


def test_who_waits_for_its_replies_to_be_written_keeps_no_function_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        async with world() as it:
            go = holding(it.log, "reply", monkeypatch)
            await it.declare(trigger("t", "a", parallelism=2))
            it.functions.behave = replying
            it.functions.gate = asyncio.Event()
            await it.publish(*(event(str(number)) for number in range(10)))
            assert it.functions.under_way == 2
            it.functions.gate.set()
            await it.settle()
            assert len(it.functions.calls) == 10
            assert it.functions.most_under_way == 2
            assert not await it.events("reply")
            assert await it.pending() == 10, "nothing is done with before its replies are there"
            go.set()
            await it.settle()
            assert len(await it.events("reply")) == 10
            assert await it.pending() == 0

    asyncio.run(run())


def test_where_one_follows_the_other_the_next_waits_for_the_replies_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        async with world() as it:
            go = holding(it.log, "reply", monkeypatch)
            await it.declare(trigger("t", "a", parallelism=1))
            it.functions.behave = replying
            await it.publish(event("1"), event("2"))
            assert len(it.functions.calls) == 1
            go.set()
            await it.settle()
            assert len(it.functions.calls) == len(await it.events("reply")) == 2

    asyncio.run(run())


@pytest.mark.parametrize(("sent", "answered"), [(0, 65_536), (65_536, 0)])
def test_what_is_large_keeps_its_place(sent: int, answered: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with world() as it:
            go = holding(it.log, "reply", monkeypatch)
            await it.declare(trigger("t", "a", parallelism=2))
            it.functions.behave = partial(replying, data=b"." * answered)
            await it.publish(*(event(str(number), data=b"." * sent) for number in range(5)))
            assert len(it.functions.calls) == 2
            go.set()
            await it.settle()
            assert len(it.functions.calls) == len(await it.events("reply")) == 5

    asyncio.run(run())


def test_no_more_is_under_way_than_the_function_serves_at_once() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(), functions={"default/f": Callee(concurrency=2)})
            it.functions.gate = asyncio.Event()
            await it.publish(*(event(str(number)) for number in range(10)))
            assert it.functions.under_way == 2
            # it may have more instances now, and then any number
            await it.declare(trigger(), functions={"default/f": Callee(concurrency=5)})
            await it.settle()
            assert it.functions.under_way == 5 + 2
            await it.declare(trigger(), functions={"default/f": Callee()})
            await it.settle()
            assert it.functions.under_way == 10
            it.functions.gate.set()
            await it.settle()
            assert await it.pending() == 0
            assert len(it.functions.calls) == 10

    asyncio.run(run())


@pytest.mark.parametrize(("concurrency", "most", "at_once"), [(0, 32, 32), (5, 32, 5), (100, 32, 32)])
def test_a_function_is_called_as_often_at_once_as_it_serves(
    concurrency: int, most: int, at_once: int
) -> None:
    assert Callee(concurrency=concurrency).at_once(most) == at_once


def test_a_long_call_is_not_made_twice() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger())
            it.functions.gate = asyncio.Event()
            await it.publish(event("1"))
            await it.advance(600.0)  # far beyond the time to acknowledge
            it.functions.gate.set()
            await it.advance(60.0)
            assert len(it.functions.calls) == 1
            assert await it.pending() == 0

    asyncio.run(run())


def test_the_time_allowed_is_the_functions_own_or_the_deliverys() -> None:
    async def run() -> None:
        async with world() as it:
            own = trigger("own", "a", function="f")
            given = trigger("given", "b", function="f", delivery=Delivery(timeout_seconds=2.5))
            await it.declare(own, given, f=30.0)
            await it.publish(event("1", "a"))
            await it.publish(event("2", "b"))
            assert it.functions.timeouts == [30.0 + HOLD_SECONDS, 2.5]

    asyncio.run(run())


@pytest.mark.parametrize("moment", ["called", "retrying"])
def test_a_crash_loses_nothing_and_doubles_no_reply(moment: str) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "a"))
            replies = [event("1/0", "b"), event("1/1", "b")]
            if moment == "called":
                it.functions.gate = asyncio.Event()
            it.functions.behave = lambda _, attempt: (
                answer(500) if moment == "retrying" and attempt == 1 else answer(events=replies)
            )
            await it.publish(event("1", "a"))
            await it.crash()
            if it.functions.gate is not None:
                it.functions.gate.set()
            await it.advance(30.0)
            assert [each.id for each in await it.events("b")] == ["1/0", "1/1"]
            assert len(it.functions.calls) == 2
            assert await it.pending() == 0
            assert await it.dead() == []

    asyncio.run(run())


@pytest.mark.parametrize("after", [False, True])
def test_replies_that_could_not_be_written_are_written_once(after: bool) -> None:
    async def run() -> None:
        it = World()
        crashing = CrashingLog(it.log)
        it.dispatcher = Dispatcher(crashing, it.functions, it.clock)  # type: ignore[arg-type]
        await it.declare(trigger("t", "a"))
        it.functions.behave = lambda *_: answer(events=[event("1/0", "b"), event("1/1", "b")])
        crashing.fail_at, crashing.after = 2, after  # the first append is the event itself
        await crashing.append("broker.default.default", [Record("a", "1", event("1", "a"))])
        await it.settle()
        assert await it.pending() == 1
        await it.advance(30.0)
        assert [each.id for each in await it.events("b")] == ["1/0", "1/1"]
        assert [call[3] for call in it.functions.calls] == [1]  # it has done its part
        assert await it.pending() == 0
        await it.dispatcher.close()

    asyncio.run(run())


def test_a_dead_letter_that_could_not_be_written_is_written_once() -> None:
    async def run() -> None:
        it = World()
        crashing = CrashingLog(it.log)
        it.dispatcher = Dispatcher(crashing, it.functions, it.clock)  # type: ignore[arg-type]
        await it.declare(trigger())
        it.functions.behave = lambda *_: answer(400)
        crashing.fail_at, crashing.after = 2, True
        await crashing.append("broker.default.default", [Record("a", "1", event("1"))])
        await it.advance(30.0)
        assert len(await it.dead()) == 1
        assert await it.pending() == 0
        await it.dispatcher.close()

    asyncio.run(run())


def test_a_new_trigger_gets_events_from_then_on() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare()
            await it.publish(event("1"))
            await it.declare(trigger())
            await it.publish(event("2"))
            assert [call[2] for call in it.functions.calls] == [["2"]]

    asyncio.run(run())


def test_a_changed_trigger_misses_nothing() -> None:
    async def run() -> None:
        async with world() as it:
            it.functions.gate = asyncio.Event()
            await it.declare(trigger("t", "a", parallelism=1))
            await it.publish(event("1", "a"), event("2", "a"))
            changing = asyncio.ensure_future(it.declare(trigger("t", "a", "b", parallelism=2)))
            await it.settle()
            it.functions.gate.set()
            await it.settle()
            await changing
            await it.publish(event("3", "b"))
            assert sorted(call[2][0] for call in it.functions.calls) == ["1", "2", "3"]

    asyncio.run(run())


def test_what_is_not_declared_any_more_is_forgotten() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t"), trigger("u"))
            await it.declare(trigger("u"))
            assert await it.log.consumers("broker.default.default") == ["direct", "trigger.default.u"]
            assert it.dispatcher.stats.forgotten == 0
            assert set(await it.dispatcher.states()) == {"default/u"}
            await it.publish(event("1"))
            assert len(it.functions.calls) == 1

    asyncio.run(run())


def test_who_removes_a_trigger_is_told_what_waited_for_it(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t"), trigger("u", "other"))
            it.functions.behave = lambda *_: answer(503)
            await it.publish(event("1"), event("2"))
            await it.declare()
            assert it.dispatcher.stats.forgotten == 2
            [told] = [each for each in caplog.records if "waiting" in vars(each) and vars(each)["waiting"]]
            assert told.levelname == "WARNING"
            assert vars(told)["consumer"] == "trigger.default.t"
            # They are still there for whoever asks.
            assert [each.id for each in await it.events("a")] == ["1", "2"]

    caplog.set_level("INFO")
    asyncio.run(run())


def test_a_trigger_that_cannot_begin_keeps_no_other_from_being_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t"))
            consumer = MemoryLog.consumer

            async def refused(log: MemoryLog, spec: ConsumerSpec, *, keep: bool = False) -> MemoryConsumer:
                if spec.name == "trigger.default.bad":
                    raise EventLogError("no")
                return await consumer(log, spec, keep=keep)

            monkeypatch.setattr(MemoryLog, "consumer", refused)
            with pytest.raises(EventLogError, match="no"):
                await it.declare(trigger("bad"), trigger("u"))
            assert await it.log.consumers("broker.default.default") == ["direct", "trigger.default.u"]

    asyncio.run(run())


def test_a_trigger_is_forgotten_though_it_is_not_known_what_waits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t"))

            async def unknown(_: MemoryConsumer) -> int:
                raise EventLogError("it is still being read")

            monkeypatch.setattr(MemoryConsumer, "pending", unknown)
            await it.declare(trigger("u"))
            assert await it.log.consumers("broker.default.default") == ["direct", "trigger.default.u"]
            assert it.dispatcher.stats.forgotten == 0
            assert "it is still being read" in [vars(each).get("error") for each in caplog.records]

    asyncio.run(run())


def test_old_events_are_removed_once_they_were_delivered() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(
                trigger(delivery=Delivery(retry=100, backoff_policy="linear", backoff_delay_seconds=3600.0))
            )
            it.functions.behave = lambda events, _: answer(500 if events[0].id == "bad" else 204)
            await it.publish(event("1"), event("bad"), event("2"))
            await it.advance(86_400.0 + 120.0)
            assert [each.id for each in await it.events("a")] == ["bad", "2"]

    asyncio.run(run())


def test_a_full_broker_makes_room_of_what_was_delivered() -> None:
    async def run() -> None:
        async with world() as it:
            it.dispatcher = Dispatcher(it.log, it.functions, it.clock, retention=Retention(max_bytes=4000))
            await it.declare(trigger())
            for number in range(20):
                await it.publish(event(str(number), "a", b"x" * 500))
            assert len(it.functions.calls) == 20

    asyncio.run(run())


def test_trouble_with_one_declaration_can_be_repeated() -> None:
    async def run() -> None:
        async with world() as it:
            await it.dispatcher.apply(Declared([trigger()], ["other/broker"]))
            await it.dispatcher.apply(Declared([trigger()], ["other/broker"]))
            assert it.dispatcher.brokers() == {"default/default", "other/broker"}
            await it.log.ensure_stream(StreamSpec("broker.other.broker"))

    asyncio.run(run())
