"""Events that a broker still has, delivered again: which, to whom, page by page, and once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.unit.events.world import BROKER, World, event, part, trigger, world
from torpor.events.archive import Archive
from torpor.spec.models import Join
from torpor.spec.replays import Replay, ReplayedEvent

RUN = "a" * 32


def archive(it: World) -> Archive:
    return Archive(it.log, it.dispatcher.recorder, it.dispatcher.routes, it.dispatcher.route)


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


def test_filters_times_and_functions_narrow_it() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", function="f"), trigger("u", function="g"))
            begin = it.clock.now()
            await publish_each(it, *(event(str(number), f"a.{number}") for number in range(5)))

            def at(seconds: float) -> datetime:
                return datetime.fromtimestamp(begin + seconds, UTC)

            found = await replay(it, since=at(1.0), until=at(4.0), function="default/g")
            assert [(each.id, each.triggers) for each in found] == [
                (str(number), ("default/u",)) for number in (1, 2, 3)
            ]
            assert delivered(it) == [("default/g", str(number)) for number in (1, 2, 3)]
            it.functions.calls.clear()
            assert [each.id for each in await replay(it, filters=["type=*.4"], run="b" * 32)] == ["4"]
            assert len(delivered(it)) == 2
            assert await replay(it, function="default/none") == []

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
