"""Triggers ordered by key: one at a time, in order, through failures, crashes and changes of worker."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.events.world import BROKER, answer, event, holding, linear, replying, trigger, world
from torpor.clock import cancel
from torpor.errors import EventLogError
from torpor.events.declared import Declared
from torpor.events.dispatcher import Dispatcher
from torpor.events.intake import append_events
from torpor.events.memory import MemoryDelivery, MemoryLog
from torpor.events.subscription import ACK_WAIT_SECONDS, WINDOW
from torpor.spec.models import RateLimit
from torpor.testing.clock import MovableClock
from torpor.transport import Response
from torpor.transport.message import decode_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.binding import WireEvent
    from torpor.clock import Clock
    from torpor.spec.models import Trigger


def keyed(event_id: str, key: str) -> WireEvent:
    return event(event_id, partitionkey=key)


def failing(event_id: str, times: int) -> Callable[[list[WireEvent], int], Response]:
    """A function that fails with one event so often."""
    return lambda events, attempt: answer(500 if events[0].id == event_id and attempt <= times else 204)


def ordered(parallelism: int = 32, **more: object) -> Trigger:
    return trigger(ordering="key", parallelism=parallelism, **more)  # type: ignore[arg-type]


def test_one_of_a_key_is_under_way_and_keys_go_side_by_side() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(ordered())
            it.functions.gate = asyncio.Event()
            await it.publish(keyed("a1", "a"), keyed("a2", "a"), keyed("b1", "b"), event("x"), event("y"))
            assert sorted(call[2][0] for call in it.functions.calls) == ["a1", "b1", "x", "y"]
            assert it.dispatcher.busy == 4
            it.functions.gate.set()
            await it.advance(1.0)
            assert [call[2] for call in it.functions.calls][4:] == [["a2"]]
            assert await it.pending() == 0

    asyncio.run(run())


def test_no_more_than_parallelism_is_under_way() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(ordered(parallelism=2))
            it.functions.gate = asyncio.Event()
            await it.publish(*(keyed(str(number), str(number)) for number in range(6)))
            assert it.functions.under_way == 2
            it.functions.gate.set()
            await it.advance(1.0)
            assert len(it.functions.calls) == 6
            assert it.functions.most_under_way == 2

    asyncio.run(run())


def test_a_retry_holds_its_key_and_no_other() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(ordered(parallelism=1))
            it.functions.behave = lambda events, attempt: answer(
                500 if events[0].id == "a1" and attempt < 3 else 204
            )
            await it.publish(keyed("a1", "a"), keyed("a2", "a"), keyed("b1", "b"), keyed("b2", "b"))
            await it.advance(60.0)
            calls = [(round(at), ids[0], attempt) for at, _, ids, attempt in it.functions.calls]
            assert calls == [
                (0, "a1", 1),
                (0, "b1", 1),
                (0, "b2", 1),
                (1, "a1", 2),
                (3, "a1", 3),
                (3, "a2", 1),
            ]
            assert await it.pending() == 0

    asyncio.run(run())


def test_poison_holds_its_key_until_it_is_a_dead_letter() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(ordered())
            it.functions.behave = lambda events, _: answer(500 if events[0].id == "a1" else 204)
            await it.publish(keyed("a1", "a"), keyed("a2", "a"))
            await it.advance(60.0)
            # Retries after 1, 2 and 3 s.
            assert [(round(at), ids[0]) for at, _, ids, _ in it.functions.calls] == [
                *((at, "a1") for at in (0, 1, 3, 6)),
                (6, "a2"),
            ]
            assert [letter.id for letter in await it.dead()] == ["a1"]

    asyncio.run(run())


def test_a_long_wait_for_a_retry_is_extended() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(ordered(delivery=linear(backoff_delay_seconds=600.0)))
            it.functions.behave = lambda _, attempt: answer(500 if attempt == 1 else 204)
            await it.publish(keyed("a1", "a"))
            await it.advance(700.0)
            assert [(round(at), attempt) for at, _, _, attempt in it.functions.calls] == [(0, 1), (600, 2)]

    asyncio.run(run())


def test_a_rate_limit_holds_too() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(ordered(rate_limit=RateLimit(events=1)))
            await it.publish(keyed("a1", "a"), keyed("a2", "a"), keyed("b1", "b"))
            await it.advance(10.0)
            assert sorted(it.functions.times()) == [0.0, 1.0, 2.0]

    asyncio.run(run())


def test_more_than_a_window_is_worked_through() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(ordered())
            total = WINDOW * 3
            for start in range(0, total, 500):
                await it.publish(*(keyed(str(start + n), str(n % 7)) for n in range(500)))
            for _ in range(40):
                await it.advance(1.0)
            seen = [int(call[2][0]) for call in it.functions.calls]
            assert sorted(seen) == list(range(total))
            assert await it.pending() == 0

    asyncio.run(run())


def test_a_changed_trigger_waits_for_what_is_out() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(delivery=linear(backoff_delay_seconds=60.0)))
            it.functions.behave = lambda events, attempt: answer(
                500 if events[0].id == "a1" and attempt == 1 else 204
            )
            await it.publish(keyed("a1", "a"))
            await it.declare(ordered())
            await it.publish(keyed("a2", "a"))
            await it.advance(120.0)
            assert [call[2][0] for call in it.functions.calls] == ["a1", "a1", "a2"]

    asyncio.run(run())


# --- crashes and changes of worker --------------------------------------------------------------------------


class Judge:
    """A function that fails at random, and watches that no key has two calls, nor goes back."""

    def __init__(
        self, clock: Clock, chance: random.Random, pauses_seconds: tuple[float, ...] = (0.0, 0.01, 3.0)
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._pauses_seconds = pauses_seconds
        self.under_way: dict[str, str] = {}
        self.began: dict[str, list[int]] = defaultdict(list)
        self.done: set[str] = set()
        self.faults: list[str] = []

    async def send(self, function_key: str, fields: bytes, body: bytes, timeout_seconds: float) -> Response:
        headers = decode_fields(fields)
        given = {name.decode(): value.decode() for name, value in headers}
        key, event_id = given["ce-partitionkey"], given["ce-id"]
        number = int(event_id.partition("-")[2])
        if key in self.under_way:
            self.faults.append(f"{event_id} while {self.under_way[key]} is under way")
        if any(later > number for later in self.began[key]):
            self.faults.append(f"{event_id} after {self.began[key]}")
        self.began[key].append(number)
        self.under_way[key] = event_id
        try:
            await self._clock.sleep(self._chance.choice(self._pauses_seconds))
            status = self._chance.choice([204, 204, 204, 500, 400])
            if status != 500:
                self.done.add(event_id)
        finally:
            del self.under_way[key]
        return Response(status, [], b"")


class Workers:
    """Dispatchers on one log of which one leads; any may be killed, or learn late that it does not lead."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = MovableClock()
        self.log = MemoryLog(self.clock)
        self.judge = Judge(self.clock, self.chance)
        self.live: list[Dispatcher] = []
        self.declared = Declared([ordered(parallelism=3)], [BROKER])
        self.published = 0

    async def settle(self) -> None:
        for _ in range(60):
            await asyncio.sleep(0)

    async def start(self) -> None:
        made = Dispatcher(self.log, self.judge, self.clock, shared=True)
        await made.apply(self.declared)
        self.live.append(made)

    async def lead(self, *, tell_first: bool) -> None:
        """The newest leads; the one before is told first, or after a while."""
        if tell_first and len(self.live) > 1:
            await self.live[-2].lead(False)
        await self.live[-1].lead(True)
        if not tell_first and len(self.live) > 1:
            await self.clock.advance(self.chance.choice([0.0, 0.5, 25.0]), self.settle)
            await self.live[-2].lead(False)

    async def kill(self, dispatcher: Dispatcher) -> None:
        self.live.remove(dispatcher)
        await kill(dispatcher)

    async def publish(self, count: int) -> None:
        numbers = range(self.published, self.published + count)
        self.published += count
        events = [keyed(f"{n % 3}-{n}", str(n % 3)) for n in numbers]
        await append_events(self.log, BROKER, events)
        await self.settle()

    async def end(self) -> None:
        closing = asyncio.gather(*(each.close(0.0) for each in self.live))
        while not closing.done():
            await self.clock.advance(1.0, self.settle)
        await closing


