"""What others wrote into a broker: what is no valid CloudEvent is a dead letter, and holds up nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.events.world import BROKEN, BROKER, World, answer, event, linear, part, trigger, world
from torpor.binding import WireEvent
from torpor.errors import RecordTooLargeError
from torpor.events import names
from torpor.events.dead_letters import keys_of
from torpor.events.declared import Declared
from torpor.events.letters import DeadLetters
from torpor.events.log import Record
from torpor.events.memory import MAX_RECORD_BYTES
from torpor.spec.letters import LetterSelection
from torpor.spec.models import Backlog, Batch, DeadLetterSink, Join, RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable

LARGE = {f"x{number}": "ü" * 1000 for number in range(60)}
RUBBISH: list[tuple[Callable[[WireEvent], WireEvent], str]] = [
    (lambda it: it.replace(traceparent="00-a\nb"), "'traceparent' has a control character"),
    (lambda it: it.replace(datacontenttype="a/b\r\nx: y"), "'datacontenttype' has a control character"),
    (lambda it: WireEvent({**it.attributes, "a b": "c"}, it.data), "name 'a b' is not"),
    (lambda it: it.replace(time="now"), "'time' is 'now'"),
    (lambda it: it.replace(specversion="0.3"), "'specversion' is '0.3'"),
    (lambda it: _without(it, "id"), "'id' is missing"),
    (lambda it: _without(it, "source"), "'source' is missing"),
    (lambda it: _without(it, "type"), "'type' is missing"),
    (lambda it: WireEvent({}, it.data), "'specversion' is missing"),
    (lambda it: it.replace(source="\ud800"), "'source' has a control character"),
    (lambda it: WireEvent({**it.attributes, **LARGE, "time": ""}, it.data), "'time' is ''"),
]
KINDS: dict[str, dict[str, Any]] = {
    "singly": {},
    "one by one": {"parallelism": 1},
    "by key": {"ordering": "key"},
    "batches": {"batch": Batch(size=8, wait_seconds=1.0)},
    "limited": {"rate_limit": RateLimit(events=1000)},
    "backlog": {"backlog": Backlog(limit=100, on_limit="deadLetterOldest")},
}


def _without(it: WireEvent, name: str) -> WireEvent:
    return WireEvent({key: value for key, value in it.attributes.items() if key != name}, it.data)


async def write(it: World, *events: WireEvent, stream: str = names.broker_stream(BROKER)) -> None:
    """Put events where somebody else would, past all checks."""
    await it.log.append(
        stream, [Record(f"a.{number}", str(number), each) for number, each in enumerate(events)]
    )
    await it.settle()


def letters_of(it: World) -> DeadLetters:
    return DeadLetters(
        it.log, it.dispatcher.intake, it.dispatcher.stats, it.dispatcher._courier.recorder, lambda *_: None
    )


@pytest.mark.parametrize("kind", KINDS)
def test_rubbish_is_a_dead_letter_and_holds_up_nothing(kind: str) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(**KINDS[kind]))
            healthy = [event(str(number), partitionkey=str(number)) for number in range(len(RUBBISH))]
            mixed = [
                each
                for (spoil, _), fine in zip(RUBBISH, healthy, strict=True)
                for each in (spoil(fine.replace(id=f"not {fine.id}")), fine)
            ]
            await write(it, *mixed)
            await it.advance(5.0)
            called = [each for call in it.functions.calls for each in call[2]]
            assert sorted(called) == sorted(each.id for each in healthy)
            letters = await it.dead()
            assert len(letters) == len(RUBBISH)
            for letter, (_, reason) in zip(letters, RUBBISH, strict=True):
                assert letter.attributes["torporerror"].startswith(
                    f"it is no valid CloudEvent: attribute {reason}"
                )
                assert letter.attributes["torporattempts"] == "0"
            assert await it.pending() == 0
            assert it.dispatcher.busy == 0
            counts = it.dispatcher.stats.of("default/t")
            assert (counts.delivered, counts.failed, counts.dead_lettered) == (len(RUBBISH), 0, len(RUBBISH))

    asyncio.run(run())


def test_rubbish_is_no_part_of_a_group() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(join=Join(timeout_seconds=60.0)))
            spoilt = part("g", 0, 2, traceparent="00-a\nb")
            await write(it, spoilt, part("g", 0, 2), part("g", 1, 2))
            assert [call[2] for call in it.functions.calls] == [["g/0", "g/1"]]
            assert [letter.attributes["traceparent"] for letter in await it.dead()] == ["00-a b"]
            assert await it.pending() == 0

    asyncio.run(run())


@pytest.mark.parametrize("sink", [DeadLetterSink(function="undertaker"), DeadLetterSink(broker="morgue")])
def test_of_rubbish_what_is_valid_goes_to_the_sink(sink: DeadLetterSink) -> None:
    async def run() -> None:
        async with world() as it:
            declared = trigger(delivery=linear(dead_letter_sink=sink))
            await it.dispatcher.apply(Declared([declared], [BROKER, "default/morgue"]))
            await write(it, event("1", traceparent="00-a\nb"), _without(event("2"), "id"))
            await it.advance(5.0)
            assert [letter.id for letter in await it.dead()] == ["1", ""]
            sunk = await it.stream(names.broker_stream("default/morgue"))
            called = [each for call in it.functions.calls for each in call[2]]
            assert called + [each.id for each in sunk] == ["1"]
            counts = it.dispatcher.stats.of_sink("default/t")
            assert (counts.delivered, counts.dead_lettered) == (1, 1)
            assert await it.pending() == 0

    asyncio.run(run())


def test_rubbish_among_what_is_too_much_does_not_end_the_limit() -> None:
    async def run() -> None:
        async with world() as it:
            backlog = Backlog(limit=2, on_limit="deadLetterOldest")
            await it.declare(trigger(parallelism=1, backlog=backlog))
            it.functions.gate = asyncio.Event()
            await write(it, event("0"), *(spoil(event("spoilt")) for spoil, _ in RUBBISH))
            await it.advance(3.0)
            assert len(await it.dead()) >= len(RUBBISH) - 2
            await it.publish(*(event(str(number)) for number in range(1, 9)))
            await it.advance(3.0)
            assert await it.pending() <= 3  # one is under way
            it.functions.gate.set()
            await it.advance(3.0)
            assert await it.pending() == 0

    asyncio.run(run())


@pytest.mark.parametrize("key", ["=fn.x", "=fn.f.=any", "=fn.Bad_Name.=any.m", "=fn....", "=fn.ü.=any.m"])
def test_what_is_for_no_function_is_left_out(key: str, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger())
            await it.log.append(names.broker_stream(BROKER), [Record(key, "1", event("1"))])
            await it.advance(30.0)
            assert not it.functions.calls
            assert not await it.dead()
            assert await it.pending() == 0
            assert [each for each in caplog.messages if "left out" in each] == [
                "an event that is for no function is left out"
            ]

    asyncio.run(run())


def test_what_others_wrote_among_dead_letters_hides_none(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(delivery=linear(dead_letter_sink=DeadLetterSink(function="undertaker"))))
            it.functions.behave = lambda events, _: answer(
                204 if "torporerror" in events[0].attributes else 400
            )
            theirs = event("theirs", torporattempts="many", knativeerrorcode="x")
            keys = (keys_of("default/t")[:-1] + "x", "one", "a.b.c", "....")
            await it.log.append(names.dead_stream(BROKER), [Record(key, key, theirs) for key in keys])
            await it.publish(event("1"))
            await it.advance(30.0)
            letters = letters_of(it)
            assert [each.event_id async for each in await letters.select(LetterSelection())] == ["1"]
            assert [call[2] for call in it.functions.calls] == [
                ["1"],
                ["1"],
            ]  # the event, and its dead letter
            assert await it.pending() == 0

    asyncio.run(run())


def test_of_what_is_too_large_for_a_dead_letter_so_much_is_kept_as_fits() -> None:
    """Of what the platform took in all is kept: it leaves room."""

    async def run() -> None:
        async with world() as it:
            await it.declare(trigger())
            it.functions.behave = lambda *_: answer(400)
            data = b"x" * (MAX_RECORD_BYTES - 100)
            await write(it, event("large", data=data), event("small", data=b"x"))
            await it.advance(5.0)
            large, small = sorted(await it.dead(), key=lambda letter: letter.id)
            assert (large.data, small.data) == (None, b"x")
            reason = large.attributes["torporerror"]
            assert reason.startswith("the function answered 400, which is final")
            assert "; not all of it is kept: event 'large' has 83" in reason
            assert large.attributes["knativeerrorcode"] == "400"
            assert await it.pending() == 0
            with pytest.raises(RecordTooLargeError):
                await it.publish(event("larger", data=data))

    asyncio.run(run())


def test_the_reason_that_a_producer_gives_is_not_the_dead_letters() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger())
            it.functions.behave = lambda *_: BROKEN
            await it.publish(event("1", knativeerrorcode="abc", torporattempts="x", knativeerrordata="?"))
            await it.advance(30.0)
            letters = letters_of(it)
            [letter] = [each async for each in await letters.select(LetterSelection())]
            assert (letter.code, letter.attempts, letter.reason) == (
                None,
                4,
                "the function did not answer: the connection broke, at attempt 4, the last",
            )

    asyncio.run(run())


def test_rubbish_for_a_function_by_name_is_a_dead_letter() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare()
            rubbish = event("1", traceparent="00-a\nb")
            key = names.direct_key("f", None, "mark")
            await it.log.append(names.broker_stream(BROKER), [Record(key, "1", rubbish)])
            await it.settle()
            assert not it.functions.calls
            assert [letter.id for letter in await it.dead()] == ["1"]

    asyncio.run(run())
