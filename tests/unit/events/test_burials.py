"""What becomes a dead letter and can't be written is given back, and its function not called for it again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.events.test_intake import Away, problem
from tests.unit.events.world import BROKER, World, answer, event, part, trigger
from torpor.errors import StreamFullError
from torpor.events import names
from torpor.events.burials import MOST, Burial, Burials
from torpor.events.delivery import DeadLetter
from torpor.events.dispatcher import Dispatcher
from torpor.events.join_parts import MAX_BATCH_BYTES, MAX_GROUP_BYTES
from torpor.events.patience import SHOWN_SECONDS, Patience
from torpor.spec.models import Backlog, Batch, Join, RateLimit
from torpor.testing.clock import MovableClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from torpor.events.log import Stored

FULL = StreamFullError("dead letters are full")
WHY = DeadLetter("the function answered 400, which is final", 400)


def run(test: Callable[[World, Away], Awaitable[None]]) -> None:
    """On a log that may refuse dead letters."""

    async def in_world() -> None:
        it = World()
        away = Away(it.log, names.dead_stream(BROKER))
        it.dispatcher = Dispatcher(away, it.functions, it.clock)
        try:
            await test(it, away)
        finally:
            await it.dispatcher.close()

    asyncio.run(in_world())


# --- what is remembered, which is pure ----------------------------------------------------------------------


def test_a_burial_is_tried_again_ever_more_seldom_and_only_what_a_letter_has_is_kept() -> None:
    burials, burial = Burials(), Burial(WHY, 3, b"x" * 5000)
    assert [burials.put_off(7, burial) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert burials.of(7) == Burial(WHY, 3, b"x" * 1024)
    assert burials.of(8) is None
    burials.done(7)
    burials.done(7)
    assert burials.of(7) is None
    assert burials.put_off(7, burial) == 1


def test_of_too_many_the_one_goes_that_did_not_come_again_for_longest() -> None:
    burials, burial = Burials(), Burial(WHY, 1)
    for sequence in range(MOST):
        burials.put_off(sequence, burial)
    burials.put_off(0, burial)
    burials.put_off(MOST, burial)
    assert [burials.of(sequence) is None for sequence in (0, 1, 2, MOST)] == [False, True, False, False]


def test_a_problem_is_told_until_something_is_written_and_of_its_slot_alone() -> None:
    clock = MovableClock()
    patience = Patience(clock)
    patience.failed("one", "dead letters", FULL)
    assert patience.problem("one") == "dead letters can't be written: dead letters are full"
    patience.succeeded("two")
    assert (patience.problem("one") != "", patience.problem("two")) == (True, "")
    patience.succeeded("one")
    assert patience.problem("one") == ""

    async def pass_by() -> None:
        async def settle() -> None:
            await asyncio.sleep(0)

        await clock.advance(SHOWN_SECONDS, settle)

    patience.failed("one", "dead letters", FULL)
    asyncio.run(pass_by())
    assert patience.problem("one") == "", "another process has dealt with it"


# --- with a dispatcher --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [{}, {"ordering": "key"}, {"batch": Batch(size=2, wait_seconds=1.0)}],
    ids=["singly", "key", "batch"],
)
def test_the_function_is_called_once_and_the_letter_says_what_it_answered(more: dict[str, Any]) -> None:
    async def test(it: World, away: Away) -> None:
        await it.declare(trigger("t", "a", **more))
        it.functions.behave = lambda *_: answer(400)
        away.error = FULL
        await it.publish(event("1", "a"))
        await it.advance(600.0)
        assert (await problem(it)).startswith("dead letters can't be written")
        away.error = None
        await it.advance(61.0)
        [letter] = await it.dead()
        assert (letter.attributes["torporattempts"], letter.attributes["knativeerrorcode"]) == ("1", "400")
        assert [call[2] for call in it.functions.calls] == [["1"]]
        assert (await it.pending(), await problem(it)) == (0, "")

    run(test)


@pytest.mark.parametrize("more", [{}, {"ordering": "key"}], ids=["singly", "key"])
def test_it_takes_nothing_of_the_rate_limit(more: dict[str, Any]) -> None:
    async def test(it: World, away: Away) -> None:
        await it.declare(trigger("t", "a", rate_limit=RateLimit(events=1), **more))
        it.functions.behave = lambda events, _: answer(400 if events[0].id.startswith("bad") else 204)
        away.error = FULL
        await it.publish(*(event(f"bad{number}", "a") for number in range(40)))
        await it.advance(60.0)
        it.functions.calls.clear()
        await it.publish(*(event(f"good{number}", "a") for number in range(30)))
        await it.advance(60.0)
        assert len(it.functions.calls) == 30

    run(test)


def test_it_is_not_moved_out_of_a_backlog_for_another_reason() -> None:
    async def test(it: World, away: Away) -> None:
        backlog = Backlog(limit=2, on_limit="deadLetterOldest")
        await it.declare(trigger("t", "a", parallelism=1, backlog=backlog))
        it.functions.behave = lambda events, _: answer(400 if events[0].id == "1" else 204)
        away.error = FULL
        await it.publish(event("1", "a"))
        await it.advance(1.0)
        it.functions.gate = asyncio.Event()
        await it.publish(*(event(f"later{number}", "a") for number in range(6)))
        await it.advance(120.0)
        away.error = None
        await it.advance(5.0)
        it.functions.gate.set()
        await it.advance(120.0)
        letters = {each.id: each for each in await it.dead()}
        assert letters["1"].attributes["torporerror"] == WHY.reason
        assert it.dispatcher.stats.of("default/t").backlog_overflowed == len(letters) - 1

    run(test)


def test_it_is_forgotten_with_the_trigger_whose_records_it_is_of() -> None:
    async def test(it: World, away: Away) -> None:
        joining = trigger("t", "part", join=Join(timeout_seconds=60.0))
        await it.declare(joining)
        it.functions.behave = lambda *_: answer(400)
        away.error = FULL
        await it.publish(part("old", 0, 2), part("old", 1, 2))
        await it.advance(5.0)
        await it.declare()
        await it.declare(joining)
        it.functions.behave = lambda *_: answer()
        it.functions.calls.clear()
        away.error = None
        await it.publish(part("new", 0, 2), part("new", 1, 2))
        await it.advance(5.0)
        assert [call[2] for call in it.functions.calls] == [["new/0", "new/1"]]
        assert await it.dead() == []

    run(test)


def test_a_group_that_is_to_become_dead_letters_is_not_loaded_again_for_it() -> None:
    read = 0

    class Counting:
        """A log that counts the parts that are read."""

        def __init__(self, log: Any) -> None:
            self._log = log

        def __getattr__(self, name: str) -> Any:
            return getattr(self._log, name)

        async def read(self, stream: str, key: str, **more: Any) -> AsyncIterator[Stored]:
            nonlocal read
            async for stored in self._log.read(stream, key, **more):
                read += stream.startswith("groups.") and key.startswith("part.")
                yield stored

    async def run() -> None:
        it = World()
        away = Away(Counting(it.log), names.dead_stream(BROKER))
        it.dispatcher = Dispatcher(away, it.functions, it.clock)
        await it.declare(trigger("t", "part", join=Join(timeout_seconds=60.0)))
        away.error = FULL
        parts = MAX_GROUP_BYTES // MAX_BATCH_BYTES + 2
        for index in range(parts):
            each = part("g", index, parts)
            await it.publish(each.replace(data=b"x" * (MAX_BATCH_BYTES - 100_000)))
        await it.advance(60.0)
        assert read < 3 * parts, "once to find it too large, and the first page of it with each try"
        away.error = None
        await it.advance(61.0)
        assert len(await it.dead()) == parts
        assert (it.functions.calls, await it.pending()) == ([], 0)
        await it.dispatcher.close()

    asyncio.run(run())
