"""Triggers with a batch: when a call is made, of what, and how each event ends for itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.unit.events.test_sharing import pair
from tests.unit.events.test_sinks import only_sinks
from tests.unit.events.world import BROKEN, CrashingLog, World, answer, event, linear, trigger, world
from torpor.events.dispatcher import Dispatcher
from torpor.events.log import Record
from torpor.spec.models import Batch, DeadLetterSink, RateLimit, Trigger

if TYPE_CHECKING:
    from torpor.transport import Response

THREE = Batch(size=3, wait_seconds=2.0)


def batching(batch: Batch = THREE, **more: object) -> Trigger:
    return trigger("t", "a", batch=batch, **more)  # type: ignore[arg-type]


def called(it: World) -> list[tuple[float, list[str], int]]:
    return [(round(at, 6), ids, attempt) for at, _, ids, attempt in it.functions.calls]


def test_a_full_batch_goes_at_once_and_the_rest_when_it_has_waited() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(batching())
            await it.publish(*(event(str(n)) for n in range(4)), event("x", "other"))
            assert called(it) == [(0.0, ["0", "1", "2"], 1)]
            await it.advance(1.0)
            await it.publish(event("4"))
            await it.advance(10.0)
            assert called(it)[1:] == [(2.0, ["3", "4"], 1)]
            assert await it.pending() == 0
            assert it.dispatcher.stats.of("default/t").delivered == 5

    asyncio.run(run())


def test_a_batch_is_a_batch_though_it_has_one_event() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(batching())
            await it.publish(event("1", traceparent="00-a-b-01"))
            await it.advance(5.0)
            headers = dict(it.functions.headers[0])
            assert headers[b"content-type"] == b"application/cloudevents-batch+json"
            assert headers[b"traceparent"] == b"00-a-b-01"
            assert headers[b"prefer"] == b"reply"

    asyncio.run(run())


def test_only_those_that_are_named_come_again_each_by_its_own_attempts() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(batching(delivery=linear(retry=1)))
            it.functions.behave = lambda events, _: answer(
                200, torpor_failed_ids=",".join(each.id for each in events if each.id in ("0", "2"))
            )
            await it.publish(*(event(str(n)) for n in range(3)))
            await it.advance(60.0)
            # Retried after 1 s, and then the two wait 2 s for a third.
            assert called(it) == [(0.0, ["0", "1", "2"], 1), (3.0, ["0", "2"], 2)]
            letters = await it.dead()
            assert sorted(letter.id for letter in letters) == ["0", "2"]
            assert {letter.attributes["torporattempts"] for letter in letters} == {"2"}
            counts = it.dispatcher.stats.of("default/t")
            assert (counts.delivered, counts.failed, counts.dead_lettered) == (1, 4, 2)
            assert await it.pending() == 0

    asyncio.run(run())


def test_each_event_is_told_with_the_instance_that_had_the_batch() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(batching(delivery=linear(retry=1)))
            it.functions.behave = lambda _, attempt: answer(
                events=[event("r", "b")],
                torpor_instance=f"f-{attempt}",
                torpor_failed_ids="2" * (attempt < 2),
            )
            await it.publish(*(event(str(n)) for n in range(3)))
            await it.advance(60.0)
            lines = b"\n".join([each.data or b"" for each in await it.stream("records.default.default")])
            tries = [line for line in map(orjson.loads, lines.splitlines()) if line["k"] == "try"]
            told = [(line["ev"][0][0], line["end"], line["on"]) for line in tries]
            assert sorted(told) == [
                ("0", "delivered", "f-1"),
                ("1", "delivered", "f-1"),
                ("2", "delivered", "f-2"),
                ("2", "retried", "f-1"),
            ]

    asyncio.run(run())


@pytest.mark.parametrize("outcome", [answer(500), BROKEN, answer(204, torpor_failed_ids="nobody")])
def test_a_failure_is_one_of_all(outcome: Response | Exception) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(batching())
            it.functions.behave = lambda _, attempt: outcome if attempt == 1 else answer()
            await it.publish(*(event(str(n)) for n in range(3)))
            await it.advance(60.0)
            assert called(it) == [(0.0, ["0", "1", "2"], 1), (1.0, ["0", "1", "2"], 2)]
            assert await it.dead() == []
            assert await it.pending() == 0

    asyncio.run(run())


@pytest.mark.parametrize("outcome", [answer(422), answer(events=[event("r", "")])])
def test_a_final_answer_buries_all(outcome: Response) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(batching())
            it.functions.behave = lambda *_: outcome
            await it.publish(*(event(str(n)) for n in range(3)))
            assert sorted(letter.id for letter in await it.dead()) == ["0", "1", "2"]
            assert len(it.functions.calls) == 1

    asyncio.run(run())


def test_replies_are_written_once_beside_those_that_failed() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(batching())
            it.functions.behave = lambda _, attempt: (
                answer(events=[event("r0", "b"), event("r1", "b")], torpor_failed_ids="1")
                if attempt == 1
                else answer()
            )
            await it.publish(*(event(str(n)) for n in range(3)))
            await it.advance(60.0)
            assert [each.id for each in await it.events("b")] == ["r0", "r1"]
            assert [ids for _, ids, _ in called(it)] == [["0", "1", "2"], ["1"]]

    asyncio.run(run())


@pytest.mark.parametrize("after", [False, True])
def test_nothing_is_acknowledged_before_its_replies_are_written(after: bool) -> None:
    async def run() -> None:
        it = World()
        crashing = CrashingLog(it.log)
        it.dispatcher = Dispatcher(crashing, it.functions, it.clock)  # type: ignore[arg-type]
        await it.declare(batching())
        it.functions.behave = lambda *_: answer(events=[event("r", "b")])
        crashing.fail_at, crashing.after = 2, after  # the first append is of the events themselves
        records = [Record("a", str(number), event(str(number))) for number in range(3)]
        await crashing.append("broker.default.default", records)
        await it.settle()
        assert await it.pending() == 3
        await it.advance(30.0)
        assert [each.id for each in await it.events("b")] == ["r"]
        assert [attempt for *_, attempt in it.functions.calls] == [1]  # it has done its part
        assert await it.pending() == 0
        await it.dispatcher.close()

    asyncio.run(run())


def test_two_events_of_one_id_go_in_two_batches() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(batching())
            await it.publish(event("1"), event("1", source="/other"), event("2"))
            await it.advance(5.0)
            assert [ids for _, ids, _ in called(it)] == [["1"], ["1", "2"]]

    asyncio.run(run())


def test_no_more_batches_than_the_parallelism_are_under_way() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(batching(parallelism=2))
            it.functions.gate = asyncio.Event()
            await it.publish(*(event(str(n)) for n in range(12)))
            await it.advance(600.0)  # far beyond the time to acknowledge
            assert it.functions.under_way == 2
            it.functions.gate.set()
            await it.advance(10.0)
            assert sorted(int(each) for _, ids, _ in called(it) for each in ids) == list(range(12))
            assert it.functions.most_under_way == 2
            assert {attempt for *_, attempt in it.functions.calls} == {1}

    asyncio.run(run())


def test_a_batch_counts_as_one_for_a_rate_limit() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(batching(rate_limit=RateLimit(events=1)))
            await it.publish(*(event(str(n)) for n in range(9)))
            await it.advance(10.0)
            assert it.functions.times() == [0.0, 1.0, 2.0]

    asyncio.run(run())


def test_dead_letters_of_a_batch_go_to_a_sink_each_for_itself() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(batching(delivery=linear(dead_letter_sink=DeadLetterSink(function="u"))))
            it.functions.behave = only_sinks
            await it.publish(*(event(str(n)) for n in range(3)))
            sunk = [ids for _, key, ids, _ in it.functions.calls if key == "default/u"]
            assert sorted(sunk) == [["0"], ["1"], ["2"]]

    asyncio.run(run())


@pytest.mark.parametrize("moment", ["waiting", "calling"])
def test_a_crash_loses_nothing(moment: str) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(batching())
            it.functions.gate = asyncio.Event() if moment == "calling" else None
            await it.publish(*(event(str(n)) for n in range(3 if moment == "calling" else 2)))
            await it.crash()
            if it.functions.gate is not None:
                it.functions.gate.set()
            await it.advance(60.0)
            assert {each for _, ids, _ in called(it) for each in ids} >= {"0", "1"}
            assert await it.pending() == 0

    asyncio.run(run())


def test_what_waits_when_a_pod_ends_is_for_others_at_once() -> None:
    async def run() -> None:
        async with pair(batching()) as it:
            await it.publish(event("1"), event("2"))
            await it.one.halt()
            await it.clock.advance(3.0, it.settle)
            assert sorted(each for call in it.functions.calls for each in call[2]) == ["1", "2"]

    asyncio.run(run())
