"""Places for calls: bounded, and always one for a function that has none."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from torpor.events.places import Places


class _World:
    def __init__(self, total: int) -> None:
        self.places = Places(total)
        self.under_way: Counter[str] = Counter()
        self.order: list[int] = []
        self.calls: list[tuple[str, asyncio.Event, asyncio.Task[None]]] = []

    async def call(self, key: str) -> None:
        """One more call, for as long as it is not ended."""
        number, end = len(self.calls), asyncio.Event()

        async def run() -> None:
            if not self.places.take(key):
                await self.places.wait(key)
            try:
                self.under_way[key] += 1
                self.order.append(number)
                await end.wait()
                self.under_way[key] -= 1
            finally:
                self.places.give(key)

        self.calls.append((key, end, asyncio.create_task(run())))
        await self.turns()

    async def end(self, number: int) -> None:
        self.calls[number][1].set()
        await self.turns()

    async def turns(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def close(self) -> None:
        for _, end, _ in self.calls:
            end.set()
        await asyncio.gather(*(task for _, _, task in self.calls), return_exceptions=True)


def test_one_function_gets_half_and_two_get_a_third_each() -> None:
    async def run() -> None:
        it = _World(12)
        for _ in range(20):
            await it.call("slow")
        assert it.under_way == {"slow": 6}
        for _ in range(20):
            await it.call("slower")
        assert it.under_way == {"slow": 6, "slower": 3}
        for number in range(2):  # what ends of the first is no longer its own to fill
            await it.end(number)
        assert it.under_way == {"slow": 4, "slower": 4}
        await it.call("fast")
        assert it.under_way["fast"] == 1
        await it.close()

    asyncio.run(run())


def test_those_of_a_function_go_in_order_and_one_that_goes_away_takes_no_place() -> None:
    async def run() -> None:
        it = _World(2)
        for _ in range(4):
            await it.call("a")
        assert it.order == [0]
        it.calls[1][2].cancel()
        await it.turns()
        await it.end(0)
        await it.end(2)
        assert it.order == [0, 2, 3]
        await it.close()
        again = _World(2)
        again.places = it.places
        await again.call("b")
        assert again.order == [0]  # nothing is left behind
        await again.close()

    asyncio.run(run())


def test_one_that_goes_away_as_it_is_given_a_place_hands_it_on() -> None:
    async def run() -> None:
        it = _World(2)
        for _ in range(3):
            await it.call("a")
        it.calls[0][1].set()
        for _ in range(10):
            await asyncio.sleep(0)
            if it.under_way["a"] == 0:
                break
        it.calls[1][2].cancel()
        await it.turns()
        assert it.under_way == {"a": 1}
        await it.close()

    asyncio.run(run())


@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 200), st.booleans()), max_size=60),
)
def test_places_are_bounded_and_there_is_one_for_who_has_none(
    total: int, steps: list[tuple[str, int, bool]]
) -> None:
    async def run() -> None:
        it = _World(total)
        for key, number, begins in steps:
            if begins or not it.calls:
                await it.call(key)
            elif number % 3:
                await it.end(number % len(it.calls))
            else:
                it.calls[number % len(it.calls)][2].cancel()
                await it.turns()
                it.under_way = Counter(
                    each for each, end, task in it.calls if it.calls and not task.done() and _runs(it, task)
                )
            assert sum(it.under_way.values()) <= total
        await it.close()
        assert it.places._free == total
        assert not it.places._used
        assert not it.places._waiting

    asyncio.run(run())


def _runs(it: _World, task: asyncio.Task[None]) -> bool:
    numbers = [number for number, (_, _, one) in enumerate(it.calls) if one is task]
    return any(number in it.order for number in numbers)
