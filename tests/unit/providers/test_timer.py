from __future__ import annotations

import asyncio

from torpor.clock import happens_within
from torpor.providers.process.timer import Timer
from torpor.testing.clock import MovableClock


def test_a_timer_acts_once_at_the_time_it_was_last_set_to() -> None:
    async def scenario() -> None:
        clock, acts = MovableClock(), list[float]()
        timer = Timer(clock, lambda: acts.append(clock.monotonic()))
        timer.start(5.0)
        await clock.advance(3.0, _settle)
        timer.start(5.0)
        await clock.advance(4.9, _settle)
        assert timer.running
        assert not acts
        await clock.advance(10.0, _settle)
        assert acts == [8.0]
        assert not timer.running

    asyncio.run(scenario())


def test_a_timer_that_is_stopped_does_not_act() -> None:
    async def scenario() -> None:
        clock, acts = MovableClock(), list[int]()
        timer = Timer(clock, lambda: acts.append(1))
        timer.start(1.0)
        timer.stop()
        timer.stop()
        await clock.advance(10.0, _settle)
        assert not acts

    asyncio.run(scenario())


def test_an_event_in_time_and_one_too_late() -> None:
    async def scenario() -> None:
        clock, event = MovableClock(), asyncio.Event()
        waiting = asyncio.create_task(happens_within(clock, 5.0, event))
        await clock.advance(5.0, _settle)
        assert await waiting is False
        waiting = asyncio.create_task(happens_within(clock, 5.0, event))
        await _settle()
        event.set()
        assert await waiting is True
        assert await happens_within(clock, 0.0, event) is True
        assert clock.next_due is None

    asyncio.run(scenario())


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)