async def kill(dispatcher: Dispatcher) -> None:
    """It ends where it stands: nothing is given back, nothing acknowledged."""
    found: set[asyncio.Task[object]] = set(dispatcher._ending)
    if dispatcher._housekeeper is not None:
        found.add(dispatcher._housekeeper)
    for each in (*dispatcher._subscriptions.values(), *dispatcher._ending.values()):
        pump = getattr(each, "_pump", None)
        found |= {*pump._tasks, *pump._held} if pump is not None else set()
        verifier = getattr(each, "_verifier", None)
        found |= {verifier} if verifier is not None else set()
    await cancel(*found)


async def _trial(seed: int, steps: list[str]) -> None:
    it = Workers(seed)
    await it.start()
    await it.live[0].lead(True)
    for step in steps:
        if step == "publish":
            await it.publish(it.chance.randint(1, 12))
        elif step == "wait":
            await it.clock.advance(it.chance.choice([0.0, 0.005, 0.1, 1.0, 12.0]), it.settle)
        else:
            await it.start()
            if step == "kill":
                await it.kill(it.live[-2])
            await it.lead(tell_first=step == "hand over")
    for _ in range(60):
        await it.clock.advance(5.0, it.settle)
    assert it.judge.faults == []
    dead = {stored.event.id async for stored in it.log.read("dead.default.default", ">")}
    numbers = {f"{n % 3}-{n}" for n in range(it.published)}
    assert it.judge.done | dead == numbers
    durables = it.log._streams["broker.default.default"].consumers.values()
    assert all((each.leases, each.delayed) == ({}, []) for each in durables)
    await it.end()


