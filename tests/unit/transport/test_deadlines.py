from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.testing.clock import MovableClock
from torpor.transport.deadlines import Deadlines

if TYPE_CHECKING:
    from torpor.transport.deadlines import Alarm


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_they_pass_in_their_order() -> None:
    async def check() -> None:
        clock = MovableClock()
        deadlines = Deadlines(clock)
        passed: list[str] = []
        deadlines.after(3, lambda: passed.append("c"))
        deadlines.after(1, lambda: passed.append("a"))
        deadlines.at(2, lambda: passed.append("b"))
        await clock.advance(1.5, settle)
        assert passed == ["a"]
        await clock.advance(2, settle)
        assert passed == ["a", "b", "c"]
        deadlines.after(1, lambda: passed.append("d"))
        await clock.advance(1, settle)
        assert passed == ["a", "b", "c", "d"]
        await deadlines.close()

    asyncio.run(check())


def test_one_that_is_cancelled_does_not_pass() -> None:
    async def check() -> None:
        clock = MovableClock()
        deadlines = Deadlines(clock)
        passed: list[str] = []
        first = deadlines.after(1, lambda: passed.append("a"))
        deadlines.after(1, lambda: passed.append("b"))
        first.cancel()
        first.cancel()
        assert not first.pending
        await clock.advance(1, settle)
        assert passed == ["b"]
        await deadlines.close()

    asyncio.run(check())


def test_one_may_set_and_cancel_others() -> None:
    async def check() -> None:
        clock = MovableClock()
        deadlines = Deadlines(clock)
        passed: list[str] = []
        later = deadlines.after(5, lambda: passed.append("never"))

        def first() -> None:
            passed.append("first")
            later.cancel()
            deadlines.after(1, lambda: passed.append("second"))

        deadlines.after(1, first)
        await clock.advance(10, settle)
        assert passed == ["first", "second"]
        await deadlines.close()

    asyncio.run(check())


def test_the_heap_is_swept_of_what_was_cancelled() -> None:
    async def check() -> None:
        deadlines = Deadlines(MovableClock())
        kept = deadlines.after(1000, lambda: None)
        for _ in range(10_000):
            deadlines.after(300, lambda: None).cancel()
        assert len(deadlines) < 2000
        assert kept.pending
        await deadlines.close()

    asyncio.run(check())


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=30))
def test_each_passes_once_at_its_time_unless_cancelled(planned: list[tuple[int, bool]]) -> None:
    async def check() -> None:
        clock = MovableClock()
        deadlines = Deadlines(clock)
        passed: list[tuple[int, float]] = []
        handles: list[tuple[Alarm, bool]] = []
        for delay, cancel in planned:

            def act(delay: int = delay) -> None:
                passed.append((delay, clock.monotonic()))

            handles.append((deadlines.after(delay, act), cancel))
        for handle, cancel in handles:
            if cancel:
                handle.cancel()
        await clock.advance(30, settle)
        assert sorted(delay for delay, _ in passed) == sorted(
            delay for delay, cancel in planned if not cancel
        )
        assert all(when == delay for delay, when in passed)
        await deadlines.close()

    asyncio.run(check())


async def _limited(deadlines: Deadlines, work: asyncio.Event) -> str:
    try:
        with deadlines.limit(2.0):
            await work.wait()
    except TimeoutError:
        await asyncio.sleep(0)  # it can go on waiting, since it is not cancelled any more
        return "late"
    return "in time"


def test_a_block_ends_in_time_or_times_out() -> None:
    async def check() -> None:
        clock = MovableClock()
        deadlines = Deadlines(clock)
        work = asyncio.Event()
        first, second = [asyncio.create_task(_limited(deadlines, each)) for each in (work, asyncio.Event())]
        await clock.advance(1.0, settle)
        work.set()
        await clock.advance(5.0, settle)
        assert [await first, await second] == ["in time", "late"]
        await deadlines.close()

    asyncio.run(check())


def test_a_block_that_is_cancelled_is_no_time_out() -> None:
    async def check() -> None:
        clock = MovableClock()
        deadlines = Deadlines(clock)
        early, both = [asyncio.create_task(_limited(deadlines, asyncio.Event())) for _ in range(2)]
        await settle()
        early.cancel()
        await settle()
        assert early.cancelled()

        async def cancel_at_the_same_time() -> None:
            await clock.sleep(2.0)
            both.cancel()

        cancelling = asyncio.create_task(cancel_at_the_same_time())
        await clock.advance(2.0, settle)
        await cancelling
        assert both.cancelled()
        await deadlines.close()

    asyncio.run(check())


def test_what_a_block_raises_is_raised() -> None:
    async def check() -> None:
        deadlines = Deadlines(MovableClock())
        with pytest.raises(ZeroDivisionError), deadlines.limit(1.0):
            raise ZeroDivisionError
        await deadlines.close()

    asyncio.run(check())
