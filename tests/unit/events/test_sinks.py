"""Where dead letters go beside the list of them: functions and brokers, once, and never round in circles."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.unit.events.test_sharing import pair
from tests.unit.events.world import BROKER, CrashingLog, World, answer, event, linear, trigger, world
from torpor.errors import EventLogError
from torpor.events import names
from torpor.events.declared import Declared
from torpor.events.dispatcher import Dispatcher
from torpor.events.explain import Explainer
from torpor.events.log import ConsumerSpec
from torpor.events.strays import Stray
from torpor.spec.history import Question
from torpor.spec.models import DeadLetterSink, Trigger

if TYPE_CHECKING:
    from torpor.binding import WireEvent
    from torpor.transport import Response

FUNCTION, OTHER = DeadLetterSink(function="undertaker"), "default/morgue"
INTO_BROKER = DeadLetterSink(broker="morgue")


def sinking(name: str = "t", sink: DeadLetterSink = FUNCTION, broker: str = "default") -> Trigger:
    return trigger(name, delivery=linear(retry=1, dead_letter_sink=sink), broker=broker)


def is_dead(events: list[WireEvent]) -> bool:
    return "torporerror" in events[0].attributes


def only_sinks(events: list[WireEvent], attempt: int) -> Response:
    """Functions that take dead letters, and nothing else."""
    return answer(204 if is_dead(events) else 422)


def test_a_function_gets_dead_letters_and_they_stay_in_the_list() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(sinking(), undertaker=7.0)
            it.functions.behave = only_sinks
            await it.publish(event("1", data=b"x"))
            assert [(key, ids, n) for _, key, ids, n in it.functions.calls] == [
                ("default/f", ["1"], 1),
                ("default/undertaker", ["1"], 1),
            ]
            headers = dict(it.functions.headers[1])
            assert headers[b"ce-torportrigger"] == b"default/t"
            assert headers[b"ce-knativeerrorcode"] == b"422"
            assert it.functions.timeouts[1] == 67.0
            assert [letter.id for letter in await it.dead()] == ["1"]
            counts, sink = it.dispatcher.stats.of("default/t"), it.dispatcher.stats.of_sink("default/t")
            assert (counts.delivered, counts.failed, counts.dead_lettered) == (0, 1, 1)
            assert (sink.delivered, sink.failed, sink.dead_lettered) == (1, 0, 0)

    asyncio.run(run())


@pytest.mark.parametrize(("status", "times"), [(400, [0.0, 0.0]), (500, [0.0, 1.0, 1.0, 2.0])])
def test_a_sink_that_fails_for_good_leaves_the_dead_letter(status: int, times: list[float]) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(sinking())
            it.functions.behave = lambda *_: answer(status)
            await it.publish(event("1"))
            await it.advance(100.0)
            # The event's own attempts, and then, by the same schedule, those of its dead letter.
            assert it.functions.times() == times
            assert [letter.id for letter in await it.dead()] == ["1"]
            sink = it.dispatcher.stats.of_sink("default/t")
            assert (sink.failed, sink.dead_lettered) == (len(times) // 2, 1)

    asyncio.run(run())


def test_both_brokers_tell_of_a_dead_letter_that_was_put_into_another_one() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(sinking(sink=INTO_BROKER), trigger("u", broker="morgue"))
            it.functions.behave = only_sinks
            await it.publish(event("1"))
            await it.advance(1.0)
            explainer = Explainer(it.log, it.clock, it.dispatcher.routes)
            told = {each.broker: each for each in (await explainer.explain(Question(id="1"))).items}
            assert f"attempt 1 put into broker {OTHER}" in [step.text for step in told[BROKER].steps]
            assert (told[OTHER].kept, told[OTHER].type) == (True, "a")
            assert [step.text for step in told[OTHER].steps] == [
                "written as a dead letter of trigger default/t",
                "attempt 1 delivered",
            ]

    asyncio.run(run())


def test_replies_of_a_sink_are_published() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(sinking())
            it.functions.behave = lambda events, attempt: (
                answer(events=[event("1/0", "mended")]) if is_dead(events) else only_sinks(events, attempt)
            )
            await it.publish(event("1"))
            assert [each.id for each in await it.events("mended")] == ["1/0"]

    asyncio.run(run())


def test_only_the_triggers_own_dead_letters_go_to_its_sink() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(sinking("t"), trigger("u", function="g"))
            it.functions.behave = only_sinks
            await it.publish(event("1"))
            called = sorted(call[1] for call in it.functions.calls)
            assert called == ["default/f", "default/g", "default/undertaker"]
            assert len(await it.dead()) == 2

    asyncio.run(run())


def test_a_broker_gets_dead_letters_of_every_trigger_once() -> None:
    async def run() -> None:
        async with world() as it:
            readers = trigger("reader", function="r", broker="morgue")
            await it.declare(sinking("t", INTO_BROKER), sinking("u", INTO_BROKER), readers)
            it.functions.behave = only_sinks
            await it.publish(event("1"))
            sunk = await it.stream(names.broker_stream(OTHER))
            assert sorted(each.attributes["torporsink"] for each in sunk) == ["default/t", "default/u"]
            assert [each.id for each in sunk] == ["1", "1"]
            assert len(await it.dead()) == 2
            assert [call[1] for call in it.functions.calls].count("default/r") == 2

    asyncio.run(run())


def test_dead_letters_do_not_go_round_in_circles() -> None:
    async def run() -> None:
        async with world() as it:
            back = DeadLetterSink(broker="default")
            await it.declare(sinking("there", INTO_BROKER), sinking("back", back, broker="morgue"))
            it.functions.behave = lambda *_: answer(422)
            await it.publish(event("1"))
            await it.advance(3600.0)
            assert len(it.functions.calls) == 2
            assert [len(await it.dead(key)) for key in (BROKER, OTHER)] == [1, 1]
            assert len(await it.events("a")) == 1
            assert it.dispatcher.stats.of_sink("default/back").dead_lettered == 1

    asyncio.run(run())


@pytest.mark.parametrize("sink", [FUNCTION, INTO_BROKER])
def test_a_crash_loses_nothing_on_the_way_to_the_sink(sink: DeadLetterSink) -> None:
    async def run() -> None:
        async with world() as it:
            it.functions.gate = asyncio.Event()
            await it.declare(sinking("t", sink))
            it.functions.behave = only_sinks
            await it.publish(event("1"))
            await it.crash()
            it.functions.gate.set()
            await it.advance(30.0)
            await it.crash()
            await it.advance(30.0)
            took = [call for call in it.functions.calls if call[1] == "default/undertaker"]
            there = await it.stream(names.broker_stream(OTHER)) if sink is INTO_BROKER else took
            assert len(there) == 1
            assert len(await it.dead()) == 1

    asyncio.run(run())


@pytest.mark.parametrize("after", [False, True])
def test_a_broker_that_fails_gets_it_later_and_once(after: bool) -> None:
    async def run() -> None:
        it = World()
        crashing = CrashingLog(it.log)
        it.dispatcher = Dispatcher(crashing, it.functions, it.clock)  # type: ignore[arg-type]
        await it.declare(sinking("t", INTO_BROKER))
        it.functions.behave = lambda *_: answer(422)
        crashing.fail_at, crashing.after = 2, after  # the first append makes the dead letter
        await it.publish(event("1"))
        await it.advance(30.0)
        assert len(await it.stream(names.broker_stream(OTHER))) == 1
        assert len(it.functions.calls) == 1
        await it.dispatcher.close()

    asyncio.run(run())


def test_a_trigger_waits_for_its_sink() -> None:
    async def run() -> None:
        it = World()
        ensure = it.log.consumer
        failing = True

        async def consumer(spec: object, **more: bool) -> object:
            if failing and getattr(spec, "name", "").startswith(names.SINK):
                raise EventLogError("the log is out")
            return await ensure(spec, **more)  # type: ignore[arg-type]

        it.log.consumer = consumer  # type: ignore[method-assign, assignment]
        with pytest.raises(EventLogError):
            await it.declare(sinking())
        assert await it.dispatcher.states() == {}
        failing = False
        await it.declare(sinking())
        assert set(await it.dispatcher.states()) == {"default/t"}
        await it.dispatcher.close()

    asyncio.run(run())


def test_a_sink_that_is_not_declared_any_more_is_forgotten() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(sinking())
            dead = names.dead_stream(BROKER)
            await it.log.consumer(ConsumerSpec(dead, "somebody"))
            assert await it.log.consumers(dead) == ["sink.default.t", "somebody"]
            await it.declare(trigger("t"))
            assert await it.log.consumers(dead) == ["somebody"]

    asyncio.run(run())


def test_pods_that_share_a_log_deliver_each_dead_letter_once() -> None:
    async def run() -> None:
        async with pair(sinking()) as it:
            it.functions.behave = only_sinks
            await it.publish(*(event(str(number)) for number in range(20)))
            took = [call for call in it.functions.calls if call[1] == "default/undertaker"]
            assert sorted(int(call[2][0]) for call in took) == list(range(20))
            await it.two.apply(Declared([], [BROKER]))
            stray = Stray(names.dead_stream(BROKER), "sink.default.t")
            assert stray in await it.two.strays()
            assert stray not in await it.one.strays()

    asyncio.run(run())
