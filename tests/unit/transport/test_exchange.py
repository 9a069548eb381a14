"""Streamed exchanges over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from torpor.endpoint import Endpoint
from torpor.errors import BrokenError, ConnectError, TimedOutError
from torpor.testing.clock import MovableClock
from torpor.transport import Client, encode_fields
from torpor.transport.message import encode_head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from torpor.transport import Exchange

HEAD = encode_head(b"POST", b"/x", encode_fields([(b"transfer-encoding", b"chunked")]), b"host")
GET = encode_head(b"GET", b"/x", b"", b"host")
UPGRADE = encode_head(
    b"GET", b"/x", encode_fields([(b"connection", b"upgrade"), (b"upgrade", b"websocket")]), b"host"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


@contextlib.asynccontextmanager
async def serving(
    script: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[tuple[Client, Endpoint]]:
    tasks: set[asyncio.Task[None] | None] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await script(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    client = Client()
    try:
        async with asyncio.timeout(60):
            yield client, Endpoint(*server.sockets[0].getsockname()[:2])
    finally:
        await client.close()
        server.close()
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)


async def read_all(exchange: Exchange) -> bytes:
    pieces = []
    while data := await exchange.read():
        pieces.append(data)
    return b"".join(pieces)


def test_a_request_is_sent_in_pieces_and_an_answer_read_in_pieces() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readuntil(b"one\r\n") == b"3\r\none\r\n"
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nA\r\n")
            assert await reader.readuntil(b"0\r\n\r\n") == b"3\r\ntwo\r\n0\r\n\r\n"
            writer.write(b"1\r\nB\r\n0\r\n\r\n")

    async def check() -> None:
        async with serving(script) as (client, endpoint):
            for _ in range(2):
                exchange = await client.open(endpoint)
                exchange.start(HEAD, None, chunked=True)
                await exchange.send(b"one")
                assert (await exchange.head()).status == 200
                assert await exchange.read() == b"A"
                await exchange.send(b"two")
                exchange.finish()
                assert await exchange.read() == b"B"
                assert await exchange.read() == b""
                exchange.close()
            assert client.open_connections(endpoint) == 1

    asyncio.run(check())


def test_an_answer_is_not_read_faster_than_it_is_taken() -> None:
    total = 64 * 1024 * 1024
    written = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        for _ in range(total // 65536):
            writer.write(b"x" * 65536)
            await writer.drain()
            written += 65536

    async def check() -> None:
        async with serving(script) as (client, endpoint):
            exchange = await client.open(endpoint)
            exchange.start(GET, b"")
            await exchange.head()
            before = -1
            while written != before:  # until nothing moves any more
                before = written
                await asyncio.sleep(0.05)
            assert written < total
            assert len(await read_all(exchange)) == total
            exchange.close()

    asyncio.run(check())


def test_a_request_is_not_sent_faster_than_it_is_taken() -> None:
    take = asyncio.Event()
    total = 64 * 1024 * 1024

    async def accept_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take.wait()
        tail = b""
        while not tail.endswith(b"0\r\n\r\n"):
            tail = (tail + await reader.read(65536))[-10:]
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def check() -> None:
        async with serving(accept_all) as (client, endpoint):
            exchange = await client.open(endpoint)
            exchange.start(HEAD, None, chunked=True)
            sent = 0

            async def upload() -> None:
                nonlocal sent
                for _ in range(total // 65536):
                    await exchange.send(b"x" * 65536)
                    sent += 65536
                exchange.finish()

            task = asyncio.create_task(upload())
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.05)
            assert sent < total
            take.set()
            assert (await exchange.head()).status == 204
            await task
            assert await exchange.read() == b""
            exchange.close()

    asyncio.run(check())


def test_after_an_upgrade_bytes_go_both_ways_until_one_side_ends() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH + b"hello")
        while data := await reader.read(65536):
            writer.write(data.upper())
            await writer.drain()
        writer.write(b"bye")

    async def check() -> None:
        async with serving(script) as (client, endpoint):
            exchange = await client.open(endpoint)
            exchange.start(UPGRADE, None, upgrade=True)
            assert (await exchange.head()).status == 101
            assert await exchange.read() == b"hello"
            await exchange.send(b"ping")
            assert await exchange.read() == b"PING"
            exchange.finish()
            assert await read_all(exchange) == b"bye"
            exchange.close()

    asyncio.run(check())


def test_an_upgrade_that_is_declined_is_an_answer() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")

    async def check() -> None:
        async with serving(script) as (client, endpoint):
            exchange = await client.open(endpoint)
            exchange.start(UPGRADE, None, upgrade=True)
            assert (await exchange.head()).status == 403
            assert await read_all(exchange) == b"no"
            exchange.close()

    asyncio.run(check())


@pytest.mark.parametrize("piece", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort"])
def test_what_breaks_off_is_told_after_what_came(piece: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(piece)

    async def check() -> None:
        async with serving(script) as (client, endpoint):
            exchange = await client.open(endpoint)
            exchange.start(GET, b"")
            if piece:
                assert (await exchange.head()).status == 200
                assert await exchange.read() == b"short"
            with pytest.raises(BrokenError):
                await (exchange.read() if piece else exchange.head())
            exchange.close()

    asyncio.run(check())


def test_closing_breaks_off_what_is_not_complete() -> None:
    gone = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
        await reader.read()
        gone.set()

    async def check() -> None:
        async with serving(script) as (client, endpoint):
            exchange = await client.open(endpoint)
            exchange.start(GET, b"")
            await exchange.head()
            exchange.close()
            await gone.wait()
            with pytest.raises(BrokenError):
                await exchange.send(b"x")

    asyncio.run(check())


def test_a_connection_that_nobody_accepts() -> None:
    async def check() -> None:
        clock = MovableClock()
        client = Client(clock=clock, max_connections_per_endpoint=1)

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        endpoint = Endpoint(*server.sockets[0].getsockname()[:2])
        first = await client.open(endpoint)
        first.start(GET, b"")
        second = asyncio.create_task(client.open(endpoint, timeout_seconds=3))
        await asyncio.sleep(0)
        await clock.advance(4)
        with pytest.raises(TimedOutError):
            await second
        first.close()
        server.close()
        with pytest.raises(ConnectError):
            await client.open(endpoint)
        await client.close()

    asyncio.run(check())
