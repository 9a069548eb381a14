"""Serving the API on a loop that others run in too, without taking over the process's signals."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import uvicorn

from torpor.endpoint import Endpoint

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from fastapi import FastAPI

    from torpor.api.streams import Streams

_GRACE_SECONDS = 3


@contextlib.asynccontextmanager
async def serving(app: FastAPI, listener: socket.socket) -> AsyncIterator[Endpoint]:
    """Serve ``app`` on ``listener``, a bound TCP socket that this takes over, until the block is left.

    Streams are then ended at once, and other requests under way have three seconds to finish.
    """
    # uvicorn's own main loop is left out: it polls ten times a second, for signals and for the time of day,
    # which the gateway adds to every answer.
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    host, port = listener.getsockname()[:2]
    await server.startup(sockets=[listener])
    try:
        yield Endpoint(host, port)
    finally:
        streams: Streams = app.state.streams
        streams.close()
        await server.shutdown(sockets=[listener])
