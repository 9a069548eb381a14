"""Writes what a function's work has come to, however long the log or the blobs can't take it.

To call the function again would not help, would count as an attempt, and would do its work twice.
"""

from __future__ import annotations

import asyncio
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
    """Waits, and tells by :meth:`problem` what for. Of those that wait in one slot, the first tries again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._turns: dict[str, _Turn] = {}

    def problem(self, slot: str) -> str:
        """What keeps a trigger (by its slot) or a function (by its key) from going on, if anything does."""
        turn = self._turns.get(slot)
        return turn.problem if turn is not None else ""

    async def write(self, slot: str, what: str, write: Callable[[], Awaitable[_Written]]) -> _Written:
        """What ``write`` comes to once it doesn't raise; ``what`` names in the plural what it writes.

        Raises :class:`~torpor.errors.RecordTooLargeError`, which no waiting helps.
        """
        try:
            return await write()
        except RecordTooLargeError:
            raise
        except (EventLogError, BlobError) as error:
            problem = f"{what} can't be written: {error}"
        turn = self._turns.get(slot)
        if turn is None:
            _LOG.warning("work waits to be written down", extra={"of": slot, "error": problem})
            turn = self._turns[slot] = _Turn(problem)
        turn.waiting += 1
        try:
            async with turn.lock:
                return await self._insist(turn, what, write)
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                del self._turns[slot]

    async def _insist(self, turn: _Turn, what: str, write: Callable[[], Awaitable[_Written]]) -> _Written:
        while True:
            await self._clock.sleep(turn.pause_seconds)
            try:
                result = await write()
            except RecordTooLargeError:
                raise
            except (EventLogError, BlobError) as error:
                turn.failed(f"{what} can't be written: {error}")
            else:
                turn.pause_seconds = 0.0  # the next one may be as lucky
                return result


class _Turn:
    """Whose turn it is to try again, in a slot where ``waiting`` do."""

    def __init__(self, problem: str) -> None:
        self.lock = asyncio.Lock()
        self.problem = problem
        self.pause_seconds = _FIRST_PAUSE_SECONDS
        self.waiting = 0

    def failed(self, problem: str) -> None:
        """It was tried again in vain."""
        self.problem = problem
        self.pause_seconds = min(max(2 * self.pause_seconds, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
