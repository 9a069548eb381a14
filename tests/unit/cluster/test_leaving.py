"""When a gateway that was told to end may do so."""

from __future__ import annotations

import asyncio

import pytest

from torpor.cluster.leaving import QUIET_SECONDS, until_quiet
from torpor.errors import TransportError
from torpor.gateway.stats import Traffic, parse_traffic
from torpor.testing.clock import MovableClock

TOLD = b"""{"stats": [
  {"name": "http.public.downstream_rq_active", "value": 2},
  {"name": "http.internal.downstream_rq_active", "value": 1},
  {"name": "http.public.downstream_rq_total", "value": 40},
  {"name": "http.internal.downstream_rq_total", "value": 2},
  {"histograms": {}}
]}"""
QUIET = Traffic(0, 7)


def looks_needed(*told: Traffic | None) -> int:
    """How often the statistics are read until it ends; ``None``: they can't be."""

    async def case() -> int:
        clock, looks = MovableClock(), 0

        async def traffic() -> Traffic:
            nonlocal looks
            looks += 1
            if (one := told[looks - 1]) is None:
                raise TransportError("no answer")
            return one

        ending = asyncio.create_task(until_quiet(traffic, clock))
        while not ending.done():
            await asyncio.sleep(0)
            await clock.advance(QUIET_SECONDS)
            await asyncio.sleep(0)
        await ending
        return looks

    return asyncio.run(case())


def test_the_requests_of_all_listeners_are_added_up() -> None:
    assert parse_traffic(TOLD) == Traffic(3, 42)


@pytest.mark.parametrize(
    "told",
    [
        (QUIET, QUIET),
        (Traffic(1, 7), QUIET, QUIET),
        (Traffic(0, 6), QUIET, QUIET),
        (Traffic(1, 7), Traffic(1, 7), QUIET, QUIET),
        (QUIET, None, None, QUIET, QUIET),
        (None, None, QUIET, QUIET),
    ],
    ids=["nobody", "under-way", "somebody-came", "a-long-one", "not-told", "not-told-at-first"],
)
def test_it_ends_once_nothing_is_under_way_and_nobody_came(told: tuple[Traffic | None, ...]) -> None:
    assert looks_needed(*told) == len(told)
