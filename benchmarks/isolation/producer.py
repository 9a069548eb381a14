"""``python -m benchmarks.isolation.producer URL TOKEN fill EVENTS``: events for the triggers beside the fast
one. ``send RATE SECONDS`` in the place of that: events for the fast one, evenly.
"""

from __future__ import annotations

import asyncio
import sys
import time

import uvloop

from torpor.binding import WireEvent
from torpor.events.intake import append_events
from torpor.events.jetstream import JetStreamLog
from torpor.events.stats import Stats

BROKER = "default/default"
DATA = b'{"text": "' + b"x" * 1000 + b'"}'


def event(event_id: str, kind: str, **attributes: str) -> WireEvent:
    """An event of a kilobyte."""
    common = {"specversion": "1.0", "id": event_id, "source": "/bench", "type": kind}
    return WireEvent({**common, "datacontenttype": "application/json", **attributes}, DATA)


async def fill(log: JetStreamLog, events: int) -> None:
    """Publish as fast as it goes."""
    for first in range(0, events, 500):
        some = [event(f"other-{number}", "other") for number in range(first, min(first + 500, events))]
        await append_events(log, BROKER, some)


async def send(log: JetStreamLog, rate: float, seconds: float) -> None:
    """Publish evenly; each event says when it was due, so that a producer that is late hides nothing."""
    _stats, under_way = Stats(), set[asyncio.Task[list[bool]]]()
    began, epoch = time.perf_counter(), time.time()
    for number in range(int(rate * seconds)):
        due_seconds = number / rate
        await asyncio.sleep(max(0.0, began + due_seconds - time.perf_counter()))
        one = event(f"fast-{number}", "fast", sent=repr(epoch + due_seconds))
        task = asyncio.ensure_future(append_events(log, BROKER, [one]))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)


async def main(url: str, token: str, what: str, *numbers: str) -> None:
    """Do what the command line says."""
    log = await JetStreamLog.connect(url, token=token)
    if what == "fill":
        await fill(log, int(numbers[0]))
    else:
        await send(log, *map(float, numbers))
    await log.close()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
