"""Serving an ASGI application on a loop that others run in too, and the answers that every part gives.

A part of the platform owns its process and its signals: uvicorn's own main loop is left out, since it handles
signals and polls ten times a second.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from torpor.endpoint import Endpoint
from torpor.lingering import Ending, linger
from torpor.problems import Problem, ProblemType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]
_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 1024


class LingeringProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, but that an answer outlives its connection.

    Where uvicorn closes the connection after an answer while the request still comes, this one lingers.
    """

    _lingers = False

    def connection_made(self, transport: Any) -> None:
        """Called by the loop."""
        super().connection_made(transport)
        self._ending = Ending(transport, self._end)

    def on_response_complete(self) -> None:
        """Called after an answer. A connection that lingers takes no further request, and has a timer."""
        if not self._lingers:
            super().on_response_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        cycle.transport = self._ending
        super()._start_asgi_task(cycle, app)

    def _end(self) -> None:
        if self.cycle.more_body and not self._lingers:
            self._lingers = True
            linger(self.transport)
        else:
            self.transport.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket for :func:`serving`; port 0 takes a free one. Raises ``OSError``."""
    listener = socket.create_server((host, port), backlog=_BACKLOG)
    listener.setblocking(False)
    return listener


@contextlib.asynccontextmanager
async def serving(
    app: App, listener: socket.socket, *, grace_seconds: int, keep_alive_seconds: int = _KEEP_ALIVE_SECONDS
) -> AsyncIterator[Endpoint]:
    """Serve ``app`` on ``listener``, a bound socket that this takes over, until the block is left.

    Requests under way then have ``grace_seconds`` to finish.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        interface="asgi3",
        http=LingeringProtocol,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        server_header=False,
        date_header=False,
        timeout_keep_alive=keep_alive_seconds,
        timeout_graceful_shutdown=grace_seconds,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    name = listener.getsockname()
    await server.startup(sockets=[listener])
    try:
        yield Endpoint(name, 0) if isinstance(name, str) else Endpoint(*name[:2])
    finally:
        await server.shutdown(sockets=[listener])


async def answer(send: Send, status: int, content_type: bytes, body: bytes) -> None:
    """Send a whole answer; a 204 has neither type nor body."""
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    if status == 204:
        headers = []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def refuse(
    send: Send,
    kind: ProblemType,
    detail: str,
    *,
    retry_after_seconds: int | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    """Send a problem document."""
    problem = Problem(kind, detail, retry_after_seconds=retry_after_seconds)
    body = problem.body()
    start = {"status": problem.status, "headers": [*problem.headers(body), *headers]}
    await send({"type": "http.response.start", **start})
    await send({"type": "http.response.body", "body": body})
