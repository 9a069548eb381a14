from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.scaling.windows import Window


def test_an_average_is_over_the_buckets_of_the_window() -> None:
    window = Window(6.0, 2.0)  # three buckets
    assert window.average(0.0) is None
    averages = []
    for now, value in [(0.0, 9.0), (2.0, 3.0), (4.0, 0.0), (6.0, 0.0), (8.0, 6.0)]:
        window.record(now, value)
        averages.append(window.average(now))
    # 9; (9+3)/2; (9+3+0)/3; the 9 is out: (3+0+0)/3; (0+0+6)/3
    assert averages == [9.0, 6.0, 4.0, 1.0, 2.0]


def test_a_bucket_counts_once_however_many_samples_it_has() -> None:
    window = Window(4.0, 2.0)
    window.record(0.0, 10.0)
    for step in range(4):
        window.record(2.0 + step * 0.5, float(step))  # 0, 1, 2, 3: the mean is 1.5
    assert window.average(3.9) == pytest.approx((10.0 + 1.5) / 2)


def test_a_gap_says_nothing_and_what_is_old_is_gone() -> None:
    window = Window(60.0, 0.5)
    window.record(0.0, 5.0)
    window.record(50.0, 7.0)
    assert window.average(50.0) == 6.0
    assert window.average(60.1) == 7.0
    assert window.average(110.1) is None


@pytest.mark.parametrize("window_seconds", [0.1, 0.5])
def test_a_window_holds_one_bucket_at_least(window_seconds: float) -> None:
    window = Window(window_seconds, 0.5)
    window.record(10.0, 5.0)
    window.record(10.5, 1.0)
    assert window.average(10.6) == 1.0


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 1000)), min_size=1, max_size=80),
    st.floats(0.5, 30),
    st.floats(0.1, 2),
)
def test_an_average_lies_between_the_samples_of_the_window(
    samples: list[tuple[float, float]], window_seconds: float, bucket_seconds: float
) -> None:
    window = Window(window_seconds, bucket_seconds)
    now, seen = 0.0, []
    for delay, value in samples:
        now += delay
        window.record(now, value)
        seen.append((now, value))
        recent = [value for at, value in seen if at > now - window_seconds - 2 * bucket_seconds]
        average = window.average(now)
        assert average is not None
        assert min(recent) - 1e-9 <= average <= max(recent) + 1e-9
