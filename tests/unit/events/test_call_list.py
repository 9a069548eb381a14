"""Calls that nobody waits for, listed: the newest first, by function and state, and never all at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from tests.unit.events.call_world import CALLEES, OK, CallWorld, call_world
from torpor.events import names
from torpor.events.call_list import MOST_READ, CallList, Place, begin, beyond, keys_of
from torpor.events.calls import Call, Outcome, call_id
from torpor.events.log import Record
from torpor.spec.calls import CallPage, CallSelection
from torpor.transport import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from torpor.events.log import Stored
    from torpor.events.memory import MemoryLog

GONE = Response(410, [], b"no")


def run(test: Callable[[CallWorld], Awaitable[None]]) -> None:
    async def inner() -> None:
        async with call_world() as it:
            await test(it)

    asyncio.run(inner())


class _Counting:
    """A log that counts the records that it gives."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.given = 0
        self.looked_up = 0

    def read(self, stream: str, key: str) -> Any:
        self.looked_up += 1
        return self._log.read(stream, key)

    async def newest(self, stream: str, key: str, limit: int, *, before: int | None) -> Sequence[Stored]:
        found = await self._log.newest(stream, key, limit, before=before)
        self.given += len(found)
        return found


def _ids(page: CallPage) -> list[str]:
    return [each.id for each in page.items]


async def _pages(calls: CallList, selection: CallSelection) -> list[CallPage]:
    pages = [await calls.page(selection)]
    while pages[-1].next is not None:
        pages.append(await calls.page(selection.model_copy(update={"after": pages[-1].next})))
    return pages


async def _fill(it: CallWorld, number: int, *, open_ones: Sequence[int] = ()) -> list[str]:
    """Accept so many calls of ``default/g``, which has no worker; all but some have an outcome."""
    calls = [
        Call(call_id("default/g", f"{each:032x}"), "POST", "/", [], it.clock.now()) for each in range(number)
    ]
    for start in range(0, number, 1000):
        some = calls[start : start + 1000]
        await it.memory.append(names.CALLS, [Record(each.id, each.id, each.event(b"")) for each in some])
        outcomes = [
            Record(each.id, each.id, Outcome(each, True, 1, it.clock.now(), 0.1, 200).event(b""))
            for place, each in enumerate(some, start=start)
            if place not in open_ones
        ]
        await it.memory.append(names.OUTCOMES, outcomes)
    return [each.id for each in calls]


def test_calls_are_listed_with_how_far_they_are() -> None:
    async def test(it: CallWorld) -> None:
        one = await it.process()
        calls = CallList(it.log, one.workers.is_running)
        it.far.function = lambda number: (OK, GONE)[number - 1]
        first = await it.call(one, "/a?b", method="PUT")
        await it.advance(1.0)
        second = await it.call(one)
        await it.advance(1.0)
        it.far.gate = asyncio.Event()
        third = await it.call(one)
        await it.settle()
        [running, failed, succeeded] = (await calls.page(CallSelection())).items
        assert [each.id for each in (running, failed, succeeded)] == [third, second, first]
        assert (running.state, running.attempts, running.finished_at) == ("running", None, None)
        assert (failed.state, failed.attempts, failed.status) == ("failed", 1, 410)
        assert failed.reason == "the function answered 410, which is final"
        assert (succeeded.state, succeeded.status) == ("succeeded", 200)
        assert (succeeded.method, succeeded.path, succeeded.function) == ("PUT", "/a?b", "default/f")
        elsewhere = CallList(it.log, lambda _: False)
        assert (await elsewhere.page(CallSelection())).items[0].state == "accepted"
        assert (await elsewhere.page(CallSelection(), [third])).items[0].state == "running"
        for states, expected in (
            (("running",), [third]),
            (("accepted",), []),
            (("failed",), [second]),
            (("succeeded", "failed"), [second, first]),
            (("running", "succeeded"), [third, first]),
        ):
            page = await calls.page(CallSelection(state=states))
            assert (_ids(page), page.next) == (expected, None), states
        it.far.gate.set()

    run(test)


