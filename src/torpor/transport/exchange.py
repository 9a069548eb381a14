"""The two ways to take an answer in: whole, or piece by piece with back-pressure."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from torpor.errors import AnswerTooLargeError, BrokenError, TimedOutError, TransportError
from torpor.transport.message import LAST_CHUNK, Head, Headers, Response, chunk
from torpor.transport.pieces import Pieces

if TYPE_CHECKING:
    from torpor.transport.connection import Connection


class Whole:
    """Collects one answer, up to a number of bytes, for a future; it is its own deadline."""

    __slots__ = (
        "_chunks",
        "_connection",
        "_headers",
        "_max_bytes",
        "_size",
        "_status",
        "_timeout_seconds",
        "future",
        "pending",
    )

    def __init__(
        self,
        connection: Connection,
        future: asyncio.Future[Response],
        max_bytes: int,
        timeout_seconds: float,
    ) -> None:
        self._connection = connection
        self.future = future
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds
        self._status = 0
        self._headers: Headers = []
        self._chunks: list[bytes] = []
        self._size = 0
        self.pending = True

    def on_head(self, status: int, headers: Headers) -> None:
        """See :class:`~torpor.transport.connection.Sink`."""
        self._status = status
        self._headers = headers

    def on_data(self, data: bytes) -> None:
        """See :class:`~torpor.transport.connection.Sink`."""
        self._size += len(data)
        if self._size > self._max_bytes:
            self._chunks.clear()
            self._connection.abort(AnswerTooLargeError(f"the answer is larger than {self._max_bytes} bytes"))
        else:
            self._chunks.append(data)

    def on_end(self) -> None:
        """See :class:`~torpor.transport.connection.Sink`."""
        self.pending = False
        if not self.future.done():
            self.future.set_result(Response(self._status, self._headers, b"".join(self._chunks)))

    def on_failure(self, error: TransportError) -> None:
        """See :class:`~torpor.transport.connection.Sink`."""
        self.pending = False
        if not self.future.done():
            self.future.set_exception(error)

    def on_writable(self) -> None:
        """See :class:`~torpor.transport.connection.Sink`; the loop buffers what a whole request has."""

    def expire(self) -> None:
        """See :class:`~torpor.transport.deadlines.Expiring`."""
        self._connection.abort(TimedOutError(f"no answer within {self._timeout_seconds:g} s"))

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        self.pending = False
        self._connection.abort()


class Exchange:
    """One request and its answer, both streamed. One task writes, one reads; leave it with :meth:`close`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._head: Head | None = None
        self._pieces = Pieces(connection.pause, connection.resume)
        self._error: TransportError | None = None
        self._writable: asyncio.Future[None] | None = None
        self._chunked = False

    def start(
        self,
        head: bytes,
        body: bytes | None,
        *,
        chunked: bool = False,
        head_only: bool = False,
        upgrade: bool = False,
    ) -> None:
        """Write the request's head and, if it is known, all of its body.

        With ``None`` the body follows by :meth:`send`, which frames it if ``chunked``, up to :meth:`finish`.
        """
        self._chunked = chunked
        self._connection.start(self, head, body, head_only=head_only, upgrade=upgrade)

    async def send(self, data: bytes) -> None:
        """Send a piece of the body, or of the tunnel after 101; returns when more may be sent.

        Raises what became of the exchange if it has failed.
        """
        if data and not self._pieces.ended:
            self._connection.write(chunk(data) if self._chunked else data)
        while not self._connection.writable and self._error is None and not self._pieces.ended:
            self._writable = asyncio.get_running_loop().create_future()
            await self._writable
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """The request's body, or this side of the tunnel, is complete."""
        if self._pieces.ended or self._error is not None:
            return
        if self._chunked:
            self._connection.write(LAST_CHUNK)
        self._connection.finish()

    async def head(self) -> Head:
        """Status and headers of the answer. Raises :class:`~torpor.errors.TransportError` when none comes."""
        while self._head is None:
            await self._pieces.wait()
        if self._head.status == 101:
            self._chunked = False
        return self._head

    async def read(self) -> bytes:
        """The next piece of the body, or of the tunnel after 101; empty at its end.

        Raises :class:`~torpor.errors.TransportError` when the answer breaks off.
        """
        return await self._pieces.read()

    def close(self) -> None:
        """Be done with it; an answer that is not complete is broken off."""
        if not self._pieces.ended and self._error is None:
            self._error = BrokenError("the exchange was given up")
            self._connection.abort()

    # --- Sink ---------------------------------------------------------------------------------------------

    def on_head(self, status: int, headers: Headers) -> None:
        """See :class:`~torpor.transport.connection.Sink`."""
        self._head = Head(status, headers)
        self._pieces.wake()

    def on_data(self, data: bytes) -> None:
        """See :class:`~torpor.transport.connection.Sink`."""
        self._pieces.push(data)

    def on_end(self) -> None:
        """See :class:`~torpor.transport.connection.Sink`."""
        self._pieces.end()
        self.on_writable()

    def on_failure(self, error: TransportError) -> None:
        """See :class:`~torpor.transport.connection.Sink`."""
        self._error = error
        self._pieces.fail(error)
        self.on_writable()

    def on_writable(self) -> None:
        """See :class:`~torpor.transport.connection.Sink`."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
