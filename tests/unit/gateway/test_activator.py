"""The activator with real sockets and a clock that stands still, spoken to as Envoy does."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import orjson
import pytest

from torpor.endpoint import Endpoint
from torpor.gateway.activator import Activator
from torpor.gateway.starts import Starts
from torpor.gateway.targets import HoldLimits
from torpor.problems import ProblemType
from torpor.testing.clock import MovableClock
from torpor.transport import Client, encode_fields

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from torpor.transport import Response

KEY = "default/hello"


class World:
    def __init__(self, activator: Activator, envoy: Client, clock: MovableClock, path: Path) -> None:
        self.activator = activator
        self.clock = clock
        self.woken: list[str] = []
        self.starts = Starts()
        self.path = path
        self._envoy = envoy

    def send(
        self,
        method: bytes = b"GET",
        target: bytes = b"/x?y=1",
        body: bytes = b"",
        key: str = KEY,
        more: list[tuple[bytes, bytes]] | None = None,
    ) -> asyncio.Task[Response]:
        headers = [(b"host", b"example.com"), (b"torpor-function", key.encode()), (b"x-request-id", b"id-1")]
        headers += more or []
        call = self._envoy.request(
            Endpoint(str(self.path), 0), method, target, encode_fields(headers), body, timeout_seconds=600
        )
        return asyncio.create_task(call)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0)

    async def until_held(self, count: int) -> None:
        await self.until(lambda: self.activator.held == count)


class Instance:
    """Answers each request with its head, or as ``answer`` says; ``heads`` are those that came."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.answer = b""
        self.endpoint = Endpoint("", 0)
        self.closed = False
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None] | None] = set()

    async def start(self) -> Instance:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.endpoint = Endpoint(*self._server.sockets[0].getsockname()[:2])
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    self.heads.append(head)
                    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(head), head)
                    writer.write(self.answer or answer)
                    if self.answer:
                        return
        finally:
            writer.close()
            self._tasks.discard(task)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in self._tasks if task is not None), return_exceptions=True)


@contextlib.asynccontextmanager
async def instance() -> AsyncIterator[Instance]:
    started = await Instance().start()
    try:
        yield started
    finally:
        await started.close()


@contextlib.asynccontextmanager
async def activating(folder: Path, limits: HoldLimits | None = None) -> AsyncIterator[World]:
    clock = MovableClock()
    client, envoy = Client(clock=clock), Client(clock=clock)
    woken: list[str] = []
    starts = Starts()
    activator = Activator(clock=clock, client=client, wake=woken.append, limits=limits, starts=starts)
    path = folder / "activator"
    await activator.start(path)
    activator.declare({KEY})
    world = World(activator, envoy, clock, path)
    world.woken, world.starts = woken, starts
    try:
        yield world
    finally:
        await envoy.close()
        await activator.close()
        await client.close()


def run(folder: Path, body: Callable[[World], Awaitable[None]], limits: HoldLimits | None = None) -> None:
    async def main() -> None:
        async with activating(folder, limits) as world, asyncio.timeout(60):
            await body(world)

    asyncio.run(main())


def assert_problem(response: Response, kind: ProblemType) -> None:
    document = orjson.loads(response.body)
    assert (response.status, document["type"], document["requestId"]) == (kind.status, kind.uri, "id-1")
    assert response.header(b"x-request-id") == b"id-1"


