"""Closing a connection whose request was answered before all of it was here.

To close it at once would take the answer back: what came and was not read, and what comes then, makes the
kernel send a reset, and whoever meets one throws away what it had not read yet. Envoy says 502 then. So only
this side is closed, after the answer, and what still comes is thrown away until the other side closes too
(RFC 9112, section 9.6), for a bounded while.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

LINGER_SECONDS = 10.0
LINGER_BYTES = 512 * 1024 * 1024
"""Twice the largest blob: who sends one that is too large, and listens only after that, hears why."""


def linger(
    transport: asyncio.Transport, *, max_bytes: int = LINGER_BYTES, seconds: float = LINGER_SECONDS
) -> None:
    """Close ``transport`` as soon as the other side has closed, or sends for longer, or more, than that.

    The protocol that it had is told nothing more but that the connection is lost.
    """
    if transport.is_closing():
        return
    transport.set_protocol(_Discarding(transport, max_bytes, seconds))
    if transport.can_write_eof():
        with contextlib.suppress(OSError):  # the other side has gone
            transport.write_eof()
    transport.resume_reading()


class _Discarding(asyncio.Protocol):
    """What a connection is told to while it lingers."""

    def __init__(self, transport: asyncio.Transport, max_bytes: int, seconds: float) -> None:
        self._transport = transport
        self._before = cast("asyncio.Protocol", transport.get_protocol())
        self._left_bytes = max_bytes
        self._timer = asyncio.get_running_loop().call_later(seconds, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Throw it away."""
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            self._transport.abort()

    def pause_writing(self) -> None:
        """Nothing more is written."""

    def resume_writing(self) -> None:
        """Nothing more is written."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Be done with it."""
        self._timer.cancel()
        self._before.connection_lost(exc)


class Ending:
    """A connection as one answer writes to it: ``end`` is called where that would close it."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, end: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = end
