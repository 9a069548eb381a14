"""A gateway with the real Envoy, and small instances that say what they saw."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Protocol

import httptools
import pytest

from torpor.clock import SystemClock
from torpor.endpoint import Endpoint
from torpor.gateway.gateway import Gateway
from torpor.spec.models import Function, FunctionSpec, Http, Metadata
from torpor.transport import Client, encode_fields

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from pathlib import Path

    from torpor.transport import Response


class Seen:
    """One request as an instance got it."""

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.headers: dict[bytes, bytes] = {}
        self.body = b""


class Instance:
    """An HTTP/1.1 server that answers 200 with its name, and ends the way an instance does.

    ``/slow`` answers when ``go_on`` is set; ``/stream`` sends ``one``, then ``two`` when ``go_on`` is set;
    an upgrade becomes an echo; ``/break`` closes the connection without an answer; ``/echo`` sends the body
    back. Its answers say that another instance gave them, which nobody is to believe.
    """

    def __init__(self, name: str = "instance") -> None:
        self.name = name
        self.seen: list[Seen] = []
        self.connections: set[_Connection] = set()
        self.under_way = 0
        self.most_under_way = 0
        self.go_on = asyncio.Event()
        self.changed = asyncio.Event()
        self.endpoint = Endpoint("", 0)
        self._server: asyncio.Server | None = None

    async def start(self) -> Instance:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=4096)
        self.endpoint = Endpoint(*self._server.sockets[0].getsockname()[:2])
        return self

    async def drain(self) -> None:
        """Serve on until all connections are gone, then end: what SIGTERM does to an instance."""
        await self.until(lambda: not self.connections)
        self.close()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 30)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in tuple(self.connections):
            connection.transport.abort()


class _Connection(asyncio.Protocol):
    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.parser = httptools.HttpRequestParser(self)
        self.seen = Seen()
        self.tunnel = False
        self.transport: Any = None
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.instance.connections.add(self)
        self.instance.changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.instance.connections.discard(self)
        self.instance.changed.set()
        for task in self.tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        if self.tunnel:
            self.transport.write(data)
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.tunnel = True
            self.transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
            )
            self.transport.write(data[upgrade.args[0] :])

    def on_message_begin(self) -> None:
        self.seen = Seen()

    def on_url(self, url: bytes) -> None:
        self.seen.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.seen.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.seen.method = self.parser.get_method()
        self.instance.seen.append(self.seen)
        self.instance.under_way += 1
        self.instance.most_under_way = max(self.instance.most_under_way, self.instance.under_way)
        self.instance.changed.set()

    def on_body(self, data: bytes) -> None:
        self.seen.body += data
        self.instance.changed.set()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        task = asyncio.get_running_loop().create_task(self.answer(self.seen))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def answer(self, seen: Seen) -> None:
        path = seen.target.partition(b"?")[0]
        try:
            if path == b"/break":
                self.transport.abort()
                return
            if path == b"/stream":
                self.transport.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
                await self.instance.go_on.wait()
                self.transport.write(b"3\r\ntwo\r\n0\r\n\r\n")
                return
            if path == b"/slow":
                await self.instance.go_on.wait()
            body = seen.body if path == b"/echo" else self.instance.name.encode()
            head = b"HTTP/1.1 200 OK\r\ntorpor-instance: another\r\ncontent-length: %d\r\n\r\n" % len(body)
            self.transport.write(head + body)
        finally:
            self.instance.under_way -= 1
            self.instance.changed.set()


class World:
    """A started gateway, what it woke, and a client to call it with."""

    def __init__(self, gateway: Gateway, client: Client) -> None:
        self.gateway = gateway
        self.client = client
        self.woken: list[str] = []
        self.on_wake = asyncio.Event()
        self.instances: list[Instance] = []

    def wake(self, key: str) -> None:
        self.woken.append(key)
        self.on_wake.set()

    async def until_woken(self) -> None:
        await asyncio.wait_for(self.on_wake.wait(), 30)
        self.on_wake.clear()

    async def until_held(self, count: int) -> None:
        async with asyncio.timeout(30):
            while self.gateway.held != count:
                await asyncio.sleep(0.002)

    async def instance(self, name: str = "instance") -> Instance:
        instance = await Instance(name).start()
        self.instances.append(instance)
        return instance

    async def get(self, target: str, *, host: str | None = None, **more: Any) -> Response:
        return await self.send(b"GET", target, host=host, **more)

    async def send(
        self,
        method: bytes,
        target: str,
        *,
        host: str | None = None,
        headers: list[tuple[bytes, bytes]] | None = None,
        body: bytes = b"",
        to: Endpoint | None = None,
    ) -> Response:
        sent = list(headers or [])
        if host is not None:
            sent.append((b"host", host.encode()))
        endpoint = to or self.gateway.address
        return await self.client.request(
            endpoint, method, target.encode(), encode_fields(sent), body, timeout_seconds=60
        )


class Run(Protocol):
    def __call__(self, body: Callable[[World], Awaitable[None]], **options: Any) -> None: ...


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a coroutine function with a started gateway; ``options`` are the gateway's.

    ``on_change`` among them follows Envoy's process.
    """

    def run_it(body: Callable[[World], Awaitable[None]], **options: Any) -> None:
        asyncio.run(_with_gateway(tmp_path, body, options))

    return run_it


async def _with_gateway(
    work_dir: Path, body: Callable[[World], Awaitable[None]], options: dict[str, Any]
) -> None:
    async with gateway(work_dir, **options) as world, asyncio.timeout(120):
        await body(world)


@contextlib.asynccontextmanager
async def gateway(work_dir: Path, **options: Any) -> AsyncIterator[World]:
    worlds: list[World] = []

    def wake(key: str) -> None:
        worlds[0].wake(key)

    on_change = options.pop("on_change", None)
    started = Gateway(clock=SystemClock(), work_dir=work_dir, wake=wake, workers=1, **options)
    if on_change is not None:
        started.follow_process(on_change)
    client = Client(max_connections_per_endpoint=1000)
    world = World(started, client)
    worlds.append(world)
    await started.start()
    try:
        yield world
    finally:
        await client.close()
        for instance in world.instances:
            instance.close()
        await started.close()


@pytest.fixture
def declare() -> Callable[..., Function]:
    """Make a function of a name and fields of its ``http``."""

    def make(name: str, namespace: str = "default", **http: Any) -> Function:
        return Function(
            metadata=Metadata(name=name, namespace=namespace), spec=FunctionSpec(http=Http(**http))
        )

    return make


@pytest.fixture
def raw() -> Callable[[Endpoint], Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]]:
    """Open a connection to speak for oneself."""

    async def connect(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*endpoint)

    return connect
