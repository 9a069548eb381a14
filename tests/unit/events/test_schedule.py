"""What is due, what was missed, and when to look again: by table and by property."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from torpor.events.schedule import (
    MISSED_AFTER_SECONDS,
    MOST_MADE_UP_FOR,
    MOST_PENDING,
    Look,
    Standing,
    Timing,
)
from torpor.events.schedule_marks import event_of, timing_of
from torpor.spec.models import Metadata, Schedule, ScheduledEvent, ScheduleSpec

START = 1_767_225_600  # 2026-01-01T00:00:00Z, and a full hour
HOUR = 3600


def schedule(
    cron: str = "@hourly", *, name: str = "s", event: ScheduledEvent | None = None, **spec: Any
) -> Schedule:
    return Schedule(
        metadata=Metadata(name=name),
        spec=ScheduleSpec(cron=cron, event=event or ScheduledEvent(), **spec),
    )


def look(timing: Timing, now: float, seen: int = START, pending: tuple[int, ...] = ()) -> Look:
    return timing.look(Standing(seen, pending), now)


def hours(*numbers: int) -> tuple[int, ...]:
    return tuple(START + HOUR * number for number in numbers)


@pytest.mark.parametrize(
    ("after_seconds", "fired", "following"),
    [
        (0.0, (), 1),
        (3599.9, (), 1),
        (3600.0, (1,), 2),
        (3660.0, (1,), 2),  # a minute late is on time
        (7199.9, (), 2),  # and an hour is not
        (7200.0, (2,), 3),
    ],
)
def test_what_is_noticed_within_a_minute_is_fired(
    after_seconds: float, fired: tuple[int, ...], following: int
) -> None:
    found = look(Timing(schedule()), START + after_seconds)
    assert found.standing.pending == hours(*fired)
    assert found.next_planned == START + HOUR * following
    assert found.wake_at == found.next_planned


@pytest.mark.parametrize(
    ("missed", "fired", "left_out"), [("skip", (), 3), ("run-once", (3,), 2), ("run-all", (1, 2, 3), 0)]
)
def test_what_becomes_of_firings_of_a_time_when_nobody_looked(
    missed: str, fired: tuple[int, ...], left_out: int
) -> None:
    found = look(Timing(schedule(missed=missed)), START + 3.5 * HOUR)
    assert found.standing == Standing(START + 3 * HOUR, hours(*fired))
    assert found.missed == left_out


@pytest.mark.parametrize("missed", ["skip", "run-once", "run-all"])
def test_one_that_is_on_time_is_fired_beside_those_that_were_missed(missed: str) -> None:
    found = look(Timing(schedule(missed=missed)), START + 3 * HOUR + 30)
    made_up_for = {"skip": (), "run-once": (2,), "run-all": (1, 2)}[missed]
    assert found.standing.pending == hours(*made_up_for, 3)


def test_of_very_many_missed_the_newest_are_made_up_for() -> None:
    end = START + 365 * 24 * HOUR + 61
    found = look(Timing(schedule("* * * * * *", missed="run-all")), end)
    on_time = tuple(range(int(end - MISSED_AFTER_SECONDS), end + 1))
    late = range(on_time[0] - MOST_MADE_UP_FOR, on_time[0])
    assert found.standing == Standing(end, (*late, *on_time))
    assert found.missed == 200 - len(late) - len(on_time)


def test_of_very_many_missed_in_a_burst_long_ago_the_newest_is_found() -> None:
    # Each second of the first minute of the year, and it is December.
    found = look(Timing(schedule("* 0-9 0 1 1 *", missed="run-once")), START + 340 * 24 * HOUR)
    assert found.standing.pending == (START + 599,)


def test_firings_wait_for_a_broker_that_is_away_and_the_oldest_give_way() -> None:
    timing = Timing(schedule("* * * * * *"))
    standing, missed = Standing(START), 0
    for second in range(1, MOST_PENDING + 11):
        found = timing.look(standing, START + second)
        standing, missed = found.standing, missed + found.missed
    assert standing.pending == tuple(range(START + 11, START + MOST_PENDING + 11))
    assert missed == 10


def test_a_clock_that_was_set_back_fires_nothing_again() -> None:
    found = look(Timing(schedule()), START, seen=START + 2 * HOUR)
    assert found.standing == Standing(START + 2 * HOUR)
    assert found.next_planned == START + 3 * HOUR


# --- jitter -----------------------------------------------------------------------------------------------


def test_jitter_is_the_same_in_every_process_and_differs_by_schedule_and_time() -> None:
    one, same = (Timing(schedule(jitter_seconds=600.0)) for _ in range(2))
    other = Timing(schedule(name="other", jitter_seconds=600.0))
    due = [one.due(planned) - planned for planned in hours(*range(200))]
    assert due == [same.due(planned) - planned for planned in hours(*range(200))]
    assert due != [other.due(planned) - planned for planned in hours(*range(200))]
    assert all(0 <= delay < 600 for delay in due)
    assert len({int(delay // 60) for delay in due}) == 10  # over the whole of it
    assert due[0] == pytest.approx(139.34949, abs=1e-4)  # as ever: a restart with a newer version agrees too


def test_a_firing_with_jitter_is_due_then_and_not_before() -> None:
    timing = Timing(schedule(jitter_seconds=600.0))
    [planned] = hours(1)
    due = timing.due(planned)
    assert planned < due < planned + 600
    assert look(timing, due - 0.001).standing == Standing(START)
    assert look(timing, due - 0.001).wake_at == due
    assert look(timing, due).standing == Standing(planned, (planned,))


@settings(deadline=None)
@given(st.floats(0, 86_400), st.lists(st.floats(0, 4000), max_size=30), st.sampled_from(["skip", "run-all"]))
@example(86_400.0, [3600.0] * 50, "run-all")  # more are put off at once than are looked at
def test_each_firing_comes_once_in_order_and_never_early(
    jitter: float, steps: list[float], missed: str
) -> None:
    timing = Timing(schedule("*/5 * * * *", jitter_seconds=jitter, missed=missed))
    fired: list[int] = []
    standing, now, left_out = Standing(START), float(START), 0
    for step in steps:
        now += step
        found = timing.look(standing, now)
        fired += found.standing.pending
        assert all(timing.due(planned) <= now for planned in found.standing.pending)
        left_out += found.missed
        standing = Standing(found.standing.seen)
    assert fired == sorted(set(fired))
    planned = range(START + 300, standing.seen + 1, 300)
    assert set(fired) <= set(planned)
    assert len(fired) + left_out == len(planned)
    if missed == "run-all":
        assert fired == list(planned)


@settings(deadline=None)
@given(st.floats(0, 7200), st.integers(1, 50))
def test_who_looks_at_the_wake_time_misses_nothing(jitter: float, number: int) -> None:
    timing = Timing(schedule("*/10 * * * *", jitter_seconds=jitter))
    fired: list[int] = []
    standing, now = Standing(START), float(START)
    for _ in range(number):
        found = timing.look(standing, now)
        fired += found.standing.pending
        assert found.missed == 0
        standing = Standing(found.standing.seen)
        assert found.wake_at is not None
        now = max(now, found.wake_at)
    assert fired == [START + 600 * (index + 1) for index in range(len(fired))]
    assert len(fired) >= number - 1


# --- events and marks -------------------------------------------------------------------------------------


def test_an_event_by_default() -> None:
    event = event_of(schedule(name="nightly"), START)
    assert event.attributes == {
        "specversion": "1.0",
        "id": "default/nightly@2026-01-01T00:00:00Z",
        "source": "/schedules/default/nightly",
        "type": "nightly.fired",
        "time": "2026-01-01T00:00:00Z",
    }
    assert event.data is None


@pytest.mark.parametrize(
    ("given", "content_type", "data"),
    [
        ({"data": {"a": [1, None, "ü", 10**30]}}, "application/json", '{"a":[1,null,"ü",1' + "0" * 30 + "]}"),
        ({"data": "text"}, "application/json", '"text"'),
        ({"data": False}, "application/json", "false"),
        ({"data_text": "a,b\n"}, "text/plain; charset=utf-8", "a,b\n"),
        ({"data_text": "a,b\n", "data_content_type": "text/csv"}, "text/csv", "a,b\n"),
        ({"data": {}, "data_content_type": "application/x+json"}, "application/x+json", "{}"),
    ],
)
def test_an_event_with_data(given: dict[str, Any], content_type: str, data: str) -> None:
    event = event_of(schedule(event=ScheduledEvent(**given)), START)
    assert event.attributes["datacontenttype"] == content_type
    assert event.data == data.encode()


def test_data_that_is_nested_too_deeply_is_refused() -> None:
    """Who writes it as JSON later could not."""
    data: list[Any] = []
    for _ in range(31):
        data = [data]
    assert ScheduledEvent(data=data).data == data
    with pytest.raises(ValidationError, match="is nested 33 levels deep, at most 32 were expected"):
        ScheduledEvent(data={"deeper": data})


def test_an_event_as_it_was_declared() -> None:
    asked = ScheduledEvent(type="t", source="/s", subject="x", extensions={"partitionkey": "k"})
    attributes = event_of(schedule(event=asked), START).attributes
    assert {name: attributes[name] for name in ("type", "source", "subject", "partitionkey")} == {
        "type": "t",
        "source": "/s",
        "subject": "x",
        "partitionkey": "k",
    }


def test_what_is_planned_by_is_expression_and_zone_alone() -> None:
    assert timing_of(schedule(jitter_seconds=5.0, missed="run-all")) == timing_of(schedule())
    assert timing_of(schedule(time_zone="Europe/Berlin")) != timing_of(schedule())
    assert timing_of(schedule("@daily")) != timing_of(schedule())
