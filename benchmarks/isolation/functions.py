"""What is called in the benchmark of isolation, as by a gateway: each function has its way to behave.

``fast`` answers at once and notes how long its event took to come, ``slow`` takes about :data:`SLOW_SECONDS`,
``busy`` :data:`BUSY_SECONDS`, ``broken`` fails always, and others there are not. ``GET /`` tells the notes
since it was asked last.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

import orjson
import uvicorn

if TYPE_CHECKING:
    import socket

SLOW_SECONDS = 30.0
BUSY_SECONDS = 0.01


class Functions:
    """A raw ASGI application."""

    def __init__(self) -> None:
        self._taken: list[float] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """One call, or the notes."""
        if scope["type"] != "http":
            return
        if scope["method"] == "GET":
            taken, self._taken = self._taken, []
            await _answer(send, 200, orjson.dumps(taken))
            return
        while (await receive()).get("more_body"):
            pass
        headers = dict(scope["headers"])
        await _answer(send, await self._call(headers[b"torpor-function"], headers), b"")

    async def _call(self, function: bytes, headers: dict[bytes, bytes]) -> int:
        if function == b"default/fast":
            self._taken.append(time.time() - float(headers[b"ce-sent"]))
        elif function == b"default/slow":
            await asyncio.sleep(SLOW_SECONDS * (0.5 + random.random()))
        elif function == b"default/busy":
            await asyncio.sleep(BUSY_SECONDS)
        elif function == b"default/broken":
            return 500
        else:
            return 404
        return 204


async def _answer(send: Any, status: int, body: bytes) -> None:
    headers = [] if status == 204 else [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve(listener: socket.socket) -> None:
    """Serve for as long as the process lives."""
    config = uvicorn.Config(Functions(), log_level="error", lifespan="off", backlog=16_384)
    uvicorn.Server(config).run([listener])
