from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

import pytest

from torpor.endpoint import Endpoint
from torpor.errors import AnswerTooLargeError, BrokenError, ConnectError, TimedOutError
from torpor.testing.clock import MovableClock
from torpor.transport import Client, encode_fields

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from torpor.transport import Response

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Peer:
    """One accepted connection, driven by a script."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def request(self) -> bytes:
        """One request's head, and its body if it has a length."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return head + (await self._reader.readexactly(length) if length else b"")

    async def read(self) -> bytes:
        return await self._reader.read(65536)

    async def answer(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0)

    async def until_closed(self) -> None:
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65536):
                pass

    def close(self) -> None:
        self._writer.close()


class Server:
    def __init__(self) -> None:
        self.accepted = 0
        self.endpoint = Endpoint("", 0)


@contextlib.asynccontextmanager
async def serving(script: Callable[[Peer], Coroutine[None, None, None]]) -> AsyncIterator[Server]:
    """A server that plays ``script`` on each connection, then closes it."""
    server = Server()
    tasks = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.accepted += 1
        task = asyncio.current_task()
        tasks.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await script(Peer(reader, writer))
        finally:
            tasks.discard(task)
            writer.close()

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    server.endpoint = Endpoint(*listening.sockets[0].getsockname()[:2])
    try:
        yield server
    finally:
        listening.close()
        for task in tuple(tasks):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)


@contextlib.asynccontextmanager
async def client(**options: object) -> AsyncIterator[Client]:
    made = Client(**options)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        await made.close()


async def get(
    made: Client, server: Server, method: bytes = b"GET", body: bytes = b"", **more: object
) -> Response:
    options: dict[str, Any] = {"timeout_seconds": 30.0, **more}
    return await made.request(
        server.endpoint, method, b"/path?q=1", encode_fields([(b"x-a", b"b")]), body, **options
    )


def answering(*pieces: bytes) -> Callable[[Peer], Coroutine[None, None, None]]:
    """Answers each request on a connection with ``pieces``."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(*pieces)

    return script


def closing(*pieces: bytes) -> Callable[[Peer], Coroutine[None, None, None]]:
    """Answers one request with ``pieces`` and closes the connection."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(*pieces)

    return script


def run(body: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 30))


