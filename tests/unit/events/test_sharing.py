"""Two dispatchers on one log: who works on what, how the lead moves, and what neither may remove."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.unit.events.world import BROKER, Functions, answer, event, part, trigger
from torpor.events import names
from torpor.events.declared import Declared
from torpor.events.dispatcher import Dispatcher
from torpor.events.intake import append_events
from torpor.events.joins import JoinSubscription
from torpor.events.memory import MemoryLog
from torpor.events.strays import Stray
from torpor.spec.models import Join
from torpor.testing.clock import MovableClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from torpor.binding import WireEvent
    from torpor.spec.models import Trigger

PLAIN, SERIAL = trigger("plain", "a"), trigger("serial", "b", parallelism=1)
JOINS = trigger("joins", "part", join=Join(timeout_seconds=60), function="j")


class _Pair:
    def __init__(self) -> None:
        self.clock = MovableClock()
        self.log = MemoryLog(self.clock)
        self.functions = Functions(self.clock)
        self.one, self.two = (Dispatcher(self.log, self.functions, self.clock, shared=True) for _ in range(2))

    async def declare(self, *triggers: Trigger) -> None:
        for each in (self.one, self.two):
            await each.apply(Declared(triggers, [BROKER]))

    async def publish(self, *events: WireEvent) -> None:
        await append_events(self.log, BROKER, events)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(60):
            await asyncio.sleep(0)

    def called(self) -> list[list[str]]:
        return [call[2] for call in self.functions.calls]

    async def close(self) -> None:
        closing = asyncio.gather(self.one.close(), self.two.close())
        while not closing.done():
            await self.clock.advance(1.0, self.settle)
        await closing


@asynccontextmanager
async def pair(*triggers: Trigger) -> AsyncIterator[_Pair]:
    made = _Pair()
    await made.declare(*triggers)
    try:
        yield made
    finally:
        await made.close()


@pytest.mark.parametrize("leads", [False, True])
def test_only_who_leads_joins_and_delivers_one_by_one(leads: bool) -> None:
    async def run() -> None:
        async with pair(PLAIN, SERIAL, JOINS) as it:
            if leads:
                await it.two.lead(True)
            await it.publish(event("1", "a"), event("2", "b"), part("g", 0, 2), part("g", 1, 2))
            alone = [["2"], ["g/0", "g/1"]] if leads else []
            assert sorted(it.called()) == [["1"], *alone]
            states = await it.one.states()
            waiting = {key: state.pending for key, state in states.items()}
            here = 0 if leads else 1
            assert waiting == {"default/plain": 0, "default/serial": here, "default/joins": 2 * here}

    asyncio.run(run())


def test_what_came_without_a_leader_is_not_lost() -> None:
    async def run() -> None:
        async with pair(JOINS) as it:
            await it.publish(part("g", 0, 2))
            await it.one.lead(True)
            await it.settle()
            await it.one.lead(False)
            await it.publish(part("g", 1, 2))
            assert it.called() == []
            await it.two.lead(True)
            await it.settle()
            assert it.called() == [["g/0", "g/1"]]

    asyncio.run(run())


def test_who_was_superseded_writes_nothing_and_is_told() -> None:
    async def run() -> None:
        async with pair(JOINS) as it:
            await it.one.lead(True)
            await it.publish(*(part("g", index, 200) for index in range(20)))
            await it.two.lead(True)
            assert not it.one.superseded.is_set()
            # Both read, so that some of these come to the one that does not know yet, and then come again.
            await it.publish(*(part("g", index, 200) for index in range(20, 200)))
            assert it.one.superseded.is_set()
            assert not it.two.superseded.is_set()
            await it.one.lead(False)
            assert not it.one.superseded.is_set()
            await it.clock.advance(5.0, it.settle)
            assert it.called() == [[f"g/{index}" for index in range(200)]]

    asyncio.run(run())


def test_who_was_superseded_takes_no_more_and_gives_back_what_it_has_at_once() -> None:
    async def run() -> None:
        async with pair(JOINS) as it:
            await it.one.lead(True)
            await it.publish(*(part("g", index, 200) for index in range(20)))
            await it.two.lead(True)
            await it.publish(*(part("g", index, 200) for index in range(20, 150)))
            received = _received(it.one)
            assert received > 20  # some came to the one that had lost
            assert it.one.busy == 0
            await it.publish(*(part("g", index, 200) for index in range(150, 200)))
            assert _received(it.one) == received
            # No time has passed, and nobody has told the one that it does not lead.
            assert it.called() == [[f"g/{index}" for index in range(200)]]
            problem = "another process joins the groups of this trigger now"
            assert (await it.one.states())["default/joins"].problem == problem
            assert (await it.two.states())["default/joins"].problem == ""

    asyncio.run(run())


def _received(dispatcher: Dispatcher) -> int:
    """How many parts a dispatcher has taken so far."""
    subscription = dispatcher._subscriptions["default/joins"]
    assert isinstance(subscription, JoinSubscription)
    return subscription._parts.received


def test_who_learns_by_an_overdue_group_that_it_was_superseded_takes_no_more() -> None:
    async def run() -> None:
        async with pair(JOINS) as it:
            await it.one.lead(True)
            await it.publish(part("g", 0, 2))
            await it.two.lead(True)
            await it.clock.advance(60.0, it.settle)
            assert it.one.superseded.is_set()
            assert [each.type async for each in _dead(it)] == ["part"]
            for index in range(50):
                await it.publish(part("h", index, 50))
            assert _received(it.one) == 1
            assert it.called() == [[f"h/{index}" for index in range(50)]]

    asyncio.run(run())


async def _dead(it: _Pair) -> AsyncIterator[WireEvent]:
    async for stored in it.log.read(names.dead_stream(BROKER), ">"):
        yield stored.event


def test_who_is_to_lead_after_it_was_superseded_joins_again() -> None:
    async def run() -> None:
        async with pair(JOINS) as it:
            await it.one.lead(True)
            await it.two.lead(True)
            await it.publish(*(part("g", index, 60) for index in range(59)))
            assert it.one.superseded.is_set()
            await it.one.lead(True)
            await it.publish(part("h", 0, 1), part("g", 59, 60), part("h", 0, 1))
            assert it.two.superseded.is_set()
            assert sorted(map(len, it.called())) == [1, 60]
            assert (await it.one.states())["default/joins"].problem == ""

    asyncio.run(run())


def test_what_is_under_way_goes_on_when_the_lead_is_given_up() -> None:
    async def run() -> None:
        async with pair(SERIAL) as it:
            it.functions.gate = asyncio.Event()
            await it.one.lead(True)
            await it.publish(event("1", "b"))
            await it.one.lead(False)
            await it.two.lead(True)
            assert (it.one.busy, it.two.busy) == (1, 0)
            it.functions.gate.set()
            await it.settle()
            assert it.called() == [["1"]]
            assert it.one.stats.of("default/serial").delivered == 1

    asyncio.run(run())


def test_one_that_does_not_know_a_trigger_removes_nothing_of_it() -> None:
    async def run() -> None:
        async with pair(PLAIN) as it:
            it.functions.behave = lambda *_: answer()
            await it.two.apply(Declared([PLAIN, JOINS], [BROKER]))
            await it.one.apply(Declared([], [BROKER]))
            stream = names.broker_stream(BROKER)
            plain, joins = Stray(stream, "trigger.default.plain"), Stray(stream, "trigger.default.joins")
            groups = Stray(names.groups_stream("default/joins"))
            assert await it.one.strays() == {plain, joins, groups}
            assert await it.two.strays() == set()
            assert await it.log.consumers(stream) == ["direct", joins.consumer, plain.consumer]
            await it.one.remove([plain, groups])
            assert await it.log.consumers(stream) == ["direct", joins.consumer]
            assert groups.stream not in await it.log.streams()

    asyncio.run(run())
