"""A stream of bytes from a connection to the one task that reads it, with back-pressure."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.errors import TransportError

_PAUSE_BYTES = 64 * 1024


class Pieces:
    """``pause`` is called when more than 64 KiB wait, ``resume`` when they were read or will not be."""

    __slots__ = ("_error", "_pause", "_paused", "_pieces", "_reader", "_resume", "ended", "size_bytes")

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pause = pause
        self._resume = resume
        self._paused = False
        self._pieces: deque[bytes] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._error: TransportError | None = None
        self.size_bytes = 0
        self.ended = False

    def push(self, data: bytes) -> None:
        """More has come."""
        self._pieces.append(data)
        self.size_bytes += len(data)
        if self.size_bytes > _PAUSE_BYTES and not self._paused:
            self._paused = True
            self._pause()
        self.wake()

    def end(self) -> None:
        """No more will come; what came can still be read."""
        self.ended = True
        self._unpause()
        self.wake()

    def fail(self, error: TransportError) -> None:
        """It broke off: reading raises ``error`` after what came."""
        self._error = error
        self.wake()

    async def read(self) -> bytes:
        """All that has come and was not read, or the next that comes; empty at the end.

        Raises the error that it broke off with.
        """
        while not self._pieces:
            if self.ended:
                return b""
            await self.wait()
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.size_bytes = 0
        self._unpause()
        return data

    async def wait(self) -> None:
        """Return when something has happened. Raises the error that it broke off with."""
        if self._error is not None:
            raise self._error
        self._reader = asyncio.get_running_loop().create_future()
        await self._reader

    def wake(self) -> None:
        """Let who waits look again."""
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _unpause(self) -> None:
        if self._paused:
            self._paused = False
            self._resume()
