"""The work queue: once a key, one worker a key, again after news, later after a failure."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING

from torpor.controller.queue import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, WorkQueue
from torpor.errors import ClusterError
from torpor.testing.clock import MovableClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def running(
    work: Callable[[str], Awaitable[float | None]],
) -> AsyncIterator[tuple[WorkQueue, MovableClock]]:
    clock = MovableClock()
    queue = WorkQueue(clock, work)
    task = asyncio.create_task(queue.run())
    await turns()
    try:
        yield queue, clock
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_key_is_worked_on_by_one_and_again_after_news() -> None:
    async def case() -> None:
        done: list[str] = []
        go_on = asyncio.Event()

        async def work(key: str) -> None:
            done.append(key)
            await go_on.wait()

        async with running(work) as (queue, _):
            for _ in range(3):
                queue.add("a")
            await turns()
            queue.add("a")
            queue.add("a")
            queue.add("b")
            await turns()
            assert done == ["a", "b"]
            go_on.set()
            await turns()
            assert done == ["a", "b", "a"]
            assert queue.idle

    asyncio.run(case())


def test_a_failure_is_tried_again_after_a_growing_pause() -> None:
    async def case() -> None:
        failing, times = True, []

        async def work(_: str) -> None:
            times.append(clock.monotonic())
            if failing:
                raise ClusterError("no")

        async with running(work) as (queue, clock):
            queue.add("a")
            await turns()
            await clock.advance(10 * LONGEST_PAUSE_SECONDS, turns)
            pauses = [after - before for before, after in itertools.pairwise(times)]
            assert all(
                abs(pause - FIRST_PAUSE_SECONDS * 2**index) < 1e-6 for index, pause in enumerate(pauses[:3])
            )
            assert max(pauses) <= LONGEST_PAUSE_SECONDS + 1e-6
            failing = False
            queue.add("a")
            await turns()
            count = len(times)
            await clock.advance(10 * LONGEST_PAUSE_SECONDS, turns)
            assert len(times) <= count + 1  # what was due from the last failure, and nothing after

    asyncio.run(case())


def test_work_may_ask_to_be_looked_at_later() -> None:
    async def case() -> None:
        times: list[float] = []

        async def work(_: str) -> float | None:
            times.append(clock.monotonic())
            return 5.0 if len(times) < 3 else None

        async with running(work) as (queue, clock):
            queue.add("a")
            await turns()
            await clock.advance(60, turns)
            assert times == [0, 5, 10]

    asyncio.run(case())
