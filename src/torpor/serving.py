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

from torpor.endpoint import Endpoint
from torpor.problems import Problem, ProblemType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]
_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 1024


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
