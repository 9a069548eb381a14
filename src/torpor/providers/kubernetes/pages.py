"""What a part in a pod tells over HTTP: its health, its metrics, and pages of its own.

For small answers to a few who ask: the kubelet, Prometheus, the autoscaler. A part with more to say serves an
application.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from prometheus_client.registry import Collector

_PATIENCE_SECONDS = 5.0
_TEXT = "text/plain; charset=utf-8"
_PHRASES = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}


class Page(NamedTuple):
    """One answer."""

    status: int
    kind: str
    body: bytes


Maker = Callable[[], Awaitable[Page]]
Answerer = Callable[[str], Awaitable[Page]]
"""Makes a page for what stands after the question mark, unquoted."""


def metrics(*collectors: Collector) -> Page:
    """What ``collectors`` have, as Prometheus reads it."""
    return Page(200, CONTENT_TYPE_LATEST, b"".join(map(generate_latest, collectors)))


@contextlib.asynccontextmanager
async def serving(
    port: int,
    host: str = "",
    *,
    ready: Callable[[], bool] = lambda: True,
    pages: Mapping[str, Maker] | None = None,
    questions: Mapping[str, Answerer] | None = None,
    collectors: Sequence[Collector] = (REGISTRY,),
) -> AsyncIterator[int]:
    """Serve until the block is left; the port that it became, by IPv4 where there are two.

    ``ready`` says whether the pod may be sent work, ``pages`` and ``questions`` are more answers by path, and
    ``collectors`` have the metrics.
    """

    async def healthy() -> Page:
        return Page(200, _TEXT, b"ok\n")

    async def whether_ready() -> Page:
        return Page(200, _TEXT, b"ok\n") if ready() else Page(503, _TEXT, b"not ready\n")

    async def all_metrics() -> Page:
        return metrics(*collectors)

    known = {
        "/healthz/live": healthy,
        "/healthz/ready": whether_ready,
        "/metrics": all_metrics,
        **(pages or {}),
    }

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(
                OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
            ):
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    status, kind, body = await _page(head, known, questions or {})
                    writer.write(
                        f"HTTP/1.1 {status} {_PHRASES[status]}\r\ncontent-type: {kind}\r\n"
                        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
                        + body
                    )
                    await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(answer, host or None, port, limit=8192)
    async with server:
        # With port 0 each family has a port of its own, and they come in no order.
        sockets = sorted(server.sockets, key=lambda one: one.family != socket.AF_INET)
        yield sockets[0].getsockname()[1]


async def _page(head: bytes, known: Mapping[str, Maker], questions: Mapping[str, Answerer]) -> Page:
    target = head.split(b" ", 2)[1].decode("latin-1") if head.count(b" ") >= 2 else ""
    path, _, asked = target.partition("?")
    if path in questions:
        return await questions[path](unquote(asked))
    maker = known.get(path)
    if maker is None:
        there = ", ".join(sorted((*known, *questions)))
        return Page(404, _TEXT, f"here are {there}\n".encode())
    return await maker()
