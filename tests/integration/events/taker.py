"""``python -m tests.integration.events.taker``: one of several processes that read one consumer, for tests.

Its first line of input is JSON: ``url``, ``token`` and ``options`` of the broker, ``stream`` and
``consumer``. It answers ``ready`` once it reads, and then says of each record its id and which attempt it is,
before it acknowledges it. It ends in order when it is told to by a signal.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import orjson

from torpor.clock import SystemClock, cancel
from torpor.events.brokers import Broker, connect
from torpor.events.log import ConsumerSpec

if TYPE_CHECKING:
    from torpor.events.log import Consumer

AT_ONCE = 32


async def main() -> None:
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    given = orjson.loads(await asyncio.to_thread(sys.stdin.readline))
    log = await connect(Broker(given["url"], given["token"], given["options"]), SystemClock())
    # With keep: its spec is what the test made it.
    consumer = await log.consumer(ConsumerSpec(given["stream"], given["consumer"]), keep=True)
    _say("ready")
    taking = asyncio.create_task(_take(consumer))
    told = asyncio.create_task(ending.wait())
    await asyncio.wait([taking, told], return_when=asyncio.FIRST_COMPLETED)
    if taking.done():
        taking.result()  # raises what it fell by
    await cancel(taking)
    await consumer.close()
    await log.close()


async def _take(consumer: Consumer) -> None:
    while True:
        for delivery in await consumer.fetch(AT_ONCE):
            _say(f"{delivery.record.event.id} {delivery.attempt}")
            await delivery.ack()


def _say(line: str) -> None:
    """At once, and whole: what is said of is in the pipe, whatever becomes of this process."""
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    asyncio.run(main())
