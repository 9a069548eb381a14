"""Answers that go on: newline-delimited JSON, for as long as the client reads and the platform runs.

An empty line is sent when nothing else was for a while: it keeps proxies from ending a quiet stream, and
shows the platform a client that is gone. Readers skip empty lines.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, nullcontext, suppress
from typing import TYPE_CHECKING, TypeVar

from starlette.responses import StreamingResponse

from torpor.api.refusals import RefusalError
from torpor.errors import TorporError
from torpor.problems import ProblemType

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Send

_LOG = logging.getLogger("torpor.api")
MEDIA_TYPE = "application/x-ndjson"
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff", "x-accel-buffering": "no"}
T = TypeVar("T")


class _Lines(StreamingResponse):
    """Closes its body however it ends: Starlette leaves that to the garbage collector."""

    async def stream_response(self, send: Send) -> None:
        body = self.body_iterator
        async with aclosing(body) if isinstance(body, AsyncGenerator) else nullcontext():
            try:
                await super().stream_response(send)
            except TorporError as error:
                # The answer stays without its end, so that nobody takes it for whole.
                _LOG.warning("a stream has broken off", extra={"cause": str(error)})


class Streams:
    """The open streams of one API; at most ``limit`` at a time, and all of them ended by :meth:`close`."""

    def __init__(self, limit: int, quiet_seconds: float) -> None:
        self._limit = limit
        self._quiet_seconds = quiet_seconds
        self._open = 0
        self._closing = asyncio.Event()

    def respond(
        self,
        source: AsyncIterator[T],
        line: Callable[[T], bytes],
        only: Callable[[T], bool] = lambda _: True,
    ) -> StreamingResponse:
        """A response of one ``line`` for each item of ``source`` that meets ``only``; closes ``source`` at
        its end.

        Raises :class:`~torpor.api.refusals.RefusalError` when too many streams are open already.
        """
        if self._open >= self._limit:
            raise RefusalError(
                ProblemType.OVERLOADED, f"{self._limit} streams are open already; end one of them."
            )
        return _Lines(self._lines(source, line, only), media_type=MEDIA_TYPE, headers=_HEADERS)

    def close(self) -> None:
        """End every stream, as if its source had ended."""
        self._closing.set()

    async def _lines(
        self, source: AsyncIterator[T], line: Callable[[T], bytes], only: Callable[[T], bool]
    ) -> AsyncGenerator[bytes]:
        self._open += 1
        closing = asyncio.ensure_future(self._closing.wait())
        upcoming: asyncio.Future[T] | None = None
        try:
            while not closing.done():
                upcoming = upcoming or asyncio.ensure_future(anext(source))
                await asyncio.wait(
                    (upcoming, closing), timeout=self._quiet_seconds, return_when=asyncio.FIRST_COMPLETED
                )
                if not upcoming.done():
                    if not closing.done():
                        yield b"\n"
                    continue
                try:
                    item = upcoming.result()
                except StopAsyncIteration:
                    return
                upcoming = None
                if only(item):
                    yield line(item) + b"\n"
        finally:
            self._open -= 1
            closing.cancel()
            await _end(source, upcoming)


async def _end(source: AsyncIterator[T], upcoming: asyncio.Future[T] | None) -> None:
    if upcoming is not None:
        upcoming.cancel()
        with suppress(asyncio.CancelledError, StopAsyncIteration):
            await upcoming
    if isinstance(source, AsyncGenerator):
        await source.aclose()
