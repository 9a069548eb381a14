"""The rate limit as numbers: never more than allowed in any time, even, and no less than it could be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.events.pacing import MAX_BURST, Pace, pace
from torpor.spec.models import RateLimit


@pytest.mark.parametrize(
    ("events", "per", "expected"),
    [
        (1, 1.0, Pace(1.0, 1)),
        (19, 1.0, Pace(1 / 19, 1)),
        (50, 1.0, Pace(0.02, 5)),
        (1000, 60.0, Pace(0.06, MAX_BURST)),
    ],
)
def test_what_is_declared_makes_the_pace(events: int, per: float, expected: Pace) -> None:
    assert pace(RateLimit(events=events, per_seconds=per)) == expected


def _booked(pace: Pace, arrivals: list[float]) -> list[float]:
    due, moments = pace.start(arrivals[0]), []
    for now in arrivals:
        at, due = pace.book(due, now)
        moments.append(at)
    return moments


def test_a_crowd_is_spread_evenly() -> None:
    assert _booked(Pace(0.25, 1), [0.0] * 5) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_a_burst_comes_after_a_rest_and_not_at_the_start() -> None:
    # After 10 s of rest: three at once, then one each second.
    assert _booked(Pace(1.0, 3), [0.0, 0.0, 10.0, 10.0, 10.0, 10.0, 10.0]) == [0, 1, 10, 10, 10, 11, 12]


@given(
    st.integers(1, 20),
    st.integers(1, 16),
    st.lists(st.integers(0, 64), min_size=1, max_size=80).map(sorted),
    st.integers(1, 200),
)
def test_no_window_holds_more_and_none_waits_without_need(
    burst: int, interval: int, arrivals: list[int], window: int
) -> None:
    # Whole numbers of seconds, so that floats are exact.
    pace = Pace(float(interval), burst)
    moments = _booked(pace, [float(each) for each in arrivals])
    assert moments == sorted(moments)
    for start in moments:
        inside = sum(start <= at < start + window for at in moments)
        assert inside <= burst + (window - 1) // interval
    for before, arrived, at in zip([-interval, *moments], arrivals, moments, strict=False):
        assert arrived <= at <= max(arrived, before + interval)