@pytest.mark.parametrize(
    ("pieces", "status", "body"),
    [
        ([OK], 200, b"ok"),
        ([bytes([byte]) for byte in OK], 200, b"ok"),
        (
            [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", b"1\r\n!\r\n0\r\n\r\n"],
            200,
            b"ok!",
        ),
        ([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-trailer: 1\r\n\r\n"], 200, b""),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], 204, b""),
        ([b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"], 304, b""),
        ([b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", OK], 200, b"ok"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" + OK], 200, b"ok"),
        ([b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"], 503, b""),
    ],
)
def test_an_answer_is_read_and_its_connection_used_again(
    pieces: list[bytes], status: int, body: bytes
) -> None:
    async def check() -> None:
        async with serving(answering(*pieces)) as server, client() as made:
            for _ in range(3):
                response = await get(made, server)
                assert (response.status, response.body) == (status, body)
            assert server.accepted == 1

    run(check)


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\n\r\nok"],
        [b"HTTP/1.0 200 OK\r\n\r\no", b"k"],
        [b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"],
    ],
)
def test_an_answer_may_end_with_its_connection(pieces: list[bytes]) -> None:
    async def check() -> None:
        async with serving(closing(*pieces)) as server, client() as made:
            for count in (1, 2):
                assert (await get(made, server)).body == b"ok"
                assert server.accepted == count

    run(check)


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"HTTP/1.1 200"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab"],
        [b"this is not HTTP\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000 + b"\r\n\r\n"],
        [b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"],
    ],
)
def test_a_broken_answer_is_told_and_nothing_is_sent_again(pieces: list[bytes]) -> None:
    async def check() -> None:
        async with serving(closing(*pieces)) as server, client() as made:
            with pytest.raises(BrokenError):
                await get(made, server, b"POST", b"body")
            assert server.accepted == 1

    run(check)


def test_a_second_answer_is_not_taken_for_the_next_requests() -> None:
    async def check() -> None:
        async with serving(closing(OK + OK)) as server, client() as made:
            with pytest.raises(BrokenError):
                await get(made, server)
            with pytest.raises(BrokenError):
                await get(made, server)
            assert server.accepted == 2

    run(check)


def test_the_request_is_written_as_it_should_be() -> None:
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            await peer.answer(OK)

    async def check() -> None:
        async with serving(script) as server, client() as made:
            await get(made, server, b"POST", b"x" * 100_000)
            await get(made, server, b"POST")
            await get(made, server)
            host = b"host: %b\r\nx-a: b\r\n" % str(server.endpoint).encode()
            assert seen == [
                b"POST /path?q=1 HTTP/1.1\r\n" + host + b"content-length: 100000\r\n\r\n" + b"x" * 100_000,
                b"POST /path?q=1 HTTP/1.1\r\n" + host + b"content-length: 0\r\n\r\n",
                b"GET /path?q=1 HTTP/1.1\r\n" + host + b"\r\n",
            ]

    run(check)


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (b"/a b", []),
        (b"", []),
        (b"/\r\nx: y", []),
        (b"/", [(b"x", b"a\r\nb: c")]),
        (b"/", [(b"x", b"a\nb")]),
        (b"/", [(b"x\r", b"a")]),
        (b"/", [(b"x", b"\0")]),
        (b"/\r\n", []),
        (b"/\n", []),
        (b"\r\n/", []),
        (b"/\t", []),
        (b"/\0", []),
    ],
)
def test_a_head_that_breaks_the_framing_is_never_sent(
    target: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    async def check() -> None:
        async with serving(answering(OK)) as server, client() as made:
            with pytest.raises(ValueError, match="head"):
                await made.request(
                    server.endpoint, b"GET", target, encode_fields(headers), b"", timeout_seconds=5
                )
            assert server.accepted == 0

    run(check)


@pytest.mark.parametrize("method", [b"", b"GE T", b"GET\r\n", b"\r\nGET", b"GET\n", b"G\0T"])
def test_a_method_that_breaks_the_framing_is_never_sent(method: bytes) -> None:
    async def check() -> None:
        async with serving(answering(OK)) as server, client() as made:
            with pytest.raises(ValueError, match="head"):
                await get(made, server, method)
            assert server.accepted == 0

    run(check)


def test_an_answer_to_head_has_no_body() -> None:
    async def check() -> None:
        length = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"
        async with serving(answering(length)) as server, client() as made:
            for _ in range(2):
                response = await get(made, server, b"HEAD")
                assert response.header(b"content-length") == b"1000"
                assert response.body == b""
            assert server.accepted == 1

    run(check)


def test_an_answer_over_the_limit_is_cut_off() -> None:
    async def check() -> None:
        async with serving(answering(OK)) as server, client() as made:
            assert (await get(made, server, max_response_bytes=2)).body == b"ok"
            with pytest.raises(AnswerTooLargeError):
                await get(made, server, max_response_bytes=1)
            assert (await get(made, server)).body == b"ok"
            assert server.accepted == 2

    run(check)


def test_nobody_listens() -> None:
    async def check() -> None:
        async with serving(answering(OK)) as server:
            pass
        async with client() as made:
            with pytest.raises(ConnectError):
                await get(made, server)

    run(check)


def test_a_listener_that_takes_nobody_in_is_given_up() -> None:
    async def check() -> None:
        clock = MovableClock()
        with contextlib.ExitStack() as opened:
            listener = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            endpoint = Endpoint(*listener.getsockname())
            for _ in range(4):  # they fill its queue, and what comes then is left without an answer
                one = opened.enter_context(socket.socket())
                one.setblocking(False)
                one.connect_ex(listener.getsockname())
            async with client(clock=clock, connect_timeout_seconds=5.0) as made:
                waiting = asyncio.create_task(
                    made.request(endpoint, b"GET", b"/", b"", b"", timeout_seconds=60)
                )
                while clock.next_due != 5.0:
                    await asyncio.sleep(0)
                await clock.advance(4.9)
                assert not waiting.done()
                await clock.advance(0.2)
                with pytest.raises(ConnectError, match=f"{endpoint.port} within 5 s"):
                    await waiting

    run(check)


def test_a_connection_that_was_closed_while_idle_is_replaced_before_anything_is_sent() -> None:
    async def check() -> None:
        closed = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.answer(OK)
            closed.set()

        async with serving(script) as server, client() as made:
            for count in (1, 2, 3):
                await get(made, server)
                await closed.wait()
                closed.clear()
                while made.open_connections(server.endpoint):
                    await asyncio.sleep(0)
                assert server.accepted == count

    run(check)


def test_a_request_that_gets_no_answer_in_time_is_told_so() -> None:
    async def check() -> None:
        clock = MovableClock()
        arrived = asyncio.Event()
        gone = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            arrived.set()
            await peer.until_closed()
            gone.set()

        async with serving(script) as server, client(clock=clock) as made:
            waiting = asyncio.create_task(get(made, server, timeout_seconds=10))
            await arrived.wait()
            await clock.advance(9.9)
            assert not waiting.done()
            await clock.advance(0.2)
            with pytest.raises(TimedOutError, match="10 s"):
                await waiting
            await gone.wait()

    run(check)


def test_a_cancelled_request_closes_its_connection() -> None:
    async def check() -> None:
        arrived = asyncio.Event()
        gone = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            arrived.set()
            await peer.until_closed()
            gone.set()

        async with serving(script) as server, client() as made:
            waiting = asyncio.create_task(get(made, server))
            await arrived.wait()
            waiting.cancel()
            await gone.wait()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    run(check)


def test_no_more_connections_than_allowed_and_all_requests_are_served() -> None:
    async def check() -> None:
        async with serving(answering(OK)) as server, client(max_connections_per_endpoint=3) as made:
            responses = await asyncio.gather(*(get(made, server) for _ in range(50)))
            assert {response.body for response in responses} == {b"ok"}
            assert server.accepted == 3

    run(check)


def test_a_caller_that_waits_for_a_connection_can_give_up() -> None:
    async def check() -> None:
        clock = MovableClock()
        arrived = asyncio.Event()
        go_on = asyncio.Event()

        async def script(peer: Peer) -> None:
            while True:
                await peer.request()
                arrived.set()
                await go_on.wait()
                await peer.answer(OK)

        async with serving(script) as server, client(clock=clock, max_connections_per_endpoint=1) as made:
            first = asyncio.create_task(get(made, server, timeout_seconds=100))
            await arrived.wait()
            late = asyncio.create_task(get(made, server, timeout_seconds=5))
            cancelled = asyncio.create_task(get(made, server, timeout_seconds=100))
            last = asyncio.create_task(get(made, server, timeout_seconds=100))
            await asyncio.sleep(0)
            await clock.advance(6)
            with pytest.raises(TimedOutError):
                await late
            cancelled.cancel()
            go_on.set()
            assert (await first).body == (await last).body == b"ok"
            assert server.accepted == 1

    run(check)


def test_too_many_callers_that_wait_are_refused() -> None:
    async def check() -> None:
        arrived = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            arrived.set()
            await peer.until_closed()

        limits = {"max_connections_per_endpoint": 1, "max_waiting_per_endpoint": 1}
        async with serving(script) as server, client(**limits) as made:
            tasks = [asyncio.create_task(get(made, server))]
            await arrived.wait()
            tasks.append(asyncio.create_task(get(made, server)))
            await asyncio.sleep(0)
            with pytest.raises(ConnectError, match="already"):
                await get(made, server)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    run(check)


def test_idle_connections_are_closed_after_a_while() -> None:
    async def check() -> None:
        clock = MovableClock()
        async with serving(answering(OK)) as server, client(clock=clock, idle_seconds=4) as made:
            await get(made, server)
            await clock.advance(3.9)
            await get(made, server)
            assert server.accepted == 1
            await clock.advance(0.2)  # the sweep of the first rest finds it was used since
            assert made.open_connections(server.endpoint) == 1
            await clock.advance(4)
            while made.open_connections(server.endpoint):
                await asyncio.sleep(0)

    run(check)


def test_forget_closes_idle_connections_now_and_others_after_their_answer() -> None:
    async def check() -> None:
        arrived = asyncio.Event()
        go_on = asyncio.Event()

        async def script(peer: Peer) -> None:
            while b"x-a" in await peer.request():
                arrived.set()
                await go_on.wait()
                await peer.answer(OK)

        async with serving(script) as server, client() as made:
            go_on.set()
            await asyncio.gather(get(made, server), get(made, server))
            assert made.open_connections(server.endpoint) == 2
            go_on.clear()
            arrived.clear()
            under_way = asyncio.create_task(get(made, server))
            await arrived.wait()
            made.forget(server.endpoint)
            while made.open_connections(server.endpoint) > 1:
                await asyncio.sleep(0)
            go_on.set()
            assert (await under_way).body == b"ok"
            while made.open_connections(server.endpoint):
                await asyncio.sleep(0)
            assert (await get(made, server)).body == b"ok"
            assert server.accepted == 3

    run(check)


def test_callers_that_wait_for_an_endpoint_that_is_forgotten_have_sent_nothing() -> None:
    async def check() -> None:
        arrived = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            arrived.set()
            await peer.until_closed()

        async with serving(script) as server, client(max_connections_per_endpoint=1) as made:
            under_way = asyncio.create_task(get(made, server))
            await arrived.wait()
            waiting = asyncio.create_task(get(made, server))
            await asyncio.sleep(0)
            made.forget(server.endpoint)
            with pytest.raises(ConnectError, match="withdrawn"):
                await waiting
            under_way.cancel()
            await asyncio.gather(under_way, return_exceptions=True)

    run(check)


def test_close_fails_what_is_under_way() -> None:
    async def check() -> None:
        arrived = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            arrived.set()
            await peer.until_closed()

        async with serving(script) as server:
            made = Client()
            under_way = asyncio.create_task(get(made, server))
            await arrived.wait()
            await made.close()
            with pytest.raises(BrokenError, match="closed"):
                await under_way
            with pytest.raises(ConnectError, match="closed"):
                await get(made, server)

    run(check)


def test_an_early_answer_ends_a_request_and_its_connection() -> None:
    async def check() -> None:
        async def script(peer: Peer) -> None:
            await peer.read()
            await peer.answer(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
            await peer.until_closed()

        async with serving(script) as server, client() as made:
            response = await get(made, server, b"POST", b"x" * 20_000_000)
            assert response.status == 413

    run(check)
