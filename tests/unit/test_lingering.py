"""Answers to requests that are not all here yet: who goes on sending hears them, but not for ever."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, cast

import pytest

from torpor.lingering import linger
from torpor.problems import ProblemType
from torpor.runtime.protocol import Protocol
from torpor.serving import LingeringProtocol, listen, refuse, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_MIB = 1024 * 1024
_PIECE = b"x" * 65_536
_CLOSED = ((b"connection", b"close"),)


async def _too_large(_scope: Any, _receive: Any, send: Any) -> None:
    await refuse(send, ProblemType.TOO_LARGE, "no", headers=_CLOSED)


async def _send(writer: asyncio.StreamWriter, size_bytes: int) -> None:
    for _ in range(size_bytes // len(_PIECE)):
        writer.write(_PIECE)
        await writer.drain()


@contextlib.asynccontextmanager
async def _connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(30):
            yield reader, writer
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("protocol", [LingeringProtocol, Protocol])
@pytest.mark.parametrize("framing", [b"content-length: 67108864\r\n", b"transfer-encoding: chunked\r\n"])
def test_who_sends_on_after_the_answer_hears_it(
    monkeypatch: pytest.MonkeyPatch, protocol: type[LingeringProtocol], framing: bytes
) -> None:
    monkeypatch.setattr("torpor.serving.LingeringProtocol", protocol)

    async def run() -> None:
        async with (
            serving(_too_large, listen("127.0.0.1", 0), grace_seconds=1) as endpoint,
            _connected(endpoint.port) as (reader, writer),
        ):
            writer.write(b"PUT / HTTP/1.1\r\nhost: x\r\n" + framing + b"\r\n")
            if b"chunked" in framing:
                writer.write(b"%x\r\n" % (64 * _MIB))
            await _send(writer, 32 * _MIB)  # the connection would long have been reset
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert b"content-length: " in answer
            assert answer.endswith(b"}"), "its end is the end of what is said"

    asyncio.run(run())


def test_a_request_that_is_all_here_is_not_waited_for() -> None:
    async def run() -> None:
        async with (
            serving(_too_large, listen("127.0.0.1", 0), grace_seconds=1) as endpoint,
            _connected(endpoint.port) as (reader, writer),
        ):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 413 ")
            with pytest.raises(ConnectionError):
                await _send(writer, 8 * _MIB)

    asyncio.run(run())


@pytest.mark.parametrize("protocol", [LingeringProtocol, Protocol])
def test_what_comes_after_the_last_request_of_a_connection_is_no_request(
    monkeypatch: pytest.MonkeyPatch, protocol: type[LingeringProtocol]
) -> None:
    monkeypatch.setattr("torpor.serving.LingeringProtocol", protocol)
    served: list[str] = []

    async def slowly(scope: Any, _receive: Any, send: Any) -> None:
        served.append(scope["path"])
        await go.wait()
        await _too_large(scope, _receive, send)

    async def run() -> None:
        async with (
            serving(slowly, listen("127.0.0.1", 0), grace_seconds=1) as endpoint,
            _connected(endpoint.port) as (reader, writer),
        ):
            writer.write(b"POST /1 HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx")
            writer.write(b"POST /2 HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx")
            while not served:
                await asyncio.sleep(0)
            go.set()
            assert (await reader.read()).count(b"HTTP/1.1 ") == 1
            assert served == ["/1"]

    go = asyncio.Event()
    asyncio.run(run())


@pytest.mark.parametrize("bounds", [{"max_bytes": _MIB}, {"max_bytes": 2048 * _MIB, "seconds": 0.01}])
def test_who_never_stops_is_cut_off(bounds: dict[str, Any]) -> None:
    lost = asyncio.Event()

    class Answering(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            linger(cast("asyncio.Transport", transport), **bounds)

        def connection_lost(self, exc: Exception | None) -> None:
            lost.set()

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
        async with server, _connected(server.sockets[0].getsockname()[1]) as (_, writer):
            with pytest.raises(ConnectionError):
                await _send(writer, 1024 * _MIB)
            await lost.wait()

    asyncio.run(run())
