"""A joining trigger on the log in memory: whole, late, overdue, and crashes at every step."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.unit.events.world import CrashingLog, World, answer, event, part, trigger, world
from torpor.binding import decode
from torpor.errors import StreamFullError
from torpor.events.claims import Claims
from torpor.events.dispatcher import Dispatcher
from torpor.events.join_log import JoinLog
from torpor.events.join_parts import Loader
from torpor.events.log import Record
from torpor.events.names import identity, token
from torpor.spec.models import Delivery, Join

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from torpor.binding import WireEvent
    from torpor.events.log import Guard
    from torpor.events.memory import MemoryLog
    from torpor.transport import Response

JOIN = trigger("j", "part", join=Join(timeout_seconds=60.0))
PARTIAL = trigger("j", "part", join=Join(timeout_seconds=60.0, on_timeout="partial"))
GROUPS = "groups.default.j"


def _joined(events: list[WireEvent], _: int) -> Response:
    group = events[0].attributes["fanoutid"]
    data = orjson.dumps([each.attributes["fanoutindex"] for each in events])
    return answer(events=[event(f"{group}/joined", "joined", data, datacontenttype="application/json")])


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_group_is_delivered_once_whole_and_in_order(order: tuple[int, ...]) -> None:
    async def run() -> None:
        async with world() as it:
            it.functions.behave = _joined
            await it.declare(JOIN)
            for index in order:
                assert it.functions.calls == []
                await it.publish(part("g", index, 3))
            assert [call[2] for call in it.functions.calls] == [["g/0", "g/1", "g/2"]]
            assert dict(it.functions.headers[0])[b"torpor-joined"] == b"g"
            [joined] = await it.events("joined")
            assert joined.data == b'["0","1","2"]'
            assert await it.pending() == 0
            assert await it.stream(GROUPS) == []
            assert await it.dead() == []

    asyncio.run(run())


def test_groups_are_apart() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(JOIN)
            for index, group in itertools.product(range(4), "abc"):
                await it.publish(part(group, index, 4))
            assert sorted(call[2] for call in it.functions.calls) == [
                [f"{group}/{index}" for index in range(4)] for group in "abc"
            ]

    asyncio.run(run())


def test_a_part_that_comes_again_counts_once() -> None:
    async def run() -> None:
        async with world() as it:
            it.functions.behave = _joined
            await it.declare(JOIN)
            await it.publish(part("g", 0, 2))
            again = part("g", 0, 2)
            again.attributes["id"] = "another"  # a producer that derives no ids
            await it.publish(again)
            assert it.functions.calls == []
            await it.publish(part("g", 1, 2))
            late = part("g", 1, 2)
            late.attributes["id"] = "late"
            await it.publish(late)
            assert [call[2] for call in it.functions.calls] == [["g/0", "g/1"]]
            assert await it.pending() == 0
            assert await it.dead() == []

    asyncio.run(run())


def test_a_late_duplicate_is_known_after_a_restart() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(JOIN)
            await it.publish(part("g", 0, 1))
            await it.crash()
            late = part("g", 0, 1)
            late.attributes["id"] = "late"
            await it.publish(late)
            assert len(it.functions.calls) == 1
            assert await it.pending() == 0

    asyncio.run(run())


def test_an_incomplete_group_becomes_dead_letters() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(JOIN)
            await it.publish(part("g", 0, 3))
            await it.advance(30.0)
            await it.publish(part("g", 2, 3))
            await it.advance(29.9)
            assert await it.dead() == []
            await it.advance(0.2)  # 60 s after the first part
            letters = await it.dead()
            assert [letter.id for letter in letters] == ["g/0", "g/2"]
            assert letters[0].attributes["torporerror"] == (
                "the group was not whole in time: 2 of 3 parts came in time"
            )
            await it.publish(part("g", 1, 3))  # must not vanish either
            assert [letter.id for letter in await it.dead()] == ["g/0", "g/2", "g/1"]
            assert it.functions.calls == []
            assert await it.pending() == 0
            assert await it.stream(GROUPS) == []

    asyncio.run(run())


def test_an_incomplete_group_may_be_delivered_in_part() -> None:
    async def run() -> None:
        async with world() as it:
            it.functions.behave = _joined
            await it.declare(PARTIAL)
            await it.publish(part("g", 0, 3), part("g", 2, 3))
            await it.advance(61.0)
            assert [call[2] for call in it.functions.calls] == [["g/0", "g/2"]]
            again = part("g", 2, 3)
            again.attributes["id"] = "again"
            await it.publish(part("g", 1, 3), again)
            [letter] = await it.dead()
            assert letter.id == "g/1"  # and what was delivered is not also a dead letter
            assert "after its group had ended" in letter.attributes["torporerror"]
            assert await it.pending() == 0

    asyncio.run(run())


def test_a_group_is_overdue_though_the_dispatcher_was_away() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(PARTIAL)
            await it.publish(part("g", 1, 3))
            for subscription in it.dispatcher._subscriptions.values():
                await subscription.stop(0.0)
            await it.clock.advance(120.0)
            await it.crash()
            await it.advance(0.1)
            assert [call[2] for call in it.functions.calls] == [["g/1"]]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({}, "no attribute 'fanoutid'"),
        ({"fanoutid": "g", "fanoutindex": "7", "fanoutsize": "2"}, "below 'fanoutsize'"),
    ],
)
def test_what_can_not_be_joined_becomes_a_dead_letter(attributes: dict[str, str], says: str) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(JOIN)
            await it.publish(event("1", "part", None, **attributes))
            [letter] = await it.dead()
            assert says in letter.attributes["torporerror"]
            assert await it.pending() == 0

    asyncio.run(run())


def test_parts_that_disagree_on_the_size_become_dead_letters() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(JOIN)
            odd = part("g", 1, 3)
            odd.attributes["id"] = "odd"
            await it.publish(part("g", 0, 2), odd, part("g", 1, 2))
            assert [call[2] for call in it.functions.calls] == [["g/0", "g/1"]]
            assert [letter.id for letter in await it.dead()] == ["odd"]

    asyncio.run(run())


def test_a_joined_group_is_tried_again_as_a_whole() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(JOIN)
            it.functions.behave = lambda _, attempt: answer(500 if attempt < 3 else 204)
            await it.publish(part("g", 0, 2), part("g", 1, 2))
            await it.advance(60.0)
            assert it.functions.times() == [0.0, 1.0, 3.0]
            assert {tuple(call[2]) for call in it.functions.calls} == {("g/0", "g/1")}
            assert await it.dead() == []

    asyncio.run(run())


def test_a_joined_group_that_fails_becomes_dead_letters_part_by_part() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("j", "part", join=Join(), delivery=Delivery(retry=0)))
            it.functions.behave = lambda *_: answer(500)
            await it.publish(part("g", 0, 2), part("g", 1, 2))
            assert [letter.id for letter in await it.dead()] == ["g/0", "g/1"]
            assert await it.stream(GROUPS) == []

    asyncio.run(run())


def test_a_group_too_large_for_a_batch_travels_by_claim_check() -> None:
    class Store:
        async def put(self, data: bytes, content_type: str | None = None) -> str:
            return f"store:{len(data)}"

        async def read(self, reference: str, max_bytes: int) -> bytes | None:
            raise AssertionError(reference)

        async def get(self, reference: str) -> bytes:
            raise NotImplementedError

    async def run() -> None:
        it = World()
        it.dispatcher = Dispatcher(it.log, it.functions, it.clock, claims=Claims(Store()))
        await it.declare(JOIN)
        parts = [part("g", index, 10) for index in range(10)]
        for each in parts:
            await it.publish(each.replace(data=b"x" * 1_000_000, datacontenttype="application/octet-stream"))
        [headers] = it.functions.headers
        assert decode(headers, b"[]") == []
        [(_, _, ids, _)] = it.functions.calls
        assert ids == [f"g/{index}" for index in range(10)]
        await it.dispatcher.close()

    asyncio.run(run())


# --- large groups without a blob store ----------------------------------------------------------------------

_DATA = b"x" * 7_000_000


def _large(group: str, size: int, data: bytes = _DATA) -> list[WireEvent]:
    parts = [part(group, index, size) for index in range(size)]
    return [each.replace(data=data, datacontenttype="text/plain") for each in parts]


def test_groups_larger_than_a_batch_are_sent_one_at_a_time() -> None:
    async def run() -> None:
        async with world() as it:
            it.functions.gate = asyncio.Event()
            await it.declare(JOIN)
            for group in "abc":
                await it.publish(*_large(group, 2))
            for group in "de":
                await it.publish(*_large(group, 1))
            assert [call[2] for call in it.functions.calls] == [["a/0", "a/1"], ["d/0"], ["e/0"]]
            it.functions.gate.set()
            await it.settle()
            assert sorted(call[2] for call in it.functions.calls)[1:3] == [["b/0", "b/1"], ["c/0", "c/1"]]
            assert (await it.dead(), await it.pending()) == ([], 0)

    asyncio.run(run())


def _watched(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch, *, takes: int | None = None
) -> tuple[list[int], asyncio.Event]:
    """How many bytes each append has to a stream of dead letters.

    Where it is given, so many are taken and no more, until the event is set.
    """
    sizes: list[int] = []
    room, append = asyncio.Event(), log.append

    async def watched(stream: str, records: Sequence[Record], *, guard: Guard | None = None) -> list[bool]:
        if stream.startswith("dead."):
            sizes.append(sum(len(each.event.data or b"") for each in records))
            if takes is not None and len(sizes) > takes and not room.is_set():
                raise StreamFullError("it is full")
        return await append(stream, records, guard=guard)

    monkeypatch.setattr(log, "append", watched)
    return sizes, room


def test_a_group_too_large_to_send_becomes_dead_letters_some_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        async with world() as it:
            sizes, _ = _watched(it.log, monkeypatch)
            await it.declare(JOIN)
            # 64 MiB are 67,108,864 bytes: 9 parts are sent, 10 are not.
            await it.publish(*_large("fits", 9))
            assert len(it.functions.calls) == 1
            await it.publish(*_large("g", 10))
            letters = await it.dead()
            assert [letter.id for letter in letters] == [f"g/{index}" for index in range(10)]
            assert letters[0].attributes["torporerror"] == (
                "the group has more than 67108864 bytes, too many to send; "
                "this platform has no place for blobs, where larger data would go"
            )
            assert sizes == [len(_DATA)] * 10
            assert len(it.functions.calls) == 1
            assert (await it.stream(GROUPS), await it.pending()) == ([], 0)
            again = part("g", 3, 10)
            again.attributes["id"] = "again"
            await it.publish(again)
            assert len(await it.dead()) == 10, "it is known to be one of them"
            lines = [each async for each in it.log.read("records.default.default", ">")]
            assert sum(b'"k":"dead"' in (each.event.data or b"") for each in lines) == 1

    asyncio.run(run())


def test_a_group_may_be_too_large_beside_a_blob_store_too() -> None:
    """By what stays in its events: data of 1 KiB, and attributes."""

    class Store:
        async def put(self, data: bytes, content_type: str | None = None) -> str:
            raise AssertionError("it is small")

        async def read(self, reference: str, max_bytes: int) -> bytes | None:
            raise NotImplementedError

        async def get(self, reference: str) -> bytes:
            raise NotImplementedError

    async def loaded(size: int) -> int | None:
        async def parts() -> AsyncGenerator[tuple[int, WireEvent], None]:
            for index in range(size):
                yield index, event(f"{index}", data=b"x" * 1000, note="y" * 15_000)

        async with Loader(Claims(Store())).loaded(parts()) as found:
            return None if found is None else len(found)

    async def run() -> None:
        assert await loaded(4000) == 4000  # some 64,300,000 bytes
        assert await loaded(4300) is None

    asyncio.run(run())


def test_a_group_that_runs_out_of_time_becomes_dead_letters_some_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        async with world() as it:
            sizes, _ = _watched(it.log, monkeypatch)
            await it.declare(JOIN)
            await it.publish(*_large("g", 5, _DATA[:3_000_000])[:4])
            await it.advance(61.0)
            assert sizes == [6_000_000, 6_000_000]
            assert [letter.id for letter in await it.dead()] == [f"g/{index}" for index in range(4)]
            assert (await it.stream(GROUPS), await it.pending()) == ([], 0)

    asyncio.run(run())


def test_a_group_half_of_which_became_dead_letters_is_finished_whenever_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        async with world() as it:
            tried, room = _watched(it.log, monkeypatch, takes=1)
            await it.declare(JOIN)
            await it.publish(*_large("g", 5, _DATA[:3_000_000])[:4])
            await it.advance(900.0)  # the log knows identities for 600 seconds
            assert [letter.id for letter in await it.dead()] == ["g/0", "g/1"]
            assert len(tried) < 50, "ever more seldom"
            room.set()
            await it.crash()
            await it.advance(30.0)
            assert [letter.id for letter in await it.dead()] == [f"g/{index}" for index in range(4)]
            assert (await it.stream(GROUPS), await it.pending()) == ([], 0)

    asyncio.run(run())


def test_a_group_that_can_not_be_buried_yet_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with world() as it:
            _watched(it.log, monkeypatch, takes=0)
            await it.declare(JOIN)
            await it.publish(*_large("huge", 10))
            await it.publish(*_large("large", 3))
            await it.advance(10.0)
            assert [call[2] for call in it.functions.calls] == [["large/0", "large/1", "large/2"]]

    asyncio.run(run())


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fail_at", range(11, 24))
def test_a_log_that_fails_at_any_step_leaves_one_dead_letter_of_each_part(fail_at: int, after: bool) -> None:
    """Appends: ten parts, their ending, ten dead letters, the mark; any of the later ones may fail."""

    async def run() -> None:
        it = World()
        crashing = CrashingLog(it.log)
        it.dispatcher = Dispatcher(crashing, it.functions, it.clock)  # type: ignore[arg-type]
        await it.declare(JOIN)
        crashing.fail_at, crashing.after = fail_at, after
        for each in _large("g", 10):
            record = Record(token(each.type), identity(each.source, each.id), each)
            await it.log.append("broker.default.default", [record])
        await it.settle()
        await it.advance(20.0)
        assert [letter.id for letter in await it.dead()] == [f"g/{index}" for index in range(10)]
        assert it.functions.calls == []
        assert (await it.stream(GROUPS), await it.pending()) == ([], 0)
        await it.dispatcher.close()

    asyncio.run(run())


# --- crashes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fail_at", range(1, 9))
@pytest.mark.parametrize("declared", [JOIN, PARTIAL])
def test_a_log_that_fails_at_any_step_changes_nothing(fail_at: int, after: bool, declared: object) -> None:
    """Appends: three parts, their ending, the reply, the mark; any may fail, before or after its effect."""

    async def run() -> None:
        it = World()
        crashing = CrashingLog(it.log)
        it.dispatcher = Dispatcher(crashing, it.functions, it.clock)  # type: ignore[arg-type]
        it.functions.behave = _joined
        await it.declare(declared)  # type: ignore[arg-type]
        crashing.fail_at, crashing.after = fail_at, after
        for index in (2, 0, 1):
            each = part("g", index, 3)
            record = Record(token(each.type), identity(each.source, each.id), each)
            await it.log.append("broker.default.default", [record])
        await it.settle()
        await it.advance(20.0)
        [joined] = await it.events("joined")
        assert joined.data == b'["0","1","2"]'
        assert await it.dead() == []
        assert await it.pending() == 0
        assert await it.stream(GROUPS) == []
        await it.dispatcher.close()

    asyncio.run(run())


@pytest.mark.parametrize("after_turns", range(0, 60, 3))
def test_a_crash_at_any_moment_changes_nothing(after_turns: int) -> None:
    async def run() -> None:
        async with world() as it:
            it.functions.behave = _joined
            await it.declare(JOIN)
            publishing = asyncio.ensure_future(it.publish(*(part("g", index, 3) for index in (1, 2, 0))))
            for _ in range(after_turns):
                await asyncio.sleep(0)
            await it.crash()
            await publishing
            await it.advance(30.0)
            [joined] = await it.events("joined")
            assert joined.data == b'["0","1","2"]'
            assert await it.pending() == 0
            assert await it.dead() == []
            await it.crash()
            assert await it.stream(GROUPS) == []

    asyncio.run(run())


def test_what_a_crash_left_of_a_group_is_removed_at_the_next_start() -> None:
    """The group was marked and its ending acknowledged, and then came the crash."""

    async def run() -> None:
        async with world() as it:
            it.functions.behave = _joined
            await it.declare(JOIN)
            store = JoinLog(it.log, JOIN.key, 2**30)
            subscription = it.dispatcher._subscriptions[JOIN.key]
            subscription._store.clear = _lost  # type: ignore[attr-defined]
            await it.publish(part("g", 0, 1))
            assert len(await it.events("joined")) == 1
            assert await it.pending() == 0
            assert await store.endings() == {"g"}
            await it.crash()
            await it.settle()
            assert await it.stream(GROUPS) == []
            assert len(it.functions.calls) == 1

    asyncio.run(run())


async def _lost(_: str) -> None:
    """Stands for what the crash prevents."""


def test_a_forgotten_join_leaves_nothing_behind() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(JOIN)
            await it.publish(part("g", 0, 2))
            await it.declare()
            assert GROUPS not in await it.log.streams()

    asyncio.run(run())
