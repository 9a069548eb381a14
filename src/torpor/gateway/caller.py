"""The activator's side towards Envoy: one connection, its requests one after the other.

Envoy has checked and normalised what comes here, so that this parser is strict and closes on anything odd.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from torpor.errors import BrokenError
from torpor.gateway import names
from torpor.lingering import linger
from torpor.transport.message import HOP_BY_HOP, LAST_CHUNK, Headers, chunk
from torpor.transport.pieces import Pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from torpor.gateway.spans import Wait
    from torpor.problems import Problem

_LOG = logging.getLogger("torpor.gateway.activator")
_FUNCTION = names.FUNCTION_HEADER.encode()
_DROPPED = HOP_BY_HOP | {_FUNCTION, b"expect"}
_STATUS = b"HTTP/1.1 %d\x20\r\n"


class Request:
    """One request: its head, and its body as it comes."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.method = b""
        self.target = b""
        self.headers: Headers = []  # what is passed on
        self.function = ""
        self.request_id: str | None = None
        self.upgrade: bytes | None = None
        self.chunked = False
        self.length: int | None = None
        self.body = Pieces(caller.pause, caller.resume)
        self.on_body: Callable[[int], None] | None = None
        self.wait: Wait | None = None
        """What it waits for, where that is an instance that has to start."""

    def take(self, name: bytes, value: bytes) -> None:
        """One header of it; the name is in lower case."""
        if name == _FUNCTION:
            self.function = value.decode("latin-1")
        elif name == b"upgrade":
            self.upgrade = value
        elif name == b"transfer-encoding":
            self.chunked = True
        elif name == b"content-length":
            self.length = int(value)
        elif name == b"x-request-id":
            self.request_id = value.decode("latin-1")
        if name not in _DROPPED:
            self.headers.append((name, value))

    @property
    def head_bytes(self) -> int:
        """Size of what is passed on of its head, about."""
        return len(self.target) + sum(len(name) + len(value) + 4 for name, value in self.headers)


class Serve(Protocol):
    """What is done with a request."""

    def __call__(self, request: Request) -> Coroutine[None, None, None]:
        """Answer it through its caller."""
        ...


class Caller(asyncio.Protocol):
    """A connection from Envoy. Each request is served in a task of its own, which ends if the caller goes."""

    def __init__(self, serve: Serve, on_gone: Callable[[Caller], None]) -> None:
        self._serve = serve
        self._on_gone = on_gone
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._request: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._paused = False
        self._chunked = False
        self._tunnel = False
        self._answered = False

    # --- asyncio.Protocol ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._tunnel and self._request is not None:
            self._received(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._tunnel = True
            if data[upgrade.args[0] :]:
                self._received(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.abort()

    def eof_received(self) -> bool:
        """Called by the loop. A tunnel goes on in the other direction."""
        if self._tunnel and self._request is not None:
            self._request.body.end()
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Called by the loop."""
        self._transport = None
        self.resume_writing()
        if self._task is not None:
            self._task.cancel()
        self._on_gone(self)

    def pause_writing(self) -> None:
        """Called by the loop."""
        self._paused = True

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # --- httptools ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Called by the parser."""
        if self._request is not None:
            raise BrokenError("a request came before the one before was answered")
        self._request = Request(self)
        self._answered = False

    def on_url(self, url: bytes) -> None:
        """Called by the parser, maybe with a part at a time."""
        if self._request is not None:
            self._request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, for trailers too."""
        if self._request is not None and self._task is None:
            self._request.take(name.lower(), value)

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        request = self._request
        if request is None:
            return
        request.method = self._parser.get_method()
        if not self._parser.should_upgrade():
            request.upgrade = None
        self._task = asyncio.get_running_loop().create_task(self._serve(request))
        self._task.add_done_callback(self._served)

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self._received(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._request is not None and self._request.upgrade is None:
            self._request.body.end()

    # --- what the task does -------------------------------------------------------------------------------

    async def head(self, status: int, headers: Headers, *, has_body: bool, has_length: bool) -> None:
        """Write the head of the answer; ``headers`` say the length of its body, or it is sent in chunks."""
        self._answered = True
        self._chunked = has_body and not has_length
        lines = [_STATUS % status, *(b"%b: %b\r\n" % header for header in headers)]
        if self._chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        await self._write(b"".join(lines))

    async def body(self, data: bytes) -> None:
        """Write a piece, not empty, of the answer's body or of the tunnel; returns when more may come."""
        await self._write(chunk(data) if self._chunked else data)

    async def end(self) -> None:
        """The answer is complete."""
        if self._chunked:
            await self._write(LAST_CHUNK)

    async def problem(self, problem: Problem, headers: Headers) -> None:
        """Answer with a problem document, and with ``headers``."""
        body = problem.body()
        every = [*problem.headers(body), *headers]
        await self.head(problem.status, every, has_body=True, has_length=True)
        await self.body(body)

    @property
    def answered(self) -> bool:
        """Whether the head of the answer was written."""
        return self._answered

    def pause(self) -> None:
        """Read no more until :meth:`resume`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def end_tunnel(self) -> None:
        """Nothing more will be written to the tunnel."""
        if self._transport is not None and not self._transport.is_closing():
            with contextlib.suppress(OSError):
                self._transport.write_eof()

    def abort(self) -> None:
        """Close the connection at once; Envoy sees an answer that broke off."""
        if self._transport is not None:
            self._transport.abort()

    async def _write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            raise asyncio.CancelledError  # as the loss of the connection is about to do
        self._transport.write(data)
        while self._paused:
            self._writable = asyncio.get_running_loop().create_future()
            await self._writable

    def _received(self, data: bytes) -> None:
        request = self._request
        if request is None:
            return
        if request.on_body is not None:
            request.on_body(len(data))
        request.body.push(data)

    def _served(self, task: asyncio.Task[None]) -> None:
        request, self._request, self._task = self._request, None, None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _LOG.error("a held request could not be served", exc_info=error)
        if self._transport is None:
            return
        if task.cancelled() or error is not None or not self._answered:
            self._transport.abort()
        elif self._tunnel:
            self._transport.close()
        elif request is not None and not request.body.ended:
            linger(self._transport)  # the rest of the request would be taken for the next one
