"""When a cron expression comes due in a time zone. Pure.

The expression's fields and names are those of Debian's cron, which cronsim reads; with six fields the first
are seconds. What a change of the clocks does is decided here, in one way for five fields and for six, after
the manual page cron(8) of Debian:

- Where minute and hour are both given (neither begins with ``*``), a time that is skipped comes due at the
  end of the gap, together with others that are skipped, once; a time that there is twice comes due the first
  time.
- Any other expression goes by what the clock shows: skipped times don't come due, doubled ones do twice. So
  ``*/15 * * * *`` is every fifteen minutes, whatever the clocks do.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

if TYPE_CHECKING:
    from collections.abc import Iterator

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
MAX_CRON_LENGTH = 100
MAX_ZONE_LENGTH = 64
EXPECTED = {
    "second": "0 to 59",
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31, L or LW",
    "month": "1 to 12 or JAN to DEC",
    "day-of-week": "0 to 7, SUN to SAT, 5#2 or 5L",
}
"""What each field may be, lists, ranges and steps aside."""
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_FIELDS = tuple(EXPECTED)
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*\Z")
_NO_PLACE = frozenset(("Factory", "localtime", "posixrules"))
_MINUTE = timedelta(minutes=1)
_DAY = 86_400  # in seconds
# From this moment on an expression is tried; one that has no time within fifty years has none.
_TRIED_FROM = datetime(2024, 1, 1)  # noqa: DTZ001 - of no zone


class CronError(ValueError):
    """An expression that is none. ``field`` and ``text`` are what is wrong, where one field is."""

    def __init__(self, message: str, field: str = "", text: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.text = text


def is_zone(name: str) -> bool:
    """Whether ``name`` is a time zone of the IANA database."""
    return zone(name) is not None


@lru_cache(maxsize=256)
def zone(name: str) -> ZoneInfo | None:
    """The time zone of that name, if there is one; not the machine's own."""
    if len(name) > MAX_ZONE_LENGTH or not _ZONE.match(name) or name in _NO_PLACE:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder of zones among them
        return None


@lru_cache(maxsize=1)
def zones() -> frozenset[str]:
    """The names of all time zones."""
    return frozenset(available_timezones() - _NO_PLACE)


class Cron:
    """An expression and its time zone, by the IANA database's name.

    Raises :class:`CronError` for an expression that is none, or that never comes due, and ``ValueError`` for
    a zone that is none.
    """

    __slots__ = ("_by_clock", "_text", "_zone")

    def __init__(self, text: str, zone_name: str = "UTC") -> None:
        found = zone(zone_name)
        if found is None:
            raise ValueError(f"{zone_name!r} is no time zone")
        self._zone: tzinfo = UTC if zone_name == "UTC" else found  # several times as fast
        self._text = _fields(text)
        minute, hour = self._text.split()[-5:-3]
        self._by_clock = minute.startswith("*") or hour.startswith("*")

    def after(self, at: float) -> Iterator[int]:
        """The times at which it comes due after ``at``, in order; seconds since the epoch, as ``at`` is.

        Ends where there is none within fifty years.
        """
        last = int(at // 1)
        for one in self._shown(last) if self._by_clock else self._given(last):
            if one > last:
                yield one
                last = one

    def _given(self, at: int) -> Iterator[int]:
        """By given hours and minutes: as if clocks never changed, and then each time as it is there."""
        for one in CronSim(self._text, datetime.fromtimestamp(at, self._zone).replace(tzinfo=None)):
            shown = one.replace(tzinfo=self._zone)
            if _is_skipped(shown):
                shown = shown.replace(second=0)
                while _is_skipped(shown):
                    shown += _MINUTE
            yield int(shown.timestamp())

    def _shown(self, at: int) -> Iterator[int]:
        """By what the clock shows as time passes: between two changes, that is UTC and an offset."""
        change: int | None = at + 1
        while change is not None:
            offset = self._offset(change)
            at, change = change - 1, None
            for shown in CronSim(self._text, datetime.fromtimestamp(at + offset, UTC)):
                one = int(shown.timestamp()) - offset
                change = self._change(at + 1, one)
                if change is not None:
                    break
                yield one
                at = one

    def _offset(self, at: int) -> int:
        """By how many seconds the clock is ahead of UTC at that moment."""
        return int((datetime.fromtimestamp(at, self._zone).utcoffset() or timedelta()).total_seconds())

    def _change(self, after: int, until: int) -> int | None:
        """The first moment after ``after``, and not after ``until``, at which the clocks have changed.

        Finds no two changes within a day that undo each other: there were none.
        """
        offset = self._offset(after)
        while after < until:
            day = min(after + _DAY, until)
            if self._offset(day) != offset:
                return bisect_left(range(after, day), True, key=lambda at: self._offset(at) != offset) + after
            after = day
        return None


def _is_skipped(local: datetime) -> bool:
    """Whether no clock shows that time."""
    return local.astimezone(UTC).astimezone(local.tzinfo).replace(tzinfo=None) != local.replace(tzinfo=None)


def _fields(text: str) -> str:
    """``text`` with five or six fields, and without a nickname."""
    if len(text) > MAX_CRON_LENGTH:
        raise CronError(f"has {len(text)} characters, at most {MAX_CRON_LENGTH} were expected")
    if text.startswith("@"):
        if text.lower() not in NICKNAMES:
            raise CronError(f"is no nickname, one of {', '.join(NICKNAMES)} was expected")
        return NICKNAMES[text.lower()]
    fields = text.upper().split()
    if len(fields) not in (5, 6):
        raise CronError(f"has {len(fields)} fields, 5 were expected, or 6 with the seconds first")
    expression = " ".join(fields)
    try:
        next(CronSim(expression, _TRIED_FROM))
    except CronSimError:
        raise _wrong(fields) from None
    except StopIteration:
        raise CronError("never comes due, a day that there is was expected") from None
    return expression


def _wrong(fields: list[str]) -> CronError:
    """Which of ``fields`` is wrong, each tried for itself."""
    names = _FIELDS[-len(fields) :]
    for place, (name, text) in enumerate(zip(names, fields, strict=True)):
        alone = ["*"] * len(fields)
        alone[place] = text
        try:
            CronSim(" ".join(alone), _TRIED_FROM)
        except CronSimError:
            return CronError(f"has {text!r} for the {name}, {EXPECTED[name]} was expected", name, text)
    return CronError("never comes due, a day that there is was expected")
