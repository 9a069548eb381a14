"""Writes what a function's work has come to, however long the log or the blobs can't take it.

To call the function again would not help, would count as an attempt, and would do its work twice. Meanwhile
it keeps its place: others of the same function could not be written either.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from torpor.errors import BlobError, EventLogError, RecordTooLargeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from torpor.clock import Clock

_LOG = logging.getLogger("torpor.events")
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 8.0
_Written = TypeVar("_Written")


class Patience:
    """Waits, each for itself, and tells by :meth:`problem` what for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[str, dict[object, str]] = {}
        self._written = 0

    def problem(self, slot: str) -> str:
        """What keeps a trigger's work from being written, if anything does."""
        return next(iter(self._waiting.get(slot, {}).values()), "")

    async def write(self, slot: str, what: str, write: Callable[[], Awaitable[_Written]]) -> _Written:
        """What ``write`` comes to once it doesn't raise; ``what`` names in the plural what it writes.

        It is tried again ever more seldom, unless others got something written meanwhile.
        Raises :class:`~torpor.errors.RecordTooLargeError`, which no waiting helps.
        """
        me, pause_seconds = object(), _FIRST_PAUSE_SECONDS
        try:
            while True:
                before = self._written
                try:
                    result = await write()
                except RecordTooLargeError:
                    raise
                except (EventLogError, BlobError) as error:
                    self._tell(slot, me, f"{what} can't be written: {error}")
                else:
                    self._written += 1
                    return result
                await self._clock.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
                if self._written != before:
                    pause_seconds = _FIRST_PAUSE_SECONDS
        finally:
            waiting = self._waiting.get(slot, {})
            if waiting.pop(me, None) is not None and not waiting:
                del self._waiting[slot]

    def _tell(self, slot: str, me: object, problem: str) -> None:
        waiting = self._waiting.setdefault(slot, {})
        if not waiting:
            _LOG.warning("work waits to be written", extra={"of": slot, "error": problem})
        waiting[me] = problem
