"""Waiting for whichever comes first, a moment of the clock or news; and for much, some of it at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from torpor.clock import first_of
from torpor.errors import TorporError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from torpor.clock import Clock

T = TypeVar("T")


async def sleep_or(clock: Clock, delay_seconds: float | None, news: Awaitable[object]) -> None:
    """Return once ``news`` is there, or after ``delay_seconds`` where it is given; ends both."""
    await first_of(news, *(() if delay_seconds is None else (clock.sleep(delay_seconds),)))


async def for_each(items: Iterable[T], work: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Have ``work`` done with all ``items``, some at once.

    After a :class:`~torpor.errors.TorporError` it begins no more; what is under way ends, and the error is
    raised.
    """
    left = iter(items)
    failures: list[TorporError] = []

    async def go() -> None:
        for item in left:
            try:
                await work(item)
            except TorporError as error:
                failures.append(error)
            if failures:
                return

    await asyncio.gather(*(go() for _ in range(at_once)))
    if failures:
        raise failures[0]
