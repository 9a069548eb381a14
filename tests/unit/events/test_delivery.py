"""What follows from an attempt: the delivery contract as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.events.delivery import (
    MAX_DELAY_SECONDS,
    Answer,
    DeadLetter,
    Delivered,
    NoAnswer,
    Retry,
    decide,
    delays_seconds,
    parse_retry_after,
)
from torpor.spec.models import Delivery

DELAYS = (1.0, 2.0, 4.0)


@pytest.mark.parametrize(
    ("delivery", "delays"),
    [
        (Delivery(retry=0), ()),
        (Delivery(retry=3, backoff_policy="linear", backoff_delay_seconds=0.5), (0.5, 1.0, 1.5)),
        (Delivery(retry=4, backoff_policy="exponential", backoff_delay_seconds=0.2), (0.4, 0.8, 1.6, 3.2)),
        (Delivery(retry=2, backoff_policy="linear", backoff_delay_seconds=3600.0), (3600.0, 3600.0)),
    ],
)
def test_schedule(delivery: Delivery, delays: tuple[float, ...]) -> None:
    assert delays_seconds(delivery) == pytest.approx(delays)


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_success(status: int) -> None:
    assert decide(DELAYS, 1, Answer(status)) == Delivered()


@pytest.mark.parametrize("status", [404, 408, 409, 429, 500, 502, 503, 504, 599])
def test_statuses_that_are_tried_again(status: int) -> None:
    for attempt, delay in enumerate(DELAYS, start=1):
        assert decide(DELAYS, attempt, Answer(status)) == Retry(delay, f"the function answered {status}")
    assert decide(DELAYS, 4, Answer(status)) == DeadLetter(
        f"the function answered {status}, at attempt 4, the last", status
    )


@pytest.mark.parametrize("status", [100, 301, 304, 400, 401, 403, 405, 410, 413, 415, 422, 600])
def test_statuses_that_are_final(status: int) -> None:
    assert decide(DELAYS, 1, Answer(status)) == DeadLetter(
        f"the function answered {status}, which is final", status
    )


def test_no_answer_is_tried_again() -> None:
    assert decide(DELAYS, 2, NoAnswer("no route")) == Retry(2.0, "no route")
    assert decide(DELAYS, 4, NoAnswer("no route")) == DeadLetter("no route, at attempt 4, the last", None)
    assert decide((), 1, NoAnswer("no route")) == DeadLetter("no route, at attempt 1, the last", None)


@pytest.mark.parametrize(("asked", "wait"), [(0.5, 1.0), (30.0, 30.0), (1e9, MAX_DELAY_SECONDS), (None, 1.0)])
def test_a_receiver_may_ask_for_longer(asked: float | None, wait: float) -> None:
    decision = decide(DELAYS, 1, Answer(503, asked))
    assert isinstance(decision, Retry)
    assert decision.delay_seconds == wait


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"120", 120.0),
        (b" 7 ", 7.0),
        (b"Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        (b"Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
        (b"99999999999999999999", 999999999.0),
        (b"-1", None),
        (b"soon", None),
        (b"", None),
        (b"\xff", None),
        (b"Thu, 99 Jan 1970 00:01:40 GMT", None),
    ],
)
def test_retry_after(value: bytes, seconds: float | None) -> None:
    assert parse_retry_after(value, now=60.0) == seconds


@given(st.binary(max_size=60))
def test_retry_after_takes_any_bytes(value: bytes) -> None:
    seconds = parse_retry_after(value, now=0.0)
    assert seconds is None or seconds >= 0.0


@given(
    st.integers(0, 100),
    st.sampled_from(["linear", "exponential"]),
    st.floats(0.001, 3600.0),
    st.one_of(st.integers(100, 599).map(Answer), st.just(NoAnswer("x"))),
)
def test_every_event_ends(retry: int, policy: str, base: float, outcome: Answer | NoAnswer) -> None:
    delays = delays_seconds(
        Delivery(retry=retry, backoff_policy=policy, backoff_delay_seconds=base)  # type: ignore[arg-type]
    )
    assert len(delays) == retry
    assert list(delays) == sorted(delays)
    attempt = 1
    while isinstance(decide(delays, attempt, outcome), Retry):
        attempt += 1
    assert attempt <= retry + 1
