"""Idle connections: kept while they may be used, and ended when no proxy can be using them."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from torpor.runtime.protocol import Protocol, Sweeper

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def test_only_connections_that_are_idle_for_long_are_ended() -> None:
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await gate.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> None:
        config = Config(app, log_config=None, http=Protocol, lifespan="off", proxy_headers=False)
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]
        idle, busy, silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        # Two requests in one go: the second is served after the first, on the same connection.
        idle[1].write(REQUEST + REQUEST)
        for _ in range(2):
            assert (await idle[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        busy[1].write(REQUEST.replace(b"/ ", b"/slow "))
        while not any(c.idle_since is None for c in state.connections if isinstance(c, Protocol)):
            await asyncio.sleep(0)
        sweeper = Sweeper(state, keep_alive_seconds=0.05)
        sweeper.start()
        async with asyncio.timeout(30):
            assert await idle[0].read() == b""
            assert await silent[0].read() == b""
            gate.set()
            assert (await busy[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
            assert await busy[0].read() == b"", "it is idle now, too"
        sweeper.stop()
        for _, writer in (idle, busy, silent):
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()

    asyncio.run(run())
