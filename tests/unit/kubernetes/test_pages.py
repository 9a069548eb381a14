"""Health and metrics over HTTP."""

from __future__ import annotations

import asyncio

import pytest

from torpor.providers.kubernetes import pages


async def _ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /healthz/live HTTP/1.1", b"200 OK"),
        (b"GET /healthz/ready HTTP/1.1", b"200 OK"),
        (b"GET /metrics HTTP/1.1", b"200 OK"),
        (b"GET /else HTTP/1.1", b"404 Not Found"),
        (b"nonsense", b"404 Not Found"),
    ],
)
def test_answers(request_line: bytes, status: bytes) -> None:
    async def case() -> None:
        async with pages.serving(0, "127.0.0.1") as port:
            answer = await _ask(port, request_line + b"\r\nhost: a\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 " + status)
            assert await _ask(port, b"x" * 20_000) == b""

    asyncio.run(case())


def test_says_what_a_part_has_to_say() -> None:
    async def loads() -> pages.Page:
        return pages.Page(200, "application/json", b"{}")

    async def case() -> None:
        async with pages.serving(0, "127.0.0.1", ready=lambda: False, pages={"/loads": loads}) as port:
            answer = await _ask(port, b"GET /loads?a HTTP/1.1\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: application/json")
            assert (await _ask(port, b"GET /healthz/ready HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 503 ")
            assert (await _ask(port, b"GET /healthz/live HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 ")

    asyncio.run(case())
