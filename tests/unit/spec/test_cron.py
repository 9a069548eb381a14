"""When expressions come due: the tables of what a change of the clocks does, and what holds of all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from torpor.spec.cron import MAX_CRON_LENGTH, NICKNAMES, Cron, CronError, is_zone, zones

BERLIN, CAIRO, BEIRUT, HAVANA = "Europe/Berlin", "Africa/Cairo", "Asia/Beirut", "America/Havana"
LORD_HOWE, APIA = "Australia/Lord_Howe", "Pacific/Apia"


def times(text: str, zone: str, start: str, number: int = 3) -> list[str]:
    """The next times after ``start``, as the zone's clocks show them, with their offset from UTC."""
    found = islice(Cron(text, zone).after(datetime.fromisoformat(start).timestamp()), number)
    return [datetime.fromtimestamp(one, ZoneInfo(zone)).strftime("%m-%d %H:%M:%S%z")[:-2] for one in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("* * * * *", ["01-01 00:01:00+00", "01-01 00:02:00+00"]),
        ("*/20 * * * * *", ["01-01 00:00:20+00", "01-01 00:00:40+00"]),
        ("5 4 * * sun", ["01-04 04:05:00+00", "01-11 04:05:00+00"]),
        ("0 9 13 * 5", ["01-02 09:00:00+00", "01-09 09:00:00+00"]),
        ("0 9 * * 1#2", ["01-12 09:00:00+00", "02-09 09:00:00+00"]),
        ("0 0 L * *", ["01-31 00:00:00+00", "02-28 00:00:00+00"]),
        ("@hourly", ["01-01 01:00:00+00", "01-01 02:00:00+00"]),
        ("@Daily", ["01-02 00:00:00+00", "01-03 00:00:00+00"]),
        ("@weekly", ["01-04 00:00:00+00", "01-11 00:00:00+00"]),
        ("@monthly", ["02-01 00:00:00+00", "03-01 00:00:00+00"]),
        ("@yearly", ["01-01 00:00:00+00", "01-01 00:00:00+00"]),
    ],
)
def test_fields_seconds_and_nicknames(text: str, expected: list[str]) -> None:
    assert times(text, "UTC", "2026-01-01T00:00:00Z", 2) == expected


@pytest.mark.parametrize(
    ("text", "zone", "start", "expected"),
    [
        # Given hours in a skipped hour: once, at its end.
        ("30 2 * * *", BERLIN, "2026-03-28T12:00Z", ["03-29 03:00:00+02", "03-30 02:30:00+02"]),
        ("0 30 2 * * *", BERLIN, "2026-03-28T12:00Z", ["03-29 03:00:00+02", "03-30 02:30:00+02"]),
        ("0,30 2,3 * * *", BERLIN, "2026-03-28T12:00Z", ["03-29 03:00:00+02", "03-29 03:30:00+02"]),
        ("30 0 * * *", BEIRUT, "2026-03-28T12:00Z", ["03-29 01:00:00+03", "03-30 00:30:00+03"]),
        ("15 2 * * *", LORD_HOWE, "2026-10-03T00:00Z", ["10-04 02:30:00+11", "10-05 02:15:00+11"]),
        ("0 8 30 12 *", APIA, "2011-12-01T00:00Z", ["12-31 00:00:00+14", "12-30 08:00:00+14"]),
        # Given hours in a doubled hour: once, at first.
        ("30 2 * * *", BERLIN, "2026-10-24T12:00Z", ["10-25 02:30:00+02", "10-26 02:30:00+01"]),
        ("0 30 2 * * *", BERLIN, "2026-10-24T12:00Z", ["10-25 02:30:00+02", "10-26 02:30:00+01"]),
        ("30 0 * * *", HAVANA, "2026-10-31T12:00Z", ["11-01 00:30:00-04", "11-02 00:30:00-05"]),
        # Any hour: what the clock shows; none of the skipped times, each of the doubled ones.
        ("*/30 * * * *", BERLIN, "2026-03-29T00:45Z", ["03-29 03:00:00+02", "03-29 03:30:00+02"]),
        ("*/30 2 * * *", BERLIN, "2026-03-28T12:00Z", ["03-30 02:00:00+02", "03-30 02:30:00+02"]),
        ("30 * * * *", BERLIN, "2026-10-25T00:00Z", ["10-25 02:30:00+02", "10-25 02:30:00+01"]),
        ("0 */2 * * *", BERLIN, "2026-10-24T23:00Z", ["10-25 02:00:00+02", "10-25 02:00:00+01"]),
        ("0 * * * *", LORD_HOWE, "2026-04-04T13:30Z", ["04-05 01:00:00+11", "04-05 02:00:00+10"]),
        # A day that has no midnight begins later.
        ("*/30 * * * 0", BEIRUT, "2026-03-28T21:00Z", ["03-29 01:00:00+03", "03-29 01:30:00+03"]),
        ("*/30 0 * * 0", BEIRUT, "2026-03-28T21:00Z", ["04-05 00:00:00+03", "04-05 00:30:00+03"]),
        ("@daily", CAIRO, "2026-04-23T00:00Z", ["04-24 01:00:00+03", "04-25 00:00:00+03"]),
    ],
)
def test_what_a_change_of_the_clocks_does(text: str, zone: str, start: str, expected: list[str]) -> None:
    assert times(text, zone, start, 2) == expected


