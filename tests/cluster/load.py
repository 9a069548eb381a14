"""Constant load on pods by their addresses, as a gateway would put it.

Runs inside a pod, so it is one file that needs the standard library alone. Each connection sends one request
after the other. When an answer says ``connection: close`` the pod is on its way out, and the connection goes
on to the next address. A request that gets no whole answer with status 200 is lost. Arguments: how many
connections, how many requests each sends once it is at the last address, and the addresses.
"""

from __future__ import annotations

import asyncio
import json
import sys

PORT = 8080
LIMIT_SECONDS = 90


async def one_connection(addresses: list[str], last_requests: int, counts: dict[str, int]) -> None:
    """Send requests to each of ``addresses`` in turn."""
    for number, address in enumerate(addresses):
        left = last_requests if number == len(addresses) - 1 else 10**9
        reader, writer = await asyncio.open_connection(address, PORT)
        while left:
            left -= 1
            counts["sent"] += 1
            try:
                writer.write(b"GET /?name=Ada HTTP/1.1\r\nhost: greeter\r\n\r\n")
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].split()[0])
                body = await reader.readexactly(length)
            except (OSError, EOFError) as error:
                counts["lost"] += 1
                print(f"lost: {error!r}")
                break
            if head.split()[1] == b"200" and b"Hello, Ada!" in body:
                counts["answered"] += 1
            else:
                counts["lost"] += 1
            if counts["answered"] == 500:
                print("warm")
            if b"connection: close" in head:
                counts["moved"] += 1
                break
        writer.close()


async def main(connections: int, last_requests: int, *addresses: str) -> None:
    """Put the load on, and print what became of it."""
    counts = {"sent": 0, "answered": 0, "lost": 0, "moved": 0}
    async with asyncio.timeout(LIMIT_SECONDS), asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(one_connection(list(addresses), last_requests, counts))
    print(json.dumps(counts))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
