"""What the events service answers to the platform: ``GET /state``, ``GET /health``, ``GET /metrics`` and
``GET /tail/<namespace>/<broker>`` (a line of JSON for each event); and ``PUT /declared`` where somebody else
knows what is declared.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError

from torpor.binding import encode_structured
from torpor.clock import first_of
from torpor.errors import EventLogError, TorporError
from torpor.events.declaration import Declaration
from torpor.problems import ProblemType
from torpor.serving import answer, refuse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from torpor.clock import Clock
    from torpor.events.log import Stored
    from torpor.events.service import Service
    from torpor.serving import Receive, Scope, Send

_MAX_CONTROL_BYTES = 64 * 1024 * 1024
_HEARTBEAT_SECONDS = 15.0
_JSON = b"application/json"


class ControlApp:
    """The ASGI application. ``declares`` lets it take what is declared."""

    def __init__(self, service: Service, clock: Clock, *, declares: bool) -> None:
        self._service = service
        self._clock = clock
        self._declares = declares
        self._ended = asyncio.Event()

    def end(self) -> None:
        """End the tails."""
        self._ended.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        method, path = scope["method"], scope["path"]
        service = self._service
        try:
            if (method, path) == ("PUT", "/declared") and self._declares:
                await self._put_declared(receive)
                await answer(send, 204, _JSON, b"")
            elif (method, path) == ("GET", "/state"):
                await answer(send, 200, _JSON, (await service.state()).model_dump_json().encode())
            elif (method, path) == ("GET", "/health"):
                await answer(send, 200, _JSON, service.health().model_dump_json().encode())
            elif (method, path) == ("GET", "/metrics"):
                await answer(send, 200, CONTENT_TYPE_LATEST.encode(), generate_latest(service.registry))
            elif method == "GET" and path.startswith("/tail/"):
                await self._tail(path.removeprefix("/tail/"), receive, send)
            else:
                await refuse(send, ProblemType.NOT_FOUND, f"{method} {path[:200]} is not known")
        except ValidationError as error:
            await refuse(send, ProblemType.MALFORMED_REQUEST, str(error))
        except TorporError as error:
            await refuse(send, ProblemType.UNAVAILABLE, str(error))

    async def _put_declared(self, receive: Receive) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if message["type"] == "http.disconnect" or len(body) > _MAX_CONTROL_BYTES:
                raise EventLogError("the declaration did not come whole")
            if not message.get("more_body", False):
                break
        await self._service.declare(Declaration.model_validate_json(body, strict=False))

    async def _tail(self, broker_key: str, receive: Receive, send: Send) -> None:
        tail = await self._service.tail(broker_key)
        headers = [(b"content-type", b"application/x-ndjson")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            await first_of(_forward(tail, send), _disconnected(receive), self._ended.wait(), self._beat(send))
        finally:
            await tail.aclose()
        with contextlib.suppress(OSError):
            await send({"type": "http.response.body", "body": b""})

    async def _beat(self, send: Send) -> None:
        """Blank lines, by which each side notices that the other is gone."""
        while True:
            await send({"type": "http.response.body", "body": b"\n", "more_body": True})
            await self._clock.sleep(_HEARTBEAT_SECONDS)


async def _forward(tail: AsyncIterator[Stored], send: Send) -> None:
    async for stored in tail:
        line = encode_structured(stored.event) + b"\n"
        await send({"type": "http.response.body", "body": line, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
