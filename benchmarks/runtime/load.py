"""The load: one process that keeps a number of connections busy and counts the answers.

Run as ``python load.py PORT CONNECTIONS SECONDS STATUS``; it prints how many answers came. Any other status
than the expected one is a failure of the whole run.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import httptools
import uvloop

_BODY = b'{"name":"tile-0042","x":1024,"y":768,"width":256,"height":256}'
_REQUEST = (
    b"POST / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    b"ce-specversion: 1.0\r\nce-id: 7d3c1c5e-2f5e-4d57-9a43-0f1a4c1b9d11\r\nce-source: /images/scanner\r\n"
    b"ce-type: image.tile\r\nce-time: 2026-03-01T12:00:00.123456Z\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


class _Connection(asyncio.Protocol):
    """Sends a request, waits for its answer, and sends the next."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.answers = 0
        self.wrong: int | None = None
        self.running = True

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.parser = httptools.HttpResponseParser(self)
        self.transport.write(_REQUEST)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        status = self.parser.get_status_code()
        if status != self.expected:
            self.wrong = status
            self.running = False
        self.answers += 1
        if not self.running:
            self.transport.close()
        else:
            self.transport.write(_REQUEST)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.running:
            self.wrong = self.wrong or -1
            self.running = False


async def _run(port: int, connections: int, seconds: float, expected: int) -> int:
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda: _Connection(expected), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    for connection in made:
        connection.running = False
    wrong = [connection.wrong for connection in made if connection.wrong is not None]
    if wrong:
        raise SystemExit(f"a request was answered {wrong[0]}, {expected} was expected")
    return sum(connection.answers for connection in made)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(runner.run(_run(int(arguments[0]), int(arguments[1]), float(arguments[2]), int(arguments[3]))))
