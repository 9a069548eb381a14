"""Health and metrics of a part without routes: ``/healthz/live``, ``/healthz/ready`` and ``/metrics``."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_PATIENCE_SECONDS = 5.0
_TEXT = "text/plain; charset=utf-8"


@contextlib.asynccontextmanager
async def serving(port: int, host: str = "") -> AsyncIterator[int]:
    """Serve until the block is left; the port that it became."""
    server = await asyncio.start_server(_answer, host or None, port, limit=8192)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        async with asyncio.timeout(_PATIENCE_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            status, kind, body = _page(head.split(b" ", 2)[1] if head.count(b" ") >= 2 else b"")
            writer.write(
                f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
                "connection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
    writer.close()


def _page(path: bytes) -> tuple[str, str, bytes]:
    if path in (b"/healthz/live", b"/healthz/ready"):
        return "200 OK", _TEXT, b"ok\n"
    if path == b"/metrics":
        return "200 OK", CONTENT_TYPE_LATEST, generate_latest()
    return "404 Not Found", _TEXT, b"/healthz/live, /healthz/ready and /metrics are here\n"
