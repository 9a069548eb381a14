"""Numbers as people read them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def duration(seconds: float) -> str:
    """A time span in its two largest units, such as ``2m 5s``; below a second, and below zero, ``0s``."""
    whole = max(int(seconds), 0)
    for unit_seconds, unit, rest_seconds, rest_unit in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= unit_seconds:
            rest = whole % unit_seconds // rest_seconds
            return (
                f"{whole // unit_seconds}{unit} {rest}{rest_unit}"
                if rest
                else f"{whole // unit_seconds}{unit}"
            )
    return f"{whole}s"


def moment(at: datetime | None) -> str | None:
    """A time in UTC to the second; ``None`` stays."""
    return None if at is None else at.strftime("%Y-%m-%d %H:%M:%SZ")


def size(number_bytes: int | None) -> str | None:
    """A size in the largest unit that it fills, such as ``11.2 MiB``; ``None`` stays."""
    if number_bytes is None:
        return None
    amount, units = float(number_bytes), list(_SIZES)
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{amount:.0f} {units[0]}" if units[0] == "B" else f"{amount:.1f} {units[0]}"