STEPS = ("publish", "publish", "wait", "wait", "kill", "hand over", "late")


@settings(max_examples=60, deadline=None)
@example(
    101, ["late", "late", "publish"]
)  # what is given back comes to another worker, and is done with there
@given(
    st.integers(0, 2**32),
    st.lists(
        st.sampled_from(["publish", "publish", "wait", "wait", "kill", "hand over", "late"]), max_size=25
    ),
)
def test_order_holds_through_random_failures_crashes_and_changes(seed: int, steps: list[str]) -> None:
    asyncio.run(_trial(seed, ["publish", *steps]))


@pytest.mark.parametrize("moment", ["calling", "resting", "queued", "given back", "dead"])
def test_a_worker_that_is_killed_leaves_the_order_to_the_next(moment: str) -> None:
    async def run() -> None:
        it = Workers(0)
        calls: list[str] = []
        gate = asyncio.Event()

        async def send(function_key: str, fields: bytes, body: bytes, timeout_seconds: float) -> Response:
            headers = dict(decode_fields(fields))
            event_id = headers[b"ce-id"].decode()
            attempt = int(headers[b"torpor-attempt"])
            calls.append(event_id)
            if moment in ("calling", "queued") and len(calls) == 1:
                await gate.wait()
            failing = moment in ("resting", "given back") and event_id == "0-0" and attempt == 1
            return Response(
                503 if failing else 400 if moment == "dead" and event_id == "0-0" else 204, [], b""
            )

        it.judge.send = send  # type: ignore[method-assign]
        await it.start()
        await it.live[0].lead(True)
        await it.publish(7)  # of key 0: 0, 3 and 6
        await it.clock.advance({"given back": 1.0}.get(moment, 0.5), it.settle)
        await it.start()
        await it.kill(it.live[0])
        gate.set()
        await it.lead(tell_first=True)
        await it.publish(3)  # of key 0: 9
        before = len(calls)
        await it.clock.advance(ACK_WAIT_SECONDS * 0.9, it.settle)
        if moment in ("calling", "resting", "queued"):
            assert len(calls) == before, "nothing begins before what was out has come back"
        await it.clock.advance(60.0, it.settle)
        first = list(dict.fromkeys(each for each in calls if each.startswith("0-")))
        assert first == ["0-0", "0-3", "0-6", "0-9"]
        assert [each for each in calls if each.startswith("0-")] == sorted(
            (each for each in calls if each.startswith("0-")), key=lambda each: int(each[2:])
        )
        await it.end()

    asyncio.run(run())


