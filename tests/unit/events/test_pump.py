"""How a pump holds deliveries ready: while all goes quickly, and no longer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.unit.events.world import event
from torpor.errors import EventLogError
from torpor.events import memory, pump
from torpor.events.log import ConsumerSpec, Record, StreamSpec
from torpor.events.memory import MemoryConsumer, MemoryLog
from torpor.events.pump import Pump
from torpor.testing.clock import MovableClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torpor.events.log import Delivery

SPEC = ConsumerSpec("s", "c")
AT_ONCE = 2
MOST = AT_ONCE + 32 * AT_ONCE


class _Work:
    """A pump that handles two at once, each at once until it is told to wait."""

    def __init__(self) -> None:
        self.clock = MovableClock()
        self.log = MemoryLog(self.clock)
        self.pump = Pump(self.log, self.clock, SPEC, self._handle, AT_ONCE, ahead=True)
        self.go = asyncio.Event()
        self.go.set()
        self.handled: list[str] = []
        self.most = 0

    async def start(self) -> None:
        await self.log.ensure_stream(StreamSpec("s"))
        await self.pump.start()

    async def warm_up(self, data: bytes = b"") -> None:
        """Have it see that all goes quickly."""
        await self.append(1000, 100, data)
        while await self.outstanding():
            await self.settle()
        self.handled.clear()

    async def append(self, start: int, count: int, data: bytes = b"", **attributes: str) -> None:
        ids = [str(number) for number in range(start, start + count)]
        records = [Record("k", each, event(each, data=data, **attributes)) for each in ids]
        await self.log.append("s", records)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(300):
            await asyncio.sleep(0)

    async def outstanding(self) -> int:
        return await (await self.log.consumer(SPEC)).outstanding()

    async def _handle(self, delivery: Delivery) -> None:
        self.most = max(self.most, self.pump.busy)
        await asyncio.sleep(0)  # as who calls a function
        await self.go.wait()
        self.handled.append(delivery.record.event.id)
        await delivery.ack()


def test_at_first_no_more_are_taken_than_are_handled() -> None:
    async def run() -> None:
        it = _Work()
        await it.start()
        it.go.clear()
        await it.append(0, 50)
        assert await it.outstanding() == it.pump.busy == AT_ONCE
        await it.pump.stop(0.0)

    asyncio.run(run())


def test_while_all_goes_quickly_some_are_held_ready_and_given_back() -> None:
    async def run() -> None:
        it = _Work()
        await it.start()
        await it.warm_up()
        await it.append(0, 10)
        it.go.clear()
        await it.append(10, 100)
        out = await it.outstanding()
        assert MOST / 2 < out <= MOST
        assert it.pump.busy == AT_ONCE
        await it.pump.halt()
        others = await (await it.log.consumer(SPEC)).fetch(out - AT_ONCE)
        assert [each.record.event.id for each in others] == [str(number) for number in range(12, 10 + out)]
        it.go.set()
        await it.pump.stop(1.0)
        assert sorted(it.handled, key=int) == [str(number) for number in range(12)]
        assert it.most == AT_ONCE

    asyncio.run(run())


def test_no_more_is_held_ready_than_is_handled_in_a_moment() -> None:
    """Each takes 5 ms, so that two at once are done with 20 in 50 ms."""

    class Slower(_Work):
        async def _handle(self, delivery: Delivery) -> None:
            await self.clock.sleep(0.005)
            await super()._handle(delivery)

    async def run() -> None:
        it = Slower()
        await it.start()
        warming = asyncio.create_task(it.warm_up())
        while not warming.done():
            await it.clock.advance(0.005, it.settle)
        it.go.clear()
        await it.append(0, 100)
        await it.clock.advance(0.005, it.settle)
        assert 10 < await it.outstanding() <= AT_ONCE + 20
        it.go.set()
        await it.pump.stop(0.0)

    asyncio.run(run())


def test_one_that_takes_long_ends_it() -> None:
    async def run() -> None:
        it = _Work()
        await it.start()
        await it.warm_up()
        await it.append(0, 10)
        it.go.clear()
        await it.append(10, 2)
        await it.clock.advance(1.0, it.settle)
        await it.append(12, 50)
        # What was asked for before comes, and no more than that.
        assert await it.outstanding() <= MOST
        it.go.set()
        await it.settle()
        assert len(it.handled) == 62
        await it.pump.stop(0.0)

    asyncio.run(run())


def test_large_ones_are_not_held_ready() -> None:
    async def run() -> None:
        it = _Work()
        await it.start()
        await it.append(0, 10, b"x" * 100_000)
        it.go.clear()
        await it.append(10, 50, b"x" * 100_000)
        assert await it.outstanding() == AT_ONCE
        await it.pump.stop(0.0)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("data", "attributes"), [(b"x" * 1000, {}), (b"", {"large": "x" * 1000})], ids=["data", "attributes"]
)
def test_what_is_held_ready_is_bounded_in_bytes(
    data: bytes, attributes: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        monkeypatch.setattr(pump, "_AHEAD_BYTES", 10_000)
        monkeypatch.setattr(memory, "MAX_FETCH", 4)
        it = _Work()
        await it.start()
        await it.warm_up()
        for start in (0, 60):
            it.go.clear()
            await it.append(start, 60, data, **attributes)
            assert AT_ONCE + 10 <= await it.outstanding() < AT_ONCE + 10 + 4  # the last fetch may go over
            it.go.set()
            while len(it.handled) < start + 60:  # what went is no more among them
                await it.settle()
        await it.pump.stop(1.0)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("data", "attributes"),
    [(b"x" * 100_000, {}), (b"", {"large": "x" * 100_000})],
    ids=["data", "attributes"],
)
def test_once_a_large_one_has_come_no_more_are_asked_for(
    data: bytes, attributes: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        monkeypatch.setattr(memory, "MAX_FETCH", 4)
        it = _Work()
        await it.start()
        await it.warm_up()
        for start in (0, 100):
            it.go.clear()
            await it.append(start, 100, data, **attributes)
            assert await it.outstanding() <= AT_ONCE + 4
            it.go.set()
            while len(it.handled) < start + 100:
                await it.settle()
        it.go.clear()
        await it.append(200, 100)
        assert await it.outstanding() == AT_ONCE
        it.go.set()
        await it.pump.stop(1.0)

    asyncio.run(run())


@pytest.mark.parametrize("data", [b"", b"x" * 100_000], ids=["small", "large"])
def test_what_is_under_way_is_taken_in_though_there_is_no_place_for_it(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would extend it where it is, and it would be delivered once more."""

    async def run() -> None:
        fetch = MemoryConsumer.fetch
        arrived: list[Delivery] = []
        limits: list[int] = []

        async def fetch_some(self: MemoryConsumer, limit: int) -> Sequence[Delivery]:
            """Three at once: the rest is under way."""
            limits.append(limit - len(arrived))
            if not arrived:
                arrived.extend(await fetch(self, limit))
            some = arrived[:3]
            del arrived[:3]
            return some

        monkeypatch.setattr(MemoryConsumer, "fetch", fetch_some)
        monkeypatch.setattr(MemoryConsumer, "under_way", property(lambda _: len(arrived)))
        it = _Work()
        await it.start()
        await it.warm_up()
        it.go.clear()
        limits.clear()
        await it.append(0, 200, data)
        assert min(limits) >= 0
        assert not arrived
        assert await it.outstanding() <= MOST
        for _ in range(5):
            await it.clock.advance(SPEC.ack_wait_seconds / 2, it.settle)
        it.go.set()
        while len(it.handled) < 200:
            await it.settle()
        assert sorted(it.handled, key=int) == [str(number) for number in range(200)]  # each once
        await it.pump.stop(0.0)

    asyncio.run(run())


