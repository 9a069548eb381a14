"""Constant load on one address, put on and taken off by lines on standard input.

Runs inside a pod, so it is one file that needs the standard library alone. Each connection sends one request
after the other, and is opened anew when an answer says ``connection: close``. A request that gets no whole
answer with status 200 is lost, and so is one that can't connect: nothing is tried again. The address of the
host is looked up once, so that a busy name server loses none. Arguments: host, port, path, connections.
Commands: ``go``, ``look``, ``pause`` (returns when nothing is under way) and ``end``; each is answered by a
line of JSON with what was counted since the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys

LIMIT_SECONDS = 90.0
SHOWN = 20


class Counts:
    """What became of all requests."""

    def __init__(self) -> None:
        self.sent = 0
        self.answered = 0
        self.causes: list[str] = []
        self.lost = 0
        self.slowest = 0.0

    def lose(self, cause: str) -> None:
        """One got no answer that counts."""
        self.lost += 1
        if len(self.causes) < SHOWN:
            self.causes.append(cause)

    def line(self) -> str:
        """All of it."""
        return json.dumps(vars(self))


class Sender:
    """One connection at a time."""

    def __init__(self, address: str, host: str, port: int, path: str, counts: Counts) -> None:
        self._address = address
        self._port = port
        self._request = f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()
        self._counts = counts
        self._writer: asyncio.StreamWriter | None = None
        self._reader = asyncio.StreamReader()

    async def run(self, going: asyncio.Event, idle: asyncio.Semaphore) -> None:
        """Send while ``going`` is set; hold ``idle`` while a request is under way."""
        while True:
            await going.wait()
            async with idle:
                await self._one()

    async def _one(self) -> None:
        counts = self._counts
        counts.sent += 1
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                head, body = await self._exchange()
        except (OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError) as error:
            counts.lose(repr(error))
            self._close()
            return
        counts.slowest = max(counts.slowest, asyncio.get_running_loop().time() - began)
        if head.split()[1] == b"200":
            counts.answered += 1
        else:
            counts.lose(f"{head.split()[1].decode()}: {body[:300].decode('utf-8', 'replace')}")
        if b"connection: close" in head:
            self._close()

    async def _exchange(self) -> tuple[bytes, bytes]:
        if self._writer is None or self._reader.at_eof():
            self._close()
            self._reader, self._writer = await asyncio.open_connection(self._address, self._port)
        self._writer.write(self._request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if b"content-length:" not in head:
            raise ValueError(f"an answer without length: {head[:200]!r}")
        length = int(head.partition(b"content-length:")[2].split()[0])
        return head, await self._reader.readexactly(length)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


async def address_of(host: str) -> str:
    """The address of a service, which stays; asked for until a name server says it."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            with contextlib.suppress(OSError):
                found = await asyncio.get_running_loop().getaddrinfo(host, None, family=socket.AF_INET)
                return str(found[0][4][0])


async def main(host: str, port: str, path: str, connections: str) -> None:
    """Do what the lines say."""
    counts, going, number = Counts(), asyncio.Event(), int(connections)
    idle = asyncio.Semaphore(number)
    address = await address_of(host)
    senders = [Sender(address, host, int(port), path, counts) for _ in range(number)]
    tasks = [asyncio.create_task(sender.run(going, idle)) for sender in senders]
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while command := (await lines.readline()).decode().strip():
        if command == "go":
            going.set()
        elif command != "look":
            going.clear()
            for _ in range(number):
                await idle.acquire()
            for _ in range(number):
                idle.release()
        print(counts.line(), flush=True)
        if command == "end":
            break
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