def test_a_worker_that_was_stopped_for_long_begins_nothing_that_others_have() -> None:
    async def run() -> None:
        it = Workers(0)
        calls: list[str] = []

        async def send(function_key: str, fields: bytes, body: bytes, timeout_seconds: float) -> Response:
            headers = dict(decode_fields(fields))
            calls.append(headers[b"ce-id"].decode())
            await it.clock.sleep(1.0)
            return Response(204, [], b"")

        it.judge.send = send  # type: ignore[method-assign]
        await it.start()
        await it.live[0].lead(True)
        await it.publish(4)  # of key 0: 0 and 3
        # As if the process had been stopped while the log's time went on.
        it.clock._elapsed += ACK_WAIT_SECONDS + 1.0
        await it.start()
        await it.live[-1].lead(True)
        await it.clock.advance(0.5, it.settle)
        await it.live[0].lead(False)
        await it.clock.advance(60.0, it.settle)
        assert calls.count("0-3") == 1
        await it.end()

    asyncio.run(run())


def test_an_event_whose_acknowledgement_fails_holds_its_key_until_it_came_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = iter([EventLogError("the log is out")])
    ack = MemoryDelivery.ack

    async def fails_once(delivery: MemoryDelivery) -> None:
        if (failure := next(failures, None)) is not None:
            raise failure
        await ack(delivery)

    async def run() -> None:
        async with world() as it:
            await it.declare(ordered())
            monkeypatch.setattr(MemoryDelivery, "ack", fails_once)
            await it.publish(keyed("a1", "a"), keyed("a2", "a"))
            await it.advance(10.0)
            assert [call[2][0] for call in it.functions.calls] == ["a1", "a1", "a2"]
            assert await it.pending() == 0

    asyncio.run(run())


@pytest.mark.parametrize("parallelism", [1, 2])
def test_while_replies_are_written_other_keys_go_on_and_the_same_waits(
    parallelism: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with world() as it:
            go = holding(it.log, "reply", monkeypatch)
            await it.declare(trigger("t", "a", ordering="key", parallelism=parallelism))
            it.functions.behave = replying
            await it.publish(*(keyed(f"{key}{number}", key) for number in "12" for key in "xyz"))
            await it.advance(1.0)
            first = ["x1", "y1", "z1"] if parallelism > 1 else ["x1"]
            assert [call[2][0] for call in it.functions.calls] == first
            assert it.dispatcher.busy == len(first)
            go.set()
            await it.advance(1.0)
            calls = [call[2][0] for call in it.functions.calls]
            assert sorted(calls) == ["x1", "x2", "y1", "y2", "z1", "z2"]
            assert all(calls.index(f"{key}1") < calls.index(f"{key}2") for key in "xyz")
            assert await it.pending() == it.dispatcher.busy == 0
            assert len(await it.events("reply")) == 6

    asyncio.run(run())


def test_so_many_keys_may_wait_for_their_replies_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with world() as it:
            go = holding(it.log, "reply", monkeypatch)
            await it.declare(trigger("t", "a", ordering="key", parallelism=2))
            it.functions.behave = replying
            await it.publish(*(keyed(str(number), str(number)) for number in range(50)))
            await it.advance(1.0)
            assert len(it.functions.calls) == it.dispatcher.busy == 2 + 8 * 2
            go.set()
            await it.advance(1.0)
            assert len(it.functions.calls) == len(await it.events("reply")) == 50
            assert await it.pending() == it.dispatcher.busy == 0

    asyncio.run(run())
