"""Events that a broker still has, delivered again: which, to whom, page by page, and once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.unit.events.world import BROKER, World, answer, event, part, trigger, world
from torpor.errors import EventLogError
from torpor.events.archive import Archive
from torpor.events.declared import Callee
from torpor.events.dispatcher import HOLD_SECONDS
from torpor.events.explain import Explainer
from torpor.events.letters import DeadLetters
from torpor.spec.history import Question
from torpor.spec.letters import LetterSelection
from torpor.spec.models import Join
from torpor.spec.replays import Replay, ReplayedEvent

RUN = "a" * 32


def archive(it: World) -> Archive:
    return Archive(
        it.log, it.dispatcher.intake, it.dispatcher.recorder, it.dispatcher.routes, it.dispatcher.route
    )


async def replay(it: World, **changes: Any) -> list[ReplayedEvent]:
    """All pages of a replay of the whole past."""
    until = datetime.fromtimestamp(it.clock.now(), UTC)
    wanted = Replay(**{"since": datetime.fromtimestamp(1, UTC), "until": until, "run": RUN, **changes})
    found: list[ReplayedEvent] = []
    while True:
        page = await archive(it).replay(BROKER, wanted)
        assert len(page.items) <= wanted.limit
        found += page.items
        if page.next_since is None:
            await it.settle()
            return found
        wanted = wanted.model_copy(update={"since": page.next_since, "after": page.next_after})


async def publish_each(it: World, *events: Any) -> None:
    """One a second."""
    for each in events:
        await it.publish(each)
        await it.advance(1.0)
    it.functions.calls.clear()


def delivered(it: World) -> list[tuple[str, str]]:
    return [(function, ids[0]) for _, function, ids, _ in it.functions.calls]


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_events_go_again_to_the_triggers_that_match_now(limit: int) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "a", function="f"))
            await publish_each(it, *(event(str(number), "ab"[number % 2]) for number in range(6)))
            await it.declare(trigger("t", "a", function="f"), trigger("u", function="g"))
            found = await replay(it, limit=limit)
            assert [(each.id, each.triggers) for each in found] == [
                ("0", ("default/t", "default/u")),
                ("1", ("default/u",)),
                ("2", ("default/t", "default/u")),
                ("3", ("default/u",)),
                ("4", ("default/t", "default/u")),
                ("5", ("default/u",)),
            ]
            assert sorted(delivered(it)) == sorted(
                [("default/g", str(number)) for number in range(6)]
                + [("default/f", str(number)) for number in (0, 2, 4)]
            )
            assert await it.pending() == 0

    asyncio.run(run())


def test_filters_and_times_narrow_it() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", function="f"), trigger("u", function="g"))
            begin = it.clock.now()
            await publish_each(it, *(event(str(number), f"a.{number}") for number in range(5)))

            def at(seconds: float) -> datetime:
                return datetime.fromtimestamp(begin + seconds, UTC)

            found = await replay(it, since=at(1.0), until=at(4.0))
            assert [(each.id, each.triggers) for each in found] == [
                (str(number), ("default/t", "default/u")) for number in (1, 2, 3)
            ]
            assert len(delivered(it)) == 6
            it.functions.calls.clear()
            assert [each.id for each in await replay(it, filters=["type=*.4"], run="b" * 32)] == ["4"]
            assert len(delivered(it)) == 2

    asyncio.run(run())


def test_a_repeated_request_has_no_further_effect_and_a_replay_replays_no_replays() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger())
            await publish_each(it, event("1"))
            for _ in range(3):
                assert [each.id for each in await replay(it)] == ["1"]
                await it.advance(1.0)
            assert delivered(it) == [("default/f", "1")]
            assert [each.id for each in await replay(it, run="b" * 32)] == ["1"]
            assert delivered(it) == [("default/f", "1")] * 2

    asyncio.run(run())


def test_a_dry_run_changes_nothing() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger())
            await publish_each(it, event("1"), event("2"))
            assert [each.id for each in await replay(it, dry_run=True)] == ["1", "2"]
            assert delivered(it) == []
            assert len(await it.stream("broker.default.default")) == 2

    asyncio.run(run())


def test_a_group_is_joined_again() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("j", "part", join=Join(timeout_seconds=60.0)))
            await publish_each(it, part("g", 0, 2), part("g", 1, 2))
            await replay(it)
            await it.advance(1.0)
            assert [ids for _, _, ids, _ in it.functions.calls] == [["g/0", "g/1"]]

    asyncio.run(run())


# --- to one function ----------------------------------------------------------------------------------------


def test_a_function_gets_them_whatever_its_triggers_are_and_nobody_else() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "a", function="f"), trigger("g", "z", function="g"), f=9.0, g=9.0)
            await publish_each(it, event("1"), event("2", "b"), event("3", "z"))
            found = await replay(it, function="default/g", limit=1)
            assert [(each.id, each.triggers) for each in found] == [
                (each, ("default/function:g",)) for each in "123"
            ]
            assert sorted(delivered(it)) == [("default/g", each) for each in "123"]
            assert it.functions.timeouts[-1] == 9.0 + HOLD_SECONDS
            it.functions.calls.clear()
            assert await replay(it, function="default/g", limit=1) == found  # the same run
            assert delivered(it) == []

    asyncio.run(run())


@pytest.mark.parametrize("bound", ["_MOST_RECORDS", "_MOST_BYTES"])
def test_what_is_too_much_at_once_is_written_in_parts(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"torpor.events.archive.{bound}", 3)

    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", function="f"), trigger("u", function="g"))
            await publish_each(it, *(event(str(number), data=b"12") for number in range(5)))
            appended: list[int] = []
            append = it.log.append

            async def counted(stream: str, records: Any, **more: Any) -> list[bool]:
                if stream == "broker.default.default":
                    appended.append(len(records))
                return await append(stream, records, **more)

            it.log.append = counted  # type: ignore[method-assign]
            await replay(it)
            assert appended == ([3, 3, 3, 1] if bound == "_MOST_RECORDS" else [2, 2, 2, 2, 2])
            assert len(delivered(it)) == 10

    asyncio.run(run())


def test_its_retries_and_dead_letters_are_those_of_a_trigger_with_nothing_but_its_function() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(f=9.0)
            await publish_each(it, event("1", "a"))
            it.functions.behave = lambda *_: answer(503)
            await replay(it, function="default/f")
            await it.advance(600.0)
            assert [attempt for *_, attempt in it.functions.calls] == list(range(1, 12))
            [dead] = await it.dead()
            assert dead.attributes["torportrigger"] == "default/function:f"
            assert dead.attributes["knativeerrordest"] == "/function/f.default"
            # A dead letter goes there again.
            it.functions.behave = lambda *_: answer()
            it.functions.calls.clear()
            dispatcher = it.dispatcher
            letters = DeadLetters(
                it.log, dispatcher.intake, dispatcher.stats, dispatcher.recorder, dispatcher.route
            )
            [letter] = [each async for each in await letters.select(LetterSelection())]
            [outcome] = await letters.replay([letter.id])
            assert outcome.outcome == "replayed"
            await it.advance(1.0)
            assert delivered(it) == [("default/f", "1")]
            assert await it.dead() == []
            explainer = Explainer(it.log, it.clock, dispatcher.routes)
            [one] = (await explainer.explain(Question(id="1"))).items
            assert [step.text for step in one.steps if step.what == "accepted"] == [
                "written as a replay for function default/f alone"
            ] * 2
            assert one.steps[-1].text == "attempt 1 delivered"
            assert one.steps[-1].trigger == "default/function:f"
            assert one.triggers == ()

    asyncio.run(run())


def test_another_revision_than_the_one_that_is_meant_gets_nothing() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(functions={"default/f": Callee(timeout_seconds=9.0, revision="f-00001")})
            await publish_each(it, event("1"))
            await replay(it, function="default/f@f-00001")
            assert delivered(it) == [("default/f", "1")]
            await it.dispatcher.halt()
            await it.dispatcher.apply(it.declared)
            await it.declare(functions={"default/f": Callee(timeout_seconds=9.0, revision="f-00002")})
            await replay(it, function="default/f@f-00001", run="b" * 32)
            await it.advance(1.0)
            assert delivered(it) == [("default/f", "1")]
            [dead] = await it.dead()
            reason = "it is for revision f-00001 of the function, and f-00002 serves now"
            assert dead.attributes["torporerror"] == reason

    asyncio.run(run())


def test_it_outlasts_a_crash_and_a_function_that_is_not_there_is_refused() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(f=9.0)
            await publish_each(it, event("1"))
            with pytest.raises(EventLogError, match="function default/g is not known"):
                await replay(it, function="default/g")
            with pytest.raises(ValueError, match="not in the namespace of broker default/default"):
                await replay(it, function="other/f")
            it.functions.gate = asyncio.Event()
            await replay(it, function="default/f")
            assert len(delivered(it)) == 1
            await it.crash()
            it.functions.gate.set()
            await it.advance(15.0)
            assert delivered(it) == [("default/f", "1")] * 2
            assert await it.dispatcher.strays() == set()

    asyncio.run(run())
