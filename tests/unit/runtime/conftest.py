"""Serves a handler or an app without a server: requests go in as ASGI messages."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from torpor.binding import WireEvent, decode
from torpor.runtime.app import Application
from torpor.runtime.declare import mark_of
from torpor.runtime.load import Target
from torpor.runtime.plan import plan
from torpor.settings import RuntimeSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.runtime.runtime import Runtime

PATIENCE_SECONDS = 20.0


@dataclass
class Reply:
    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""

    @property
    def events(self) -> list[WireEvent]:
        return decode(self.headers, self.body) or []

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)


class Served:
    """A bound application; made inside a running event loop."""

    def __init__(self, handler: Any = None, app: Any = None, **settings: Any) -> None:
        mark = mark_of(handler)
        made = plan(handler, mark) if mark is not None else None
        self.app = Application(Target("main", made, app, "What it does."))
        self.runtime: Runtime = self.app.bind(RuntimeSettings(**{"service": "fn", **settings}))

    async def request(
        self,
        method: str = "POST",
        path: str = "/",
        headers: dict[str, str] | list[tuple[bytes, bytes]] | None = None,
        body: bytes | list[bytes] = b"",
        *,
        leaves: asyncio.Event | None = None,
    ) -> Reply:
        pairs = headers if isinstance(headers, list) else _pairs(headers or {})
        chunks = list(body) if isinstance(body, list) else [body]
        reply = Reply()
        done = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if chunks:
                chunk = chunks.pop(0)
                return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}
            await (leaves or done).wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                assert reply.status == 0, "a second answer was begun"
                reply.status = message["status"]
                reply.headers = [(name.lower(), value) for name, value in message["headers"]]
            else:
                reply.body += message.get("body", b"")

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": pairs,
            "client": ("10.0.0.9", 4242),
            "server": ("127.0.0.1", 8080),
            "state": {},
        }

        async def serve() -> None:
            await self.app(scope, receive, send)

        task = asyncio.get_running_loop().create_task(serve())
        try:
            await asyncio.wait_for(task, PATIENCE_SECONDS)
        finally:
            done.set()
        return reply

    async def event(self, data: Any = None, **attributes: str) -> Reply:
        """Send one event in binary mode; ``data`` as JSON, or bytes as they are."""
        named = {"specversion": "1.0", "id": "e1", "source": "/s", "type": "t", **attributes}
        headers = {f"ce-{name}": value for name, value in named.items() if name != "datacontenttype"}
        body = b""
        if data is not None:
            headers["content-type"] = named.get("datacontenttype", "application/json")
            body = data if isinstance(data, bytes) else orjson.dumps(data)
        return await self.request(headers=headers, body=body)

    async def batch(self, events: list[dict[str, Any]]) -> Reply:
        full = [{"specversion": "1.0", "source": "/s", "type": "t", **event} for event in events]
        headers = {"content-type": "application/cloudevents-batch+json"}
        return await self.request(headers=headers, body=orjson.dumps(full))


def _pairs(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


@pytest.fixture
def serve() -> Callable[..., Served]:
    return Served


@pytest.fixture
def parts() -> Callable[[list[Any]], list[dict[str, Any]]]:
    """A group of events with these data."""

    def make(items: list[Any], **attributes: str) -> list[dict[str, Any]]:
        return [
            {
                "id": f"split/{index}",
                "data": item,
                "fanoutid": "split",
                "fanoutindex": str(index),
                "fanoutsize": str(len(items)),
                **attributes,
            }
            for index, item in enumerate(items)
        ]

    return make
