"""Functions for the dispatcher to call, in a process of their own, which stands in for the gateway."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import time
from typing import TYPE_CHECKING, Any

import uvicorn

from torpor.binding import BATCH, WireEvent, decode, encode_batch
from torpor.endpoint import Endpoint
from torpor.runtime import groups

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOOK_SECONDS = 0.005


class Functions:
    """``take`` takes an event, once it may; ``split`` makes a group; ``join`` makes one event of a group."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("fork")
        self._open = context.Value("b", 1)
        self._calls = context.Value("q", 0)
        self._first = context.Value("d", 0.0)
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.endpoint = Endpoint(*listener.getsockname()[:2])
        self._process = context.Process(target=self._serve, args=(listener,), daemon=True)
        self._process.start()
        listener.close()

    @property
    def calls(self) -> int:
        """How many calls have come since :meth:`reset`."""
        return int(self._calls.value)

    @property
    def first(self) -> float:
        """When the first of them came, in seconds since the epoch; 0 before."""
        return float(self._first.value)

    def reset(self, *, is_open: bool) -> None:
        """Count anew; unless it ``is_open``, calls of ``take`` are held."""
        self._calls.value, self._first.value, self._open.value = 0, 0.0, int(is_open)

    def open(self) -> None:
        """Let ``take`` answer."""
        self._open.value = 1

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()

    # --- in that process ------------------------------------------------------------------------------------

    def _serve(self, listener: socket.socket) -> None:
        config = uvicorn.Config(self._app, interface="asgi3", log_level="error", lifespan="off")
        uvicorn.Server(config).run([listener])

    async def _app(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if not self._calls.value:
            self._first.value = time.time()
        self._calls.value += 1
        name = dict(scope["headers"])[b"torpor-function"].decode().partition("/")[2]
        if name == "take":
            replies: Sequence[WireEvent] = ()
            while not self._open.value:
                await asyncio.sleep(_LOOK_SECONDS)
        else:
            events = decode(scope["headers"], body) or []
            replies = _split(events[0]) if name == "split" else [_joined(events)]
        headers = [(b"content-type", BATCH)] if replies else []
        await send({"type": "http.response.start", "status": 200 if replies else 204, "headers": headers})
        await send({"type": "http.response.body", "body": encode_batch(replies) if replies else b""})


def _split(event: WireEvent) -> list[WireEvent]:
    """The group that ``event`` asks for: as many parts of that type as it says."""
    size, _, kind = (event.data or b"").decode().partition(" ")
    kind, _, inner = kind.partition(" ")
    outer = groups.outer_of_parts(event.attributes)
    return [
        _event(f"{event.id}/{index}", kind, inner.encode(), groups.part(event.id, index, int(size), outer))
        for index in range(int(size))
    ]


def _joined(events: Sequence[WireEvent]) -> WireEvent:
    first = events[0]
    group = first.attributes[groups.ID]
    data = b"%d" % len(events)
    return _event(f"{group}/joined", f"{first.type}.joined", data, groups.restored(first.attributes))


def _event(event_id: str, kind: str, data: bytes, place: dict[str, str]) -> WireEvent:
    attributes = {"specversion": "1.0", "id": event_id, "source": "/bench", "type": kind}
    return WireEvent({**attributes, "datacontenttype": "text/plain", **place}, data)
