"""Writes what a function's work has come to, however long the log or the blobs can't take it.

To call the function again would not help, would count as an attempt, and would do its work twice. Meanwhile
it keeps its place: others of the same function could not be written either.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from torpor.errors import BlobError, EventLogError, RecordTooLargeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from torpor.clock import Clock

_LOG = logging.getLogger("torpor.events")
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 8.0
SHOWN_SECONDS = 90.0
"""How long it is told that something could not be written: longer than until it is tried again."""
_Written = TypeVar("_Written")


class Patience:
    """Waits, each for itself, and tells by :meth:`problem` what for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failed: dict[str, tuple[float, str]] = {}  # when, and what it was
        self._written: Counter[str] = Counter()

    def problem(self, slot: str) -> str:
        """What keeps a trigger's work from being written, if anything did when it was last tried."""
        at, problem = self._failed.get(slot, (-math.inf, ""))
        return problem if self._clock.monotonic() - at < SHOWN_SECONDS else ""

    def failed(self, slot: str, what: str, error: Exception) -> None:
        """Something could not be written, and is tried again; ``what`` names its kind in the plural."""
        problem = f"{what} can't be written: {error}"
        if not self.problem(slot):
            _LOG.warning("work waits to be written", extra={"of": slot, "error": problem})
        self._failed[slot] = self._clock.monotonic(), problem

    def succeeded(self, slot: str) -> None:
        """Something was written."""
        if self._failed.pop(slot, None) is not None:
            self._written[slot] += 1

    async def write(self, slot: str, what: str, write: Callable[[], Awaitable[_Written]]) -> _Written:
        """What ``write`` comes to once it doesn't raise; ``what`` names its kind in the plural.

        It is tried again ever more seldom, unless others of the slot got something written meanwhile.
        Raises :class:`~torpor.errors.RecordTooLargeError`, which no waiting helps.
        """
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            before = self._written[slot]
            try:
                result = await write()
            except RecordTooLargeError:
                raise
            except (EventLogError, BlobError) as error:
                self.failed(slot, what, error)
            else:
                self.succeeded(slot)
                return result
            await self._clock.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
            if self._written[slot] != before:
                pause_seconds = _FIRST_PAUSE_SECONDS
