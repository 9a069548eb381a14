"""Waiting for whichever comes first: a moment of the clock, or news."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torpor.clock import first_of

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from torpor.clock import Clock


async def sleep_or(clock: Clock, delay_seconds: float | None, news: Awaitable[object]) -> None:
    """Return once ``news`` is there, or after ``delay_seconds`` where it is given; ends both."""
    await first_of(news, *(() if delay_seconds is None else (clock.sleep(delay_seconds),)))
