"""Waiting for whichever comes first: a moment of the clock, or news."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from torpor.clock import Clock


async def sleep_or(clock: Clock, delay_seconds: float | None, news: Awaitable[object]) -> None:
    """Return once ``news`` is there, or after ``delay_seconds`` where it is given; ends both."""
    waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(news)]
    if delay_seconds is not None:
        waits.append(asyncio.ensure_future(clock.sleep(delay_seconds)))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
