"""The events process as a platform starts it, and functions that answer it, for tests."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import orjson
import uvicorn

from torpor.binding import WireEvent, decode, encode_batch
from torpor.children import tied
from torpor.endpoint import Endpoint
from torpor.events.brokers import Broker
from torpor.events.control import ControlClient
from torpor.events.declaration import Declaration, ServiceConfig
from torpor.events.nats_server import NatsServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path
    from typing import Any

    from torpor.events.kafka_server import KafkaServer

PATIENCE_SECONDS = 60.0


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return when ``condition`` holds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await condition():
            await asyncio.sleep(0.02)


class Server(Protocol):
    """A broker that tests may kill."""

    @property
    def pid(self) -> int | None: ...

    @property
    def broker(self) -> Broker: ...


@dataclass(frozen=True)
class Nats:
    """A NATS of the test's own."""

    server: NatsServer

    @property
    def pid(self) -> int | None:
        return self.server.pid

    @property
    def broker(self) -> Broker:
        return Broker(self.server.url, self.server.token)


@asynccontextmanager
async def nats_in(folder: Path, *, sync: Literal["always", "interval"] = "always") -> AsyncIterator[Nats]:
    """A NATS that keeps its data below ``folder``."""
    server = NatsServer(folder / "nats", sync=sync)
    await server.start()
    try:
        yield Nats(server)
    finally:
        await server.close()


@dataclass(frozen=True)
class Kafka:
    """Topics of the test's own, in a Kafka that all tests share."""

    server: KafkaServer
    prefix: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:8]}")

    @property
    def pid(self) -> int | None:
        return self.server.pid

    @property
    def broker(self) -> Broker:
        return Broker(f"kafka://{self.server.servers}/{self.prefix}", options=self.server.options)


class EventsProcess:
    """``python -m torpor.events`` with sockets that outlive it."""

    def __init__(self, folder: Path, server: NatsServer | Server, *, blobs: bool = True) -> None:
        self._blobs = blobs
        self._broker = Nats(server).broker if isinstance(server, NatsServer) else server.broker
        self._folder = folder
        self._control_path = folder / "control.sock"
        self._ingress = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._control = socket.socket(socket.AF_UNIX)
        self._control.bind(str(self._control_path))
        self._control.listen(64)
        self.url = f"http://127.0.0.1:{self._ingress.getsockname()[1]}"
        self.client = ControlClient(self._control_path)
        self.declaration = Declaration()
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        fds = (self._ingress.fileno(), self._control.fileno())
        self.process = await asyncio.create_subprocess_exec(
            *tied(sys.executable, "-m", "torpor.events", *map(str, fds)),
            stdin=asyncio.subprocess.PIPE,
            pass_fds=fds,
        )
        config = ServiceConfig(
            broker_url=self._broker.url,
            nats_token=self._broker.token,
            kafka_options=dict(self._broker.options),
            blobs_url=(self._folder / "blobs").as_uri() if self._blobs else "",
            stats_path=str(self._folder / "stats.json"),
            log_level="ERROR",
        )
        assert self.process.stdin is not None
        self.process.stdin.write(config.model_dump_json().encode() + b"\n")
        await self.process.stdin.drain()

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def terminate(self) -> int:
        assert self.process is not None
        self.process.terminate()
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.process.wait()

    async def close(self) -> None:
        await self.client.close()
        if self.process is not None and self.process.returncode is None:
            await self.terminate()
        self._ingress.close()
        self._control.close()


@dataclass
class Functions:
    """Stands in for the gateway and what is behind it: ``split``, ``work`` and ``join``."""

    tiles: int
    calls: dict[str, int] = field(default_factory=dict)
    endpoint: Endpoint | None = None

    async def app(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        name = dict(scope["headers"])[b"torpor-function"].decode().partition("/")[2]
        self.calls[name] = self.calls.get(name, 0) + 1
        events = decode(scope["headers"], body) or []
        replies = getattr(self, name)(events)
        answer = encode_batch(replies)
        headers = [(b"content-type", b"application/cloudevents-batch+json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def split(self, events: list[WireEvent]) -> list[WireEvent]:
        [event] = events
        return [
            _event(
                f"{event.id}/{index}",
                "tile",
                b"%d" % index,
                fanoutid=event.id,
                fanoutindex=str(index),
                fanoutsize=str(self.tiles),
            )
            for index in range(self.tiles)
        ]

    def work(self, events: list[WireEvent]) -> list[WireEvent]:
        [event] = events
        group = {name: value for name, value in event.attributes.items() if name.startswith("fanout")}
        return [_event(f"{event.id}/0", "tile.done", event.data, **group)]

    def join(self, events: list[WireEvent]) -> list[WireEvent]:
        group = events[0].attributes["fanoutid"]
        return [_event(f"{group}/joined", "joined", orjson.dumps([int(e.data or b"-1") for e in events]))]

    async def serve(self, ready: asyncio.Event, end: asyncio.Event) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.endpoint = Endpoint(*listener.getsockname()[:2])
        config = uvicorn.Config(
            self.app, interface="asgi3", log_config=None, lifespan="off", timeout_graceful_shutdown=2
        )
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[listener])
        ready.set()
        try:
            await end.wait()
        finally:
            await server.shutdown(sockets=[listener])


def _event(event_id: str, event_type: str, data: bytes | None, **attributes: str) -> WireEvent:
    return WireEvent(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": "/test",
            "type": event_type,
            "datacontenttype": "application/json",
            **attributes,
        },
        data,
    )


async def kill_nats(nats: NatsServer | Server) -> None:
    """Kill the broker, and wait until it is there again."""
    pid = nats.pid
    if pid is not None:
        os.kill(pid, signal.SIGKILL)

    async def back() -> bool:
        return nats.pid not in (None, pid)

    await until(back)
