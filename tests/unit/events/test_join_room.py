"""What a joining trigger may hold: which parts are let in, and that those that are not only wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.events.world import World, event, part, trigger, world
from torpor.binding import WireEvent
from torpor.errors import StreamFullError
from torpor.events.dispatcher import Retention
from torpor.events.join_room import SHOWN_SECONDS, Room, size_of
from torpor.events.reckoning import FRESH_SECONDS
from torpor.spec.models import Join

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torpor.events.log import Guard, Record

MOST_BYTES = 400_000
PART_BYTES = 10_000
GROUPS = [f"g{number}" for number in range(36)]
JOIN = trigger("j", "part", join=Join(timeout_seconds=60.0))
STREAM = "groups.default.j"


# --- the room, which is pure --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "size", "opens", "fits"),
    [
        (0, 750, True, True),
        (0, 751, True, False),
        (700, 50, True, True),
        (700, 51, True, False),
        (700, 51, False, True),  # it may make its group whole
        (900, 37, False, True),
        (900, 38, False, False),  # the rest is for endings
        (1000, 1, False, False),
    ],
)
def test_what_there_is_room_for(held: int, size: int, opens: bool, fits: bool) -> None:
    room = Room(1000)
    room.begin()
    room.seen(held, 0.0)
    assert room.take(size, opens=opens, now=0.0) is fits
    assert bool(room.problem(0.0)) is not fits


def test_what_was_let_in_counts_until_a_look_has_it() -> None:
    room = Room(1000)
    assert not room.is_fresh(0.0)
    assert room.take(300, opens=True, now=0.0)
    room.begin()
    assert room.take(200, opens=True, now=0.0)
    room.done(300)
    room.seen(300, 0.0)  # whether that was in it is not known
    assert not room.take(0, opens=True, now=0.0)
    assert (room.is_fresh(FRESH_SECONDS - 0.1), room.is_fresh(FRESH_SECONDS)) == (True, False)
    room.begin()
    room.seen(300, 1.0)
    assert room.take(250, opens=True, now=1.0)  # 300, 200 under way, and these
    assert not room.take(1, opens=True, now=1.0)
    room.done(200)
    room.done(250)
    room.begin()
    room.seen(0, 2.0)
    assert room.take(750, opens=True, now=2.0)


def test_it_is_told_for_a_while_that_there_is_no_room() -> None:
    room = Room(1000)
    assert room.problem(0.0) == ""
    room.begin()
    room.seen(900, 10.0)
    assert not room.take(50, opens=True, now=10.0)
    expected = (
        "its groups hold 900 bytes, of which there may be 1000: parts wait in the broker until groups end"
    )
    assert room.problem(10.0 + SHOWN_SECONDS - 0.1) == expected
    assert room.problem(10.0 + SHOWN_SECONDS) == ""


def test_an_event_is_taken_to_be_no_smaller_than_it_is_in_any_log() -> None:
    assert size_of(event("\u20ac" * 10, data=b"12345")) >= len(event("1").attributes) * 2 + 3 * 30 + 5


# --- parts wait ---------------------------------------------------------------------------------------------


def _first(group: str) -> WireEvent:
    return WireEvent(part(group, 0, 2).attributes, b"x" * PART_BYTES)


async def _problem(it: World) -> str:
    return (await it.dispatcher.states())["default/j"].problem


def _joined(it: World) -> list[list[str]]:
    return sorted(call[2] for call in it.functions.calls)


def test_parts_wait_in_the_broker_while_groups_hold_as_much_as_they_may() -> None:
    async def run() -> None:
        async with world(Retention(max_bytes=MOST_BYTES)) as it:
            await it.declare(JOIN)
            await it.publish(*map(_first, GROUPS))
            await it.advance(3.0)  # then the log has been looked at
            # 29 of some 10,100 bytes are three quarters of what there may be.
            kept = [each.attributes["fanoutid"] for each in await it.stream(STREAM)]
            assert len(kept) == 29
            assert "parts wait in the broker until groups end" in await _problem(it)
            assert await it.pending() == len(GROUPS)
            assert await it.dead() == []
            await it.advance(10.0)  # those that wait come again and again
            assert len(await it.stream(STREAM)) == len(kept)
            assert await _problem(it)
            await it.publish(*(part(group, 1, 2) for group in GROUPS))
            for _ in range(5):
                await it.advance(1.0)
                assert await it.log.size_bytes(STREAM) <= MOST_BYTES
            assert _joined(it) == sorted([f"{group}/0", f"{group}/1"] for group in GROUPS)
            await it.advance(SHOWN_SECONDS)
            assert (await _problem(it), await it.pending()) == ("", 0)
            assert (await it.stream(STREAM), await it.dead()) == ([], [])

    asyncio.run(run())


def test_groups_that_run_out_of_time_make_room_and_a_crash_changes_nothing() -> None:
    async def run() -> None:
        async with world(Retention(max_bytes=MOST_BYTES)) as it:
            await it.declare(JOIN)
            await it.publish(*map(_first, GROUPS))
            await it.advance(5.0)
            kept = len(await it.stream(STREAM))
            assert 0 < kept < len(GROUPS)
            await it.crash()
            await it.advance(5.0)
            assert len(await it.stream(STREAM)) == kept
            await it.advance(55.0)  # a minute after they came, those that were kept are dead letters
            assert len(await it.dead()) == kept
            assert await it.pending() == len(GROUPS) - kept
            await it.advance(65.0)
            dead = [each.attributes["fanoutid"] for each in await it.dead()]
            assert sorted(dead) == sorted(GROUPS)
            assert (await it.stream(STREAM), await it.pending()) == ([], 0)

    asyncio.run(run())


def test_what_the_log_itself_has_no_room_for_comes_again() -> None:
    async def run() -> None:
        async with world() as it:
            it.log = _FullLog(it.log)  # type: ignore[assignment]
            it.dispatcher = it._dispatcher()
            await it.declare(JOIN)
            full: Any = it.log
            full.full = True
            await it.publish(part("g", 0, 1))
            await it.advance(3.0)
            assert "parts wait in the broker" in await _problem(it)
            assert it.functions.calls == []
            assert await it.pending() >= 1
            full.full = False
            await it.advance(1.0)
            assert _joined(it) == [["g/0"]]
            await it.advance(SHOWN_SECONDS)
            assert (await _problem(it), await it.pending(), await it.dead()) == ("", 0, [])

    asyncio.run(run())


def test_a_group_that_ends_while_the_log_is_looked_at_is_not_opened_again() -> None:
    async def run() -> None:
        async with world() as it:
            it.log = _HeldLog(it.log)  # type: ignore[assignment]
            it.dispatcher = it._dispatcher()
            held: Any = it.log
            await it.declare(JOIN)
            await it.publish(part("g", 0, 2))
            await it.advance(1.0)
            held.appends.clear()
            await it.publish(part("g", 1, 2))
            await it.advance(1.0)  # it is being stored, and the last look is old
            held.looks.clear()
            again = part("g", 0, 2)
            await it.publish(again.replace(id="again"))
            await it.advance(1.0)
            held.appends.set()
            await it.advance(1.0)
            assert _joined(it) == [["g/0", "g/1"]]
            held.looks.set()
            await it.advance(2.0)
            assert (await it.pending(), await it.dead(), await it.stream(STREAM)) == (0, [], [])
            assert _joined(it) == [["g/0", "g/1"]]

    asyncio.run(run())


class _HeldLog:
    """A log that lets nothing into groups, or nobody look at them, for as long as that is not set."""

    def __init__(self, log: object) -> None:
        self._log: Any = log
        self.appends, self.looks = asyncio.Event(), asyncio.Event()
        self.appends.set()
        self.looks.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append(
        self, stream: str, records: Sequence[Record], *, guard: Guard | None = None
    ) -> list[bool]:
        if stream == STREAM:
            await self.appends.wait()
        return await self._log.append(stream, records, guard=guard)  # type: ignore[no-any-return]

    async def size_bytes(self, stream: str) -> int:
        await self.looks.wait()
        return await self._log.size_bytes(stream)  # type: ignore[no-any-return]


class _FullLog:
    """A log whose groups have no room."""

    def __init__(self, log: object) -> None:
        self._log: Any = log
        self.full = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append(
        self, stream: str, records: Sequence[Record], *, guard: Guard | None = None
    ) -> list[bool]:
        if self.full and stream == STREAM:
            raise StreamFullError("full")
        return await self._log.append(stream, records, guard=guard)  # type: ignore[no-any-return]