def test_from_within_the_second_pass_the_first_is_over() -> None:
    assert times("30 2 * * *", BERLIN, "2026-10-25T01:10Z", 1) == ["10-26 02:30:00+01"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has 0 fields, 5 were expected, or 6 with the seconds first"),
        ("* * * * * * *", "has 7 fields, 5 were expected, or 6 with the seconds first"),
        ("61 * * * *", "has '61' for the minute, 0 to 59 was expected"),
        ("60 * * * * *", "has '60' for the second, 0 to 59 was expected"),
        ("* 24 * * *", "has '24' for the hour, 0 to 23 was expected"),
        ("* * 32 * *", "has '32' for the day-of-month, 1 to 31, L or LW was expected"),
        ("* * * JUX *", "has 'JUX' for the month, 1 to 12 or JAN to DEC was expected"),
        ("* * * * 8", "has '8' for the day-of-week, 0 to 7, SUN to SAT, 5#2 or 5L was expected"),
        ("*/0 * * * *", "has '*/0' for the minute, 0 to 59 was expected"),
        ("30-10 * * * *", "has '30-10' for the minute, 0 to 59 was expected"),
        ("0 0 30 2 *", "never comes due, a day that there is was expected"),
        ("0 0 31 2,4 *", "never comes due, a day that there is was expected"),
        ("@reboot", f"is no nickname, one of {', '.join(NICKNAMES)} was expected"),
        ("@every 5m", f"is no nickname, one of {', '.join(NICKNAMES)} was expected"),
        ("1" * 101, "has 101 characters, at most 100 were expected"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(CronError) as caught:
        Cron(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "name", ["", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "Europe", "a" * 65]
)
def test_what_is_no_zone(name: str) -> None:
    assert not is_zone(name)
    with pytest.raises(ValueError, match="is no time zone"):
        Cron("* * * * *", name)


def test_the_machine_s_own_zone_is_none() -> None:
    assert not {"localtime", "Factory", "posixrules"} & zones()
    assert not is_zone("localtime")
    assert {"UTC", BERLIN} <= zones()


@given(st.text(max_size=MAX_CRON_LENGTH + 5))
def test_rubbish_is_refused_in_words(text: str) -> None:
    assert _said(text) is None or " expected" in str(_said(text))


def _said(text: str) -> str | None:
    """What is wrong with ``text``, if anything is."""
    try:
        Cron(text, BERLIN)
    except CronError as error:
        return str(error)
    return None


_FIELD = st.from_regex(r"(\*|[0-9]{1,2})(-[0-9]{1,2})?(/[0-9]{1,2})?(,[0-9]{1,2})?", fullmatch=True)


@given(st.lists(_FIELD, min_size=5, max_size=6).map(" ".join))
def test_what_looks_like_an_expression_is_one_or_is_refused_in_words(text: str) -> None:
    said = _said(text)
    if said is None:
        assert len(list(islice(Cron(text, BERLIN).after(0), 1))) == 1
    else:
        assert " expected" in said


_EXPRESSIONS = st.builds(
    lambda second, minute, hour, weekday: f"{second}{minute} {hour} * * {weekday}",
    st.sampled_from(["", "0 ", "*/20 ", "15,45 "]),
    st.sampled_from(["*", "*/10", "0", "30", "5,35", "10-20"]),
    st.sampled_from(["*", "*/3", "0", "1", "2", "2,3", "1-3", "23"]),
    st.sampled_from(["*", "0", "SAT,SUN"]),
)
_MOMENTS = st.integers(int(datetime(2020, 1, 1, tzinfo=UTC).timestamp()), 2_000_000_000)
_NEAR_A_CHANGE = st.sampled_from(["2026-03-29T01:00Z", "2026-10-25T01:00Z", "2026-03-28T22:00Z"]).flatmap(
    lambda text: st.integers(-7200, 7200).map(lambda by: int(datetime.fromisoformat(text).timestamp()) + by)
)
_ZONES = st.sampled_from(["UTC", BERLIN, BEIRUT, HAVANA, LORD_HOWE, "Asia/Kathmandu", "America/New_York"])


@given(_EXPRESSIONS, _ZONES, _MOMENTS | _NEAR_A_CHANGE)
@example("0 */3 * * 0", LORD_HOWE, 1868500800)  # half an hour twice, between 00:00 and 03:00
def test_times_grow_and_do_not_depend_on_where_one_begins(text: str, zone: str, start: int) -> None:
    cron = Cron(text, zone)
    found = list(islice(cron.after(start), 12))
    assert found == sorted(set(found))
    assert found[0] > start
    for before, after in pairwise(found):
        assert next(cron.after(before)) == after
        assert next(cron.after((before + after) // 2)) == after
    assert next(cron.after(start + 0.5)) == (found[0] if found[0] > start + 0.5 else found[1])


@given(_EXPRESSIONS, _ZONES, _MOMENTS)
def test_without_a_change_of_the_clocks_each_time_is_one_that_the_expression_names(
    text: str, zone: str, start: int
) -> None:
    place = ZoneInfo(zone)
    begin = datetime.fromtimestamp(start, place)
    offsets = {(begin + timedelta(hours=hours)).utcoffset() for hours in range(-48, 24 * 10)}
    if len(offsets) > 1:
        return
    named = Cron(text, "UTC").after((begin.replace(tzinfo=UTC)).timestamp())
    for one, other in zip(islice(Cron(text, zone).after(start), 5), named, strict=False):
        shown = datetime.fromtimestamp(one, place).replace(tzinfo=UTC)
        if shown < begin.replace(tzinfo=UTC) + timedelta(days=9):
            assert shown.timestamp() == other
