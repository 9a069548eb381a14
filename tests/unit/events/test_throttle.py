"""Triggers with a rate limit: how often their function is called, in what order, and by whom."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.events.test_sharing import pair
from tests.unit.events.world import answer, event, linear, part, trigger, world
from torpor.spec.models import Join, RateLimit

TWO_A_SECOND = RateLimit(events=2)


def test_events_are_sent_evenly_in_the_order_in_which_they_came() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(rate_limit=TWO_A_SECOND))
            await it.publish(*(event(str(number)) for number in range(5)))
            assert await it.pending() == 5 - len(it.functions.calls)
            await it.advance(10.0)
            assert it.functions.times() == [0.0, 0.5, 1.0, 1.5, 2.0]
            assert [call[2] for call in it.functions.calls] == [[str(number)] for number in range(5)]

    asyncio.run(run())


def test_retries_count_too() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(rate_limit=RateLimit(events=1, per_seconds=2.0)))
            it.functions.behave = lambda events, attempt: answer(500 if attempt == 1 else 204)
            await it.publish(event("a"), event("b"))
            await it.advance(20.0)
            # a fails at 0 and b at 2; their retries are due at 1 and 3, and there is room at 4 and 6.
            assert [(at, ids, attempt) for at, _, ids, attempt in it.functions.calls] == [
                (0.0, ["a"], 1),
                (2.0, ["b"], 1),
                (4.0, ["a"], 2),
                (6.0, ["b"], 2),
            ]

    asyncio.run(run())


def test_what_the_filters_pass_over_costs_nothing() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "a", rate_limit=TWO_A_SECOND))
            await it.publish(event("1", "a"), *(event(f"x{n}", "b") for n in range(20)), event("2", "a"))
            await it.advance(5.0)
            assert it.functions.times() == [0.0, 0.5]
            assert await it.pending() == 0

    asyncio.run(run())


def test_no_attempt_is_lost_by_waiting_for_long() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger(rate_limit=RateLimit(events=1, per_seconds=60.0)))
            await it.publish(event("1"), event("2"), event("3"))
            await it.advance(150.0)  # far beyond the time to acknowledge
            assert it.functions.times() == [0.0, 60.0, 120.0]
            assert [call[3] for call in it.functions.calls] == [1, 1, 1]

    asyncio.run(run())


def test_a_joined_group_counts_as_one() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(
                trigger("j", "part", join=Join(timeout_seconds=60.0), rate_limit=RateLimit(events=1))
            )
            await it.publish(*(part(group, index, 2) for group in ("g", "h") for index in range(2)))
            await it.advance(5.0)
            assert it.functions.times() == [0.0, 1.0]

    asyncio.run(run())


@pytest.mark.parametrize("join", [None, Join(timeout_seconds=600.0)])
def test_the_limit_holds_over_a_change_of_the_lead(join: Join | None) -> None:
    async def run() -> None:
        limited = trigger(
            "t", "part", join=join, delivery=linear(retry=9), rate_limit=RateLimit(events=1, per_seconds=10.0)
        )
        async with pair(limited) as it:
            await it.one.lead(True)
            await it.publish(*(part(f"g{number}", 0, 1) for number in range(4)))
            await it.clock.advance(15.0, it.settle)
            await it.two.lead(True)
            await it.one.lead(False)
            await it.clock.advance(60.0, it.settle)
            # By the first: at 0 and 10. By the second: one at once, 15, and then evenly.
            assert it.functions.times() == [0.0, 10.0, 15.0, 25.0]
            assert len({call[2][0] for call in it.functions.calls}) == 4

    asyncio.run(run())