def test_a_list_is_of_one_function_or_of_one_namespace() -> None:
    async def test(it: CallWorld) -> None:
        one = await it.process()
        await one.declare(dict.fromkeys(("default/f", "default/ff", "shop/f"), CALLEES["default/f"]))
        ids = {}
        for name in ("f", "ff", "f.shop"):
            status, headers, _ = await it.post(one, f"/async-function/{name}")
            assert status == 202
            ids[name] = headers[b"x-call-id"].decode()
        await it.settle()
        calls = CallList(it.log, one.workers.is_running)
        for given, expected in (
            ({}, ["f.shop", "ff", "f"]),
            ({"function": "f"}, ["f"]),
            ({"namespace": "shop"}, ["f.shop"]),
            ({"namespace": "default"}, ["ff", "f"]),
            ({"namespace": "shop", "function": "f"}, ["f.shop"]),
            ({"namespace": "shop", "function": "ff"}, []),
        ):
            for states in ((), ("succeeded",)):
                page = await calls.page(CallSelection(**given, state=states))
                assert _ids(page) == [ids[name] for name in expected], given

    run(test)


def test_a_call_that_ended_is_listed_once_also_when_its_outcome_alone_is_left() -> None:
    async def test(it: CallWorld) -> None:
        one = await it.process()
        calls = CallList(it.log, one.workers.is_running)
        old = [await it.call(one) for _ in range(3)]
        await it.advance(4000.0)  # calls that ended are kept for 3600 s
        young = [await it.call(one) for _ in range(3)]
        await it.settle()
        assert [each.key async for each in it.memory.read(names.CALLS, ">")] == young
        everything = [*reversed(young), *reversed(old)]
        assert _ids(await calls.page(CallSelection())) == everything
        for limit in (1, 2, 3, 4):
            pages = await _pages(calls, CallSelection(limit=limit))
            assert [each for page in pages for each in _ids(page)] == everything
            assert all(len(page.items) <= limit for page in pages)

    run(test)


def test_a_page_reads_no_more_than_it_shows_however_many_calls_there_are() -> None:
    async def test(it: CallWorld) -> None:
        await it.process()
        ids = await _fill(it, 3000)
        log: Any = _Counting(it.memory)
        page = await CallList(log, lambda _: False).page(CallSelection(limit=20))
        assert _ids(page) == ids[:-21:-1]
        assert (log.given, log.looked_up) == (20, 20)
        again = await CallList(log, lambda _: False).page(CallSelection(limit=20, after=page.next))
        assert _ids(again) == ids[-21:-41:-1]
        log.given = log.looked_up = 0
        await CallList(log, lambda _: False).page(CallSelection(limit=20, state=("succeeded",)))
        assert log.given <= 50
        assert log.looked_up == 0

    run(test)


def test_what_is_rare_is_found_in_the_end_and_no_request_looks_at_all() -> None:
    async def test(it: CallWorld) -> None:
        await it.process()
        ids = await _fill(it, 3 * MOST_READ, open_ones=(5,))
        log: Any = _Counting(it.memory)
        pages = await _pages(CallList(log, lambda _: False), CallSelection(state=("accepted",)))
        assert [_ids(page) for page in pages] == [[], [], [ids[5]], []]
        assert log.given == 3 * MOST_READ

    run(test)


@pytest.mark.parametrize(
    ("state", "streams"),
    [
        ((), ["a", "e"]),
        (("accepted",), ["a"]),
        (("accepted", "running"), ["a"]),
        (("failed",), ["e"]),
        (("failed", "succeeded"), ["e"]),
        (("running", "failed"), ["a", "e"]),
    ],
)
def test_where_calls_in_a_state_are(state: Any, streams: list[str]) -> None:
    selection = CallSelection(state=state)
    place: Place | None = begin(selection)
    found = []
    while place is not None:
        found.append(place.stream)
        place = beyond(selection, place)
    assert found == streams


def test_a_selection_says_where_it_goes_on_and_which_keys_it_is_of() -> None:
    assert begin(CallSelection(after="e12")) == Place("e", 12)
    assert Place("e", 12).text == "e12"
    assert begin(CallSelection(after=Place("e").text)) == Place("e")
    assert keys_of(CallSelection()) == ">"
    assert keys_of(CallSelection(function="f")) == "default.f.>"
    assert keys_of(CallSelection(namespace="n", function="f")) == "n.f.>"
    for wrong in (
        {"after": "x1"},
        {"function": "a.b"},
        {"namespace": ">"},
        {"state": ["no"]},
        {"limit": 101},
    ):
        with pytest.raises(ValidationError):
            CallSelection.model_validate(wrong)
