from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from torpor.providers.process.backoff import Backoff, Policy

POLICY = Policy(first_seconds=0.25, most_seconds=10.0, healthy_seconds=10.0)


def test_the_first_death_is_made_good_at_once_and_then_the_wait_doubles() -> None:
    backoff, now, waits = Backoff(POLICY), 100.0, []
    for _ in range(9):
        backoff = backoff.died(now, started_at=now, ready_at=None)
        waits.append(backoff.wait_seconds(now))
        now += waits[-1]
    assert waits == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert backoff.failed_starts == 9


def test_the_wait_runs_out() -> None:
    backoff = Backoff(POLICY).died(0.0, 0.0, None).died(1.0, 1.0, None).died(2.0, 2.0, None)
    assert backoff.wait_seconds(2.25) == 0.25
    assert backoff.wait_seconds(3.0) == 0.0


def test_an_instance_that_lasted_ends_the_series() -> None:
    backoff = Backoff(POLICY)
    for now in (0.0, 1.0, 2.0):
        backoff = backoff.died(now, now, None)
    assert backoff.died(13.0, 2.5, ready_at=3.0) == Backoff(POLICY, failures=1, failed_starts=0, last_at=13.0)
    # 9.9 s were not enough: it is the fourth.
    assert backoff.died(12.9, 2.5, ready_at=3.0).failures == 4


def test_instances_that_die_together_count_once() -> None:
    backoff = Backoff(POLICY)
    for _ in range(50):
        backoff = backoff.died(20.0, started_at=15.0, ready_at=15.1)
    assert backoff.failures == 1
    assert backoff.wait_seconds(20.0) == 0.0


def test_readiness_ends_a_row_of_failed_starts_but_not_the_wait() -> None:
    backoff = Backoff(POLICY).died(0.0, 0.0, None).died(1.0, 1.0, None).became_ready()
    assert backoff.failed_starts == 0
    assert backoff.died(2.0, 1.5, ready_at=1.6).failures == 3


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=60))
def test_the_wait_is_bounded(deaths: list[tuple[float, bool]]) -> None:
    backoff, now = Backoff(POLICY), 0.0
    for lived, was_ready in deaths:
        started = now
        now += lived
        backoff = backoff.died(now, started, started if was_ready else None)
        assert 0.0 <= backoff.wait_seconds(now) <= POLICY.most_seconds
        assert backoff.failed_starts <= backoff.failures <= len(deaths)