def test_a_held_request_wakes_and_is_passed_on_as_it_came(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        async with instance() as there:
            held = [world.send(), world.send()]
            await world.until_held(2)
            assert world.woken == [KEY, KEY]
            world.activator.publish(KEY, [there.endpoint])
            for response in [await call for call in held]:
                assert (
                    response.body == b"GET /x?y=1 HTTP/1.1\r\nhost: example.com\r\nx-request-id: id-1\r\n\r\n"
                )
            assert world.activator.held == 0
            assert (await world.send()).status == 200
            assert world.woken == [KEY, KEY]

    run(tmp_path, check)


def test_a_drain_between_the_wake_and_the_requests_turn_makes_it_wait_again(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        async with instance() as gone, instance() as there:
            await gone.close()
            held = world.send(b"POST")
            await world.until_held(1)
            world.activator.publish(KEY, [gone.endpoint])
            world.activator.publish(KEY, [])
            await world.until(lambda: len(world.woken) == 2)
            assert world.activator.held == 1
            world.activator.publish(KEY, [there.endpoint])
            assert (await held).status == 200

    run(tmp_path, check)


def test_an_instance_that_cannot_be_reached_is_passed_over_or_tried_again(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        async with instance() as gone, instance() as there:
            await gone.close()
            world.activator.publish(KEY, [gone.endpoint, there.endpoint])
            assert (await world.send()).status == 200
            assert (await world.send()).status == 200
            world.activator.publish(KEY, [gone.endpoint])
            held = world.send()
            for _ in range(4):  # it is tried again after a while, without being asked to
                await world.until_held(1)
                await world.clock.advance(0.25)
            assert not held.done()
            assert world.woken == []
            world.activator.publish(KEY, [there.endpoint])
            assert (await held).status == 200

    run(tmp_path, check)


def test_what_was_sent_is_not_sent_again(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        async with instance() as breaking, instance() as there:
            breaking.answer = b"HTTP"
            world.activator.publish(KEY, [breaking.endpoint])
            call = world.send()
            assert_problem(await call, ProblemType.UPSTREAM_BROKEN)
            assert len(breaking.heads) == 1
            assert there.heads == []

    run(tmp_path, check)


def test_unknown_functions(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        for key in ("default/unknown", ""):
            assert_problem(await world.send(key=key), ProblemType.UNKNOWN_FUNCTION)
        held = world.send()
        await world.until_held(1)
        world.activator.declare(set())
        assert_problem(await held, ProblemType.UNKNOWN_FUNCTION)
        assert world.woken == [KEY]

    run(tmp_path, check)


def test_a_request_that_was_held_for_too_long(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        held = world.send()
        await world.until_held(1)
        await world.clock.advance(59)
        assert not held.done()
        await world.clock.advance(2)
        response = await held
        assert_problem(response, ProblemType.HELD_TOO_LONG)
        assert response.header(b"retry-after") == b"1"

    run(tmp_path, check)


def test_room_is_bounded_and_given_back(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        async with instance() as there:
            held = [world.send(), world.send()]
            await world.until_held(2)
            assert_problem(await world.send(), ProblemType.OVERLOADED)
            held.pop().cancel()
            await world.until_held(1)
            held.append(world.send())
            await world.until_held(2)
            world.activator.publish(KEY, [there.endpoint])
            assert [(await call).status for call in held] == [200, 200]

    run(tmp_path, check, HoldLimits(max_requests=2))


@pytest.mark.parametrize("size", [9_000, 300_000])
def test_room_for_bytes_is_bounded(tmp_path: Path, size: int) -> None:
    async def check(world: World) -> None:
        held = world.send(b"POST", body=b"x" * 4_000)
        await world.until_held(1)
        assert_problem(await world.send(b"POST", body=b"x" * size), ProblemType.OVERLOADED)
        assert world.activator.held == 1
        held.cancel()
        await world.until_held(0)

    run(tmp_path, check, HoldLimits(max_bytes=10_000))


def test_a_function_that_cannot_start(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        async with instance() as there:
            held = world.send()
            await world.until_held(1)
            world.activator.fail(KEY, "main.py:1: no module named 'x'")
            response = await held
            assert_problem(response, ProblemType.START_FAILED)
            assert orjson.loads(response.body)["detail"] == "main.py:1: no module named 'x'"
            assert_problem(await world.send(), ProblemType.START_FAILED)
            world.activator.publish(KEY, [there.endpoint])
            assert (await world.send()).status == 200
            world.activator.publish(KEY, [])
            again = world.send()
            await world.until_held(1)
            assert not again.done()
            again.cancel()
            await world.until_held(0)

    run(tmp_path, check)


def test_closing_ends_what_is_held(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        held = world.send()
        await world.until_held(1)
        await world.activator.close()
        with pytest.raises(Exception, match="closed"):
            await held

    run(tmp_path, check)


@pytest.mark.parametrize(
    "garbage",
    [b"not http\r\n\r\n", b"GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n", b"GET / HTTP/1.1\r\n" * 3],
)
def test_what_is_not_http_is_cut_off(tmp_path: Path, garbage: bytes) -> None:
    async def check(world: World) -> None:
        reader, writer = await asyncio.open_unix_connection(world.path)
        writer.write(garbage)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()

    run(tmp_path, check)


@pytest.mark.parametrize("framing", [b"content-length: 67108864\r\n", b"transfer-encoding: chunked\r\n"])
def test_an_answer_to_half_a_request_outlives_the_connection(tmp_path: Path, framing: bytes) -> None:
    async def run() -> None:
        async with activating(tmp_path) as world, asyncio.timeout(30):
            reader, writer = await asyncio.open_unix_connection(str(world.path))
            try:
                writer.write(b"POST /x HTTP/1.1\r\ntorpor-function: default/nobody\r\n" + framing + b"\r\n")
                writer.write(b"4000000\r\n" if b"chunked" in framing else b"")
                for _ in range(512):
                    writer.write(b"x" * 65_536)
                    await writer.drain()
                answer = await reader.read()
            finally:
                writer.transport.abort()
            assert answer.startswith(b"HTTP/1.1 404 ")
            assert answer.endswith(b"}"), "its end is the end of what is said"

    asyncio.run(run())
