"""Serving the API on a loop that others run in too, without taking over the process's signals."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from torpor import serving as server

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from fastapi import FastAPI

    from torpor.api.streams import Streams
    from torpor.endpoint import Endpoint

_GRACE_SECONDS = 3
_KEEP_ALIVE_SECONDS = 5


@contextlib.asynccontextmanager
async def serving(app: FastAPI, listener: socket.socket) -> AsyncIterator[Endpoint]:
    """Serve ``app`` on ``listener``, a bound TCP socket that this takes over, until the block is left.

    Streams are then ended at once, and other requests under way have three seconds to finish.
    """
    async with server.serving(
        app, listener, grace_seconds=_GRACE_SECONDS, keep_alive_seconds=_KEEP_ALIVE_SECONDS
    ) as endpoint:
        try:
            yield endpoint
        finally:
            streams: Streams = app.state.streams
            streams.close()
