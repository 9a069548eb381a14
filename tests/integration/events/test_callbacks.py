"""Callbacks over real connections: TLS is checked by the name, and refused networks are not reached."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from torpor.errors import BrokenError, ConnectError, ForbiddenAddressError, TimedOutError
from torpor.events.callback_urls import REFUSED, REFUSED_ON_A_LAPTOP, Networks
from torpor.events.callbacks import CallbackSender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from torpor.transport import Response

OK = b"HTTP/1.1 204 No Content\r\nRetry-After: 7\r\nconnection: close\r\n\r\n"
HEADERS = [(b"x-call-id", b"1"), (b"content-type", b"text/plain")]
PATIENCE_SECONDS = 30.0


class _Receiver:
    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.port = 0
        self.requests: list[bytes] = []
        self.left = 0
        self.ended = asyncio.Event()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.left += 1
        self.requests.append(await reader.readuntil(b"body"))
        writer.write(self._answer)
        if not self._answer:
            await reader.read()  # until the other side has enough
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        self.left -= 1
        self.ended.set()


@asynccontextmanager
async def _receiving(answer: bytes = OK, tls: ssl.SSLContext | None = None) -> AsyncIterator[_Receiver]:
    receiver = _Receiver(answer)
    server = await asyncio.start_server(receiver.connected, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        while receiver.left:
            receiver.ended.clear()
            await receiver.ended.wait()


async def _send(url: str, refused: str = REFUSED_ON_A_LAPTOP, seconds: float = PATIENCE_SECONDS) -> Response:
    sender = CallbackSender(Networks(refused))
    try:
        return await sender.send(url, HEADERS, b"body", seconds)
    finally:
        await sender.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of ``localhost``, with its key in the same file; it is its own authority."""
    folder = tmp_path_factory.mktemp("certificate")
    key, whole = folder / "key.pem", folder / "whole.pem"
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "30"),
            *("-keyout", str(key)),
        ],
        check=True,
        capture_output=True,
    )
    whole.write_bytes(made.stdout + key.read_bytes())
    return whole


def test_a_callback_is_one_post_and_no_redirect_is_followed() -> None:
    async def run() -> None:
        async with _receiving() as receiver:
            response = await _send(f"http://localhost:{receiver.port}/a%20b?c=d")
            assert (response.status, response.header(b"retry-after")) == (204, b"7")
            [request] = receiver.requests
            head, _, body = request.partition(b"\r\n\r\n")
            line, *headers = head.lower().split(b"\r\n")
            assert line == b"post /a%20b?c=d http/1.1"
            assert {b"x-call-id: 1", b"content-type: text/plain", b"content-length: 4"} < set(headers)
            assert b"host: localhost:%d" % receiver.port in headers
            assert body == b"body"
        moved = b"HTTP/1.1 307 Moved\r\nlocation: /other\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        async with _receiving(moved) as receiver:
            assert (await _send(f"http://127.0.0.1:{receiver.port}/")).status == 307
            assert len(receiver.requests) == 1

    asyncio.run(run())


def test_a_refused_network_is_not_reached_whatever_the_name() -> None:
    async def run() -> None:
        async with _receiving() as receiver:
            for host in ("localhost", "127.0.0.1", "127.1", "2130706433", "[::ffff:127.0.0.1]"):
                with pytest.raises(ForbiddenAddressError, match="where callbacks may not go"):
                    await _send(f"http://{host}:{receiver.port}/", REFUSED)
            assert receiver.requests == []

    asyncio.run(run())


def test_what_does_not_answer_says_how() -> None:
    async def run() -> None:
        async with _receiving(b"") as receiver:
            url = f"http://localhost:{receiver.port}/"
            with pytest.raises(TimedOutError):
                await _send(url, seconds=0.3)
        with pytest.raises(ConnectError):
            await _send(url)
        with pytest.raises(ConnectError, match="can't be looked up"):
            await _send("http://nobody.invalid/")
        async with _receiving(b"no HTTP\r\n\r\n") as receiver:
            with pytest.raises(BrokenError):
                await _send(f"http://localhost:{receiver.port}/")

    asyncio.run(run())


def test_a_certificate_is_checked_by_the_name(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def run() -> None:
        async with _receiving(tls=context) as receiver:
            with pytest.raises(ConnectError, match=r"(?i)certificate"):
                await _send(f"https://localhost:{receiver.port}/")
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            assert (await _send(f"https://localhost:{receiver.port}/")).status == 204
            with pytest.raises(ConnectError, match=r"(?i)certificate"):
                await _send(f"https://127.0.0.1:{receiver.port}/")
            assert len(receiver.requests) == 1

    asyncio.run(run())
