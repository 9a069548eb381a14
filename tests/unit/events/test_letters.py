"""Dead letters on the log in memory: what is selected, what a replay does, and crashes amid one."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.unit.events.world import BROKER, CrashingLog, World, answer, event, part, trigger, world
from torpor.errors import EventLogError
from torpor.events.dead_letters import chooser, dead_letters, original, view
from torpor.events.intake import Intake
from torpor.events.letters import DeadLetters
from torpor.events.log import Stored
from torpor.spec.letters import DeadLetter, LetterSelection
from torpor.spec.models import Batch, Delivery, Join

ONCE = Delivery(retry=0)
NOBODY = "0" * 28


def letters_of(it: World, log: Any = None) -> DeadLetters:
    used, dispatcher = log or it.log, it.dispatcher
    intake = Intake(used, it.clock, dispatcher.stats)
    return DeadLetters(used, intake, dispatcher.stats, dispatcher.recorder, dispatcher.route)


async def found(letters: DeadLetters, **selection: Any) -> list[DeadLetter]:
    return [each async for each in await letters.select(LetterSelection(**selection))]


async def fail(it: World, *events: Any) -> list[DeadLetter]:
    """Have ``events`` become dead letters; functions are well again then."""
    it.functions.behave = lambda *_: answer(500)
    await it.publish(*events)
    it.functions.behave = lambda *_: answer()
    it.functions.calls.clear()
    await it.advance(1.0)
    return await found(letters_of(it))


# --- what is shown and selected -----------------------------------------------------------------------------


def stored(at: float = 100.0, **changes: Any) -> Stored:
    arguments = {
        "trigger_key": "n/t",
        "function_key": "n/f",
        "sequence": 1,
        "attempt": 3,
        "reason": "bad",
        "code": 400,
        "data": b"no",
    }
    source = event("1", "a.b", b"[1]", datacontenttype="application/json", subject="s")
    [record] = dead_letters([source], **{**arguments, **changes})
    return Stored(record.key, 7, at, record.event)


def test_a_dead_letter_is_shown_with_its_event_as_it_was() -> None:
    letter = view(stored(), BROKER, whole=True)
    assert (letter.broker, letter.trigger, letter.function) == (BROKER, "n/t", "n/f")
    assert (letter.attempts, letter.code, letter.reason, letter.answer) == (3, 400, "bad", "no")
    assert letter.at == datetime.fromtimestamp(100.0, UTC)
    assert letter.event == {
        "specversion": "1.0",
        "id": "1",
        "source": "/s",
        "type": "a.b",
        "datacontenttype": "application/json",
        "subject": "s",
        "data": [1],
    }
    assert original(stored().event) == event(
        "1", "a.b", b"[1]", datacontenttype="application/json", subject="s"
    )
    brief = view(stored(code=None, data=b""), BROKER)
    assert (brief.code, brief.answer, brief.event, brief.data_bytes) == (None, None, None, 3)


def test_each_delivery_of_an_event_has_one_dead_letter() -> None:
    keys = {stored(sequence=sequence, attempt=attempt).key for sequence in (1, 2) for attempt in (1, 2)}
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("selection", "chosen"),
    [
        ({}, True),
        ({"triggers": ["n/t"]}, True),
        ({"triggers": ["n/u"]}, False),
        ({"functions": ["n/f", "n/g"]}, True),
        ({"functions": ["f/n"]}, False),
        ({"event_ids": ["1"]}, True),
        ({"event_ids": ["2"]}, False),
        ({"filters": ["type=a.*", "subject=s"]}, True),
        ({"filters": ["type=a.*", "subject=x"]}, False),
        ({"since": datetime.fromtimestamp(100, UTC)}, True),
        ({"since": datetime.fromtimestamp(101, UTC)}, False),
        ({"until": datetime.fromtimestamp(101, UTC)}, True),
        ({"until": datetime.fromtimestamp(100, UTC)}, False),
    ],
)
def test_a_selection_is_met_as_a_whole(selection: dict[str, Any], chosen: bool) -> None:
    assert chooser(LetterSelection(**selection))(stored()) is chosen


def test_letters_are_found_by_broker_and_by_id() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(delivery=ONCE))
            [first, second] = await fail(it, event("1"), event("2"))
            letters = letters_of(it)
            assert [each.event_id for each in (first, second)] == ["1", "2"]
            assert await found(letters, brokers=["default/other"]) == []
            assert await found(letters, brokers=[BROKER]) == [first, second]
            whole = await letters.get(second.id)
            assert whole is not None
            assert whole.event is not None
            assert whole.event["id"] == "2"
            assert await letters.get(NOBODY) is None

    asyncio.run(run())


# --- replay -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("types", [(), ("a", "b")])
def test_a_replay_reaches_the_trigger_that_failed_alone(types: tuple[str, ...]) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(
                trigger("t", *types, delivery=ONCE, function="f"),
                trigger("others", delivery=Delivery(retry=9), function="g"),
            )
            it.functions.behave = lambda *_: answer(500 if it.functions.calls[-1][1] == "default/f" else 204)
            sent = event("1", "a", b"x", subject="s", datacontenttype="text/plain")
            await it.publish(sent)
            it.functions.behave = lambda *_: answer()
            it.functions.calls.clear()
            letters = letters_of(it)
            [letter] = await found(letters)
            [outcome] = await letters.replay([letter.id])
            assert (outcome.id, outcome.outcome) == (letter.id, "replayed")
            await it.settle()
            assert [call[1:3] for call in it.functions.calls] == [("default/f", ["1"])]
            assert dict(it.functions.headers[-1]).get(b"ce-subject") == b"s"
            assert await found(letters) == []
            assert await it.pending() == 0
            assert it.dispatcher.stats.of("default/t").replayed == 1
            assert it.dispatcher.stats.published[BROKER] == 1

    asyncio.run(run())


@pytest.mark.parametrize("spec", [{"ordering": "key"}, {"batch": Batch(size=2, wait_seconds=0.1)}])
def test_triggers_of_every_kind_leave_what_is_for_another(spec: dict[str, Any]) -> None:
    async def run() -> None:
        async with world() as it:
            other = trigger("others", function="g")
            other = other.model_copy(update={"spec": other.spec.model_copy(update=spec)})
            await it.declare(trigger("t", delivery=ONCE, function="f"), other)
            it.functions.behave = lambda *_: answer(500 if it.functions.calls[-1][1] == "default/f" else 204)
            await it.publish(event("1"))
            await it.advance(1.0)
            it.functions.behave = lambda *_: answer()
            it.functions.calls.clear()
            letters = letters_of(it)
            [letter] = await found(letters, triggers=["default/t"])
            await letters.replay([letter.id])
            await it.advance(1.0)
            assert [call[1:3] for call in it.functions.calls] == [("default/f", ["1"])]
            assert await it.pending() == 0

    asyncio.run(run())


def test_what_fails_again_is_a_dead_letter_again() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(delivery=ONCE))
            [letter] = await fail(it, event("1"))
            it.functions.behave = lambda *_: answer(500)
            letters = letters_of(it)
            for _ in range(3):  # all within the time in which the log knows an identity again
                await letters.replay([letter.id])
                await it.settle()
                before = letter
                [letter] = await found(letters)
                assert letter.id != before.id
                assert letter.event_id == "1"

    asyncio.run(run())


def test_a_replay_outlasts_the_dispatcher() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(delivery=ONCE))
            [letter] = await fail(it, event("1"))
            it.functions.gate = asyncio.Event()
            await letters_of(it).replay([letter.id])
            await it.settle()
            await it.crash()
            it.functions.gate.set()
            await it.advance(30.0)
            assert [call[2:] for call in it.functions.calls] == [(["1"], 1), (["1"], 2)]
            assert await it.pending() == 0

    asyncio.run(run())


@pytest.mark.parametrize("later_seconds", [0.0, 3600.0])
def test_a_replay_that_was_interrupted_is_not_made_twice(later_seconds: float) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(delivery=ONCE))
            [letter] = await fail(it, event("1"))

            class _Dying(CrashingLog):
                async def purge(self, stream: str, key: str) -> None:
                    raise EventLogError("the process dies")

            with pytest.raises(EventLogError):
                await letters_of(it, _Dying(it.log)).replay([letter.id])
            await it.settle()
            await it.advance(later_seconds)
            assert [each.id for each in await found(letters_of(it))] == [letter.id]
            await letters_of(it).replay([letter.id])
            await it.settle()
            assert [call[2] for call in it.functions.calls] == [["1"]]
            assert await found(letters_of(it)) == []

    asyncio.run(run())


def test_replies_to_a_replay_count_once() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "a", delivery=ONCE))
            reply = event("1.x/0", "b")
            # The replies were written, and then the acknowledgement was lost and the function broke.
            await it.publish(reply)
            [letter] = await fail(it, event("1"))
            it.functions.behave = lambda *_: answer(events=[reply])
            await letters_of(it).replay([letter.id])
            await it.settle()
            assert len(it.functions.calls) == 1
            assert [each.id for each in await it.events("b")] == ["1.x/0"]

    asyncio.run(run())


def test_what_has_no_trigger_any_more_stays() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(delivery=ONCE))
            [letter] = await fail(it, event("1"))
            await it.declare()
            letters = letters_of(it)
            [outcome] = await letters.replay([letter.id])
            assert outcome.outcome == "refused"
            assert "default/t is not declared" in outcome.detail
            assert await found(letters) == [letter]
            [dropped, gone] = await letters.drop([letter.id, NOBODY, letter.id])
            assert (dropped.outcome, gone.outcome) == ("dropped", "unknown")
            assert await found(letters) == []

    asyncio.run(run())


def test_of_two_replays_at_once_one_counts() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(delivery=ONCE))
            letters = letters_of(it)
            ids = [each.id for each in await fail(it, *(event(str(number)) for number in range(20)))]
            both = await asyncio.gather(letters.replay(ids), letters.replay(ids))
            outcomes = Counter(each.outcome for each in (*both[0], *both[1]))
            assert outcomes == {"replayed": 20, "unknown": 20}
            assert it.dispatcher.stats.of("default/t").replayed == 20

    asyncio.run(run())


def test_a_dry_run_changes_nothing() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(delivery=ONCE))
            [letter] = await fail(it, event("1"))
            letters = letters_of(it)
            [outcome] = await letters.replay([letter.id], dry_run=True)
            assert outcome.detail == "event '1' to trigger default/t, function default/f"
            await letters.drop([letter.id], dry_run=True)
            await it.settle()
            assert await found(letters) == [letter]
            assert it.functions.calls == []

    asyncio.run(run())


# --- joins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("later_seconds", [1.0, 3600.0])
def test_a_group_that_was_not_taken_is_joined_anew(later_seconds: float) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("j", "part", join=Join(timeout_seconds=60.0), delivery=ONCE))
            failed = await fail(it, *(part("g", index, 3) for index in range(3)))
            assert [each.event_id for each in failed] == ["g/0", "g/1", "g/2"]
            await it.advance(later_seconds)
            letters = letters_of(it)
            await letters.replay([each.id for each in failed[:2]])
            await it.settle()
            assert it.functions.calls == []
            await it.crash()  # what was replayed is in the log, like any part
            await letters_of(it).replay([failed[2].id])
            await it.settle()
            await it.advance(30.0)
            assert [call[2] for call in it.functions.calls] == [["g/0", "g/1", "g/2"]]
            assert await found(letters_of(it)) == []
            assert await it.pending() == 0
            assert await it.stream("groups.default.j") == []

    asyncio.run(run())


def test_parts_of_an_overdue_group_wait_for_the_others_once_more() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("j", "part", join=Join(timeout_seconds=60.0)))
            await it.publish(part("g", 0, 2))
            await it.advance(61.0)
            [early] = await found(letters_of(it))
            await it.publish(part("g", 1, 2))
            [_, late] = await found(letters_of(it))
            assert "after its group had ended" in late.reason
            await it.advance(5.0)
            await letters_of(it).replay([early.id, late.id])
            await it.settle()
            await it.advance(5.0)
            assert [call[2] for call in it.functions.calls] == [["g/0", "g/1"]]
            assert await found(letters_of(it)) == []

    asyncio.run(run())


@dataclass
class _Again:
    """A delivery whose acknowledgement was lost before."""

    record: Stored
    attempt: int = 2
    acknowledged: bool = False

    async def ack(self) -> None:
        self.acknowledged = True


def test_a_replayed_part_that_comes_again_does_not_open_its_group_again() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("j", "part", join=Join(timeout_seconds=60.0), delivery=ONCE))
            failed = await fail(it, part("g", 0, 1))
            await letters_of(it).replay([failed[0].id])
            await it.advance(1.0)
            assert [call[2] for call in it.functions.calls] == [["g/0"]]
            [record] = [each async for each in it.log.read("broker.default.default", "=to.>")]
            again = _Again(record)
            await it.dispatcher._subscriptions["default/j"]._take(again)  # type: ignore[attr-defined]
            assert again.acknowledged
            await it.advance(120.0)
            assert [call[2] for call in it.functions.calls] == [["g/0"]]
            assert await found(letters_of(it)) == []

    asyncio.run(run())


@pytest.mark.parametrize(
    "way",
    [{}, {"ordering": "key"}, {"batch": Batch(size=2, wait_seconds=0.1)}],
    ids=["single", "key", "batch"],
)
@pytest.mark.parametrize("types", [(), ("other",)])
def test_a_replay_reaches_its_trigger_whatever_its_filters_are_now_and_no_other(
    way: dict[str, Any], types: tuple[str, ...]
) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "a", delivery=ONCE, function="f", **way))
            it.functions.behave = lambda *_: answer(500)
            await it.publish(event("1", "a", partitionkey="k"))
            await it.advance(1.0)  # a batch goes by then
            [letter] = await found(letters_of(it))
            it.functions.behave = lambda *_: answer()
            it.functions.calls.clear()
            # Its filters are others now, and another trigger would match.
            await it.declare(
                trigger("t", *(types or ("b",)), delivery=ONCE, function="f", **way),
                trigger("others", *(("a",) if types else ()), function="g", **way),
            )
            await letters_of(it).replay([letter.id])
            await it.advance(5.0)
            assert [call[1:3] for call in it.functions.calls] == [("default/f", ["1"])]
            assert await it.pending() == 0

    asyncio.run(run())


def test_dead_letters_of_a_trigger_that_is_ordered_are_replayed_in_their_order() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "a", delivery=ONCE, ordering="key"))
            it.functions.behave = lambda *_: answer(400)
            await it.publish(*(event(str(number), "a", partitionkey="k") for number in range(40)))
            await it.advance(60.0)
            it.functions.behave = lambda *_: answer()
            it.functions.calls.clear()
            late = event("0").id

            class _Uneven:
                """A log in which the first one takes long to be found."""

                def __getattr__(self, name: str) -> Any:
                    return getattr(it.log, name)

                async def append(self, stream: str, records: Any, **more: Any) -> list[bool]:
                    if stream.startswith("broker.") and records[0].event.id == late:
                        for _ in range(100):
                            await asyncio.sleep(0)
                    return await it.log.append(stream, records, **more)

            wanted = await found(letters_of(it))
            await letters_of(it, _Uneven()).replay([each.id for each in wanted])
            await it.advance(60.0)
            assert [call[2] for call in it.functions.calls] == [[str(number)] for number in range(40)]

    asyncio.run(run())
