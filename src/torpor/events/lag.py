"""How much waits in queues of events and calls, for who scales functions by it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from torpor.errors import TorporError
from torpor.scaling.backlog import Backlog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torpor.clock import Clock


class Queue(Protocol):
    """What something waits in."""

    async def pending(self) -> int:
        """How much waits, or is under way."""
        ...

    async def waiting_since(self) -> float | None:
        """When the oldest came that was not begun (seconds since the epoch), if one waits."""
        ...


async def backlogs(
    clock: Clock, queues: Mapping[str, Queue], by_age: Mapping[str, bool]
) -> dict[str, Backlog]:
    """What waits in ``queues``, by their keys; ``by_age`` says of which the age is wanted too.

    One of which it can't be known is left out; raises :class:`~torpor.errors.EventLogError` if all are.
    """
    asked = (_backlog(clock, queue, by_age=by_age[key]) for key, queue in queues.items())
    told = await asyncio.gather(*asked, return_exceptions=True)
    found: dict[str, Backlog] = {}
    failure: TorporError | None = None
    for key, backlog in zip(queues, told, strict=True):
        if isinstance(backlog, Backlog):
            found[key] = backlog
        elif isinstance(backlog, TorporError):
            failure = backlog
        else:
            raise backlog
    if failure is not None and not found:
        raise failure
    return found


async def _backlog(clock: Clock, queue: Queue, *, by_age: bool) -> Backlog:
    since = await queue.waiting_since() if by_age else None
    age_seconds = 0.0 if since is None else max(0.0, clock.now() - since)
    return Backlog(await queue.pending(), age_seconds)
