"""``python -m tests.integration.events.replica``: one of several events services on one log, for tests.

Its first line of input is JSON: ``url``, ``token`` and ``options`` of the broker, and the declaration. Then
each line ``lead`` or ``follow`` says whether it leads; what it was told last is done when it answers with a
line.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import orjson

from torpor.clock import SystemClock
from torpor.events.brokers import Broker
from torpor.events.declaration import Declaration
from torpor.events.service import Service, connect


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    given = orjson.loads(await reader.readline())
    clock = SystemClock()
    log = await connect(Broker(given["url"], given["token"], given["options"]), clock, asyncio.Event())
    assert log is not None
    service = Service(log, clock, shared=True)
    await service.declare(Declaration.model_validate(given["declaration"]))
    ending = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ending.set)
    listening = asyncio.create_task(_listen(reader, service))
    _say("declared")
    await ending.wait()
    listening.cancel()
    await service.dispatcher.halt()
    await service.close(30.0)


async def _listen(reader: asyncio.StreamReader, service: Service) -> None:
    while line := await reader.readline():
        await service.dispatcher.lead(line.strip() == b"lead")
        _say(line.decode().strip())


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