def test_what_is_held_ready_is_extended() -> None:
    async def run() -> None:
        it = _Work()
        await it.start()
        await it.warm_up()
        await it.append(0, 10)
        it.go.clear()
        await it.append(10, 50)
        for _ in range(5):
            await it.clock.advance(SPEC.ack_wait_seconds / 2, it.settle)
        it.go.set()
        await it.settle()
        assert sorted(it.handled, key=int) == [str(number) for number in range(60)]  # each once
        await it.pump.stop(0.0)

    asyncio.run(run())


def test_what_is_held_ready_is_asked_for_in_few_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        it = _Work()
        await it.start()
        await it.warm_up()
        await it.append(0, 10)
        fetch, asked = MemoryConsumer.fetch, []

        async def counted(self: MemoryConsumer, limit: int) -> Sequence[Delivery]:
            asked.append(limit)
            return await fetch(self, limit)

        monkeypatch.setattr(MemoryConsumer, "fetch", counted)
        await it.append(10, 600)
        while len(it.handled) < 610:
            await it.settle()
        assert len(asked) <= 600 / (MOST / 2) + 3
        await it.pump.stop(0.0)

    asyncio.run(run())


class _Settling(_Work):
    """Each leaves its place at once, and is done with when it is told so."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []

    async def _handle(self, delivery: Delivery) -> None:
        self.begun.append(delivery.record.event.id)
        self.pump.rest()
        await super()._handle(delivery)


def test_who_has_only_to_settle_leaves_its_place_to_the_next() -> None:
    async def run() -> None:
        it = _Settling()
        await it.start()
        it.go.clear()
        await it.append(0, 10)
        assert it.begun == [str(number) for number in range(10)]
        assert it.pump.busy == await it.outstanding() == 10
        it.go.set()
        await it.settle()
        assert sorted(it.handled, key=int) == it.begun
        assert it.pump.busy == await it.outstanding() == 0
        await it.pump.stop(0.0)

    asyncio.run(run())


def test_so_many_may_do_so_at_once_and_each_for_itself() -> None:
    async def run() -> None:
        it = _Settling()
        await it.start()
        it.go.clear()
        await it.append(0, 50)
        assert it.pump.busy == len(it.begun) == AT_ONCE + 8 * AT_ONCE, (
            "eight times as many, and those that stay"
        )
        it.go.set()
        await it.settle()
        assert len(it.handled) == len(set(it.handled)) == 50
        it.go.clear()
        await it.append(50, 50)
        assert it.pump.busy == AT_ONCE + 8 * AT_ONCE, "places are neither lost nor won"
        await it.pump.stop(0.0)

    asyncio.run(run())


def test_what_is_being_settled_is_extended_and_waited_for() -> None:
    async def run() -> None:
        it = _Settling()
        await it.start()
        it.go.clear()
        await it.append(0, 5)
        for _ in range(4):
            await it.clock.advance(SPEC.ack_wait_seconds / 2, it.settle)
        assert it.begun == ["0", "1", "2", "3", "4"], "none comes again"
        stopping = asyncio.create_task(it.pump.stop(5.0))
        await it.settle()
        assert not stopping.done()
        it.go.set()
        await stopping
        assert sorted(it.handled) == it.begun
        assert await it.outstanding() == 0

    asyncio.run(run())


def test_what_is_not_settled_in_time_comes_again() -> None:
    async def run() -> None:
        it = _Settling()
        await it.start()
        it.go.clear()
        await it.append(0, 5)
        await it.pump.stop(0.0)
        assert it.pump.busy == 0
        assert not it.handled
        await it.clock.advance(SPEC.ack_wait_seconds + 1, it.settle)
        again = await (await it.log.consumer(SPEC)).fetch(10)
        assert [each.record.event.id for each in again] == it.begun

    asyncio.run(run())


def test_one_that_fails_while_it_is_settled_comes_again_and_takes_no_place() -> None:
    class Failing(_Settling):
        async def _handle(self, delivery: Delivery) -> None:
            self.pump.rest()
            await self.go.wait()
            if delivery.attempt == 1:
                raise EventLogError("away")
            self.handled.append(delivery.record.event.id)
            await delivery.ack()

    async def run() -> None:
        it = Failing()
        await it.start()
        it.go.clear()
        await it.append(0, 6)
        assert it.pump.busy == 6
        it.go.set()
        await it.settle()
        assert it.pump.busy == 0
        await it.clock.advance(1.5, it.settle)
        assert sorted(it.handled) == ["0", "1", "2", "3", "4", "5"]
        await it.pump.stop(0.0)

    asyncio.run(run())
