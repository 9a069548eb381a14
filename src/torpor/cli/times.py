"""Times as people give them: absolute in ISO 8601, or relative to now, such as ``-15m``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from torpor.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

_RELATIVE = re.compile(r"-?(\d{1,9})([smhdw])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
EXPECTED = "a time such as 2026-01-31T12:00:00Z, or one before now such as -15m (s, m, h, d, w), was expected"


def parse_time(text: str, now: float) -> datetime:
    """The time that ``text`` names; without a zone it is that of this machine. ``now`` is since the epoch.

    Raises :class:`ValueError` that says what was expected.
    """
    if text == "now":
        return datetime.fromtimestamp(now, UTC)
    relative = _RELATIVE.match(text)
    try:
        if relative is not None:
            before = timedelta(seconds=int(relative[1]) * _SECONDS[relative[2]])
            return datetime.fromtimestamp(now, UTC) - before
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text!r} is no time: {EXPECTED}") from None


def time_option(*names: str, **how: Any) -> Callable[[Any], Any]:
    """An option that takes a time; its value is one with a zone."""
    return click.option(*names, metavar="TIME", callback=_parse, **how)


def _parse(_: click.Context, __: click.Parameter, value: str | None) -> datetime | None:
    try:
        return None if value is None else parse_time(value, SystemClock().now())
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
