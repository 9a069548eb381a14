"""What others wrote into a broker: what is no valid CloudEvent is a dead letter, and holds up nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.events.world import BROKER, World, event, linear, part, trigger, world
from torpor.binding import WireEvent
from torpor.events import names
from torpor.events.declared import Declared
from torpor.events.log import Record
from torpor.spec.models import Batch, DeadLetterSink, Join

if TYPE_CHECKING:
    from collections.abc import Callable

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
]
KINDS: dict[str, dict[str, Any]] = {
    "singly": {},
    "one by one": {"parallelism": 1},
    "by key": {"ordering": "key"},
    "batches": {"batch": Batch(size=8, wait_seconds=1.0)},
}


def _without(it: WireEvent, name: str) -> WireEvent:
    return WireEvent({key: value for key, value in it.attributes.items() if key != name}, it.data)


async def write(it: World, *events: WireEvent, stream: str = names.broker_stream(BROKER)) -> None:
    """Put events where somebody else would, past all checks."""
    await it.log.append(
        stream, [Record(f"a.{number}", str(number), each) for number, each in enumerate(events)]
    )
    await it.settle()


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
            assert (counts.delivered, counts.failed, counts.dead_lettered) == (9, 0, 9)

    asyncio.run(run())


def test_rubbish_is_no_part_of_a_group() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(join=Join(timeout_seconds=60.0)))
            spoilt = part("g", 0, 2, traceparent="00-a\nb")
            await write(it, spoilt, part("g", 0, 2), part("g", 1, 2))
            assert [call[2] for call in it.functions.calls] == [["g/0", "g/1"]]
            assert [letter.attributes["traceparent"] for letter in await it.dead()] == ["00-a\nb"]
            assert await it.pending() == 0

    asyncio.run(run())


@pytest.mark.parametrize(
    "sink",
    [DeadLetterSink(function="undertaker"), DeadLetterSink(broker="morgue")],
    ids=["function", "broker"],
)
def test_rubbish_goes_to_no_sink(sink: DeadLetterSink) -> None:
    async def run() -> None:
        async with world() as it:
            declared = trigger(delivery=linear(dead_letter_sink=sink))
            await it.dispatcher.apply(Declared([declared], [BROKER, "default/morgue"]))
            await write(it, event("1", traceparent="00-a\nb"))
            await it.advance(5.0)
            assert not it.functions.calls
            assert [letter.id for letter in await it.dead()] == ["1"]
            assert not await it.stream(names.broker_stream("default/morgue"))
            assert it.dispatcher.stats.of_sink("default/t").dead_lettered == 1
            assert await it.pending() == 0

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
