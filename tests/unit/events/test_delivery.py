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
    Schedule,
    decide,
    delays_seconds,
    parse_retry_after,
    schedule,
)
from torpor.problems import detail_of
from torpor.spec.models import Delivery

DELAYS = (1.0, 2.0, 4.0)
SCHEDULE = Schedule(DELAYS)


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
    assert decide(SCHEDULE, 1, Answer(status)) == Delivered()


@pytest.mark.parametrize("status", [404, 408, 409, 429, 500, 502, 503, 504, 599])
def test_statuses_that_are_tried_again(status: int) -> None:
    for attempt, delay in enumerate(DELAYS, start=1):
        assert decide(SCHEDULE, attempt, Answer(status)) == Retry(delay, f"the function answered {status}")
    assert decide(SCHEDULE, 4, Answer(status)) == DeadLetter(
        f"the function answered {status}, at attempt 4, the last", status
    )


@pytest.mark.parametrize("status", [100, 301, 304, 400, 401, 403, 405, 410, 413, 415, 422, 600])
def test_statuses_that_are_final(status: int) -> None:
    assert decide(SCHEDULE, 1, Answer(status)) == DeadLetter(
        f"the function answered {status}, which is final", status
    )


def test_no_answer_is_tried_again() -> None:
    assert decide(SCHEDULE, 2, NoAnswer("no route")) == Retry(2.0, "no route")
    assert decide(SCHEDULE, 4, NoAnswer("no route")) == DeadLetter("no route, at attempt 4, the last", None)
    assert decide(Schedule(()), 1, NoAnswer("no route")) == DeadLetter(
        "no route, at attempt 1, the last", None
    )


@pytest.mark.parametrize(("asked", "wait"), [(0.5, 1.0), (30.0, 30.0), (1e9, MAX_DELAY_SECONDS), (None, 1.0)])
def test_a_receiver_may_ask_for_longer(asked: float | None, wait: float) -> None:
    decision = decide(SCHEDULE, 1, Answer(503, asked))
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
    while isinstance(decide(Schedule(delays), attempt, outcome), Retry):
        attempt += 1
    assert attempt <= retry + 1


def test_what_is_declared_makes_the_schedule() -> None:
    declared = Delivery(retry=1, jitter_percentage=25, retry_after_max_seconds=5.0)
    assert schedule(declared) == Schedule((0.4,), 0.25, 5.0)


@pytest.mark.parametrize(("most", "wait"), [(0.0, 1.0), (0.5, 1.0), (20.0, 20.0), (60.0, 30.0)])
def test_retry_after_counts_up_to_its_ceiling(most: float, wait: float) -> None:
    decision = decide(Schedule(DELAYS, retry_after_max_seconds=most), 1, Answer(429, 30.0))
    assert decision == Retry(wait, "the function answered 429")


def _wait(jitter: float, attempt: int, identity: str, asked: float | None = None) -> float:
    decision = decide(Schedule((10.0,) * 100, jitter), attempt, Answer(503, asked), identity)
    assert isinstance(decision, Retry)
    return decision.delay_seconds


@given(st.floats(0.0, 1.0), st.integers(1, 100), st.text(), st.none() | st.floats(0.0, 3600.0))
def test_jitter_only_makes_longer_and_is_repeatable(
    jitter: float, attempt: int, identity: str, asked: float | None
) -> None:
    wait = _wait(jitter, attempt, identity, asked)
    least = max(10.0, asked or 0.0)
    assert least <= wait <= least * (1 + jitter)
    assert wait == _wait(jitter, attempt, identity, asked)


def test_jitter_spreads_events_and_attempts() -> None:
    # In each tenth of the range is a tenth of the 1,000 waits, give or take 5 standard deviations of 9.5.
    for waits in (
        [_wait(1.0, 1, f"/s {number}") for number in range(1000)],
        [_wait(1.0, attempt, f"/s {number}") for attempt in range(1, 101) for number in range(10)],
    ):
        for tenth in range(10):
            inside = sum(10.0 + tenth <= wait < 11.0 + tenth for wait in waits)
            assert 50 <= inside <= 150


def test_what_the_receiver_says_is_in_the_reason() -> None:
    final = decide(SCHEDULE, 1, Answer(422, detail="there is nobody of that name"))
    assert final == DeadLetter("the function answered 422, which is final: there is nobody of that name", 422)
    last = decide(SCHEDULE, 4, Answer(503, detail="closed"))
    assert last == DeadLetter("the function answered 503, at attempt 4, the last: closed", 503)
    again = decide(SCHEDULE, 1, Answer(503, detail="closed"))
    assert isinstance(again, Retry)
    assert again.reason == "the function answered 503: closed"


@pytest.mark.parametrize(
    ("content_type", "body", "detail"),
    [
        (b"application/problem+json", b'{"detail": "so it is"}', "so it is"),
        (b"Application/Problem+JSON; charset=utf-8", b'{"detail": "so it is"}', "so it is"),
        (b"application/json", b'{"detail": "so it is"}', ""),
        (b"application/problem+json", b'{"detail": 7}', ""),
        (b"application/problem+json", b"[]", ""),
        (b"application/problem+json", b"{", ""),
        (b"application/problem+json", b'{"detail": "' + b"x" * 999 + b'"}', "x" * 300),
        (None, b'{"detail": "so it is"}', ""),
    ],
)
def test_a_problem_document_says_what_was_wrong(content_type: bytes | None, body: bytes, detail: str) -> None:
    assert detail_of(content_type, body) == detail
