"""``python -m benchmarks.records``: what it costs to write down what happens to events, beside not doing so.

A dispatcher delivers events from a real NATS server to a function of bare ASGI in a process of its own,
once with records and once without, in several rounds. What is compared is the processor time of the
dispatcher's process for each event, which a busy machine changes less than times. Written to
``build/bench/records.json``; the exit status is 1 when records take more than a tenth.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop

from torpor.binding import WireEvent
from torpor.clock import SystemClock
from torpor.endpoint import Endpoint
from torpor.events import names
from torpor.events.declared import Declared
from torpor.events.dispatcher import Dispatcher
from torpor.events.http_sender import GatewaySender
from torpor.events.intake import append_events
from torpor.events.jetstream import JetStreamLog
from torpor.events.nats_server import NatsServer
from torpor.events.recorder import Recorder
from torpor.events.stats import Stats
from torpor.spec.models import Metadata, Subscriber, Trigger, TriggerSpec
from torpor.transport import Client

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torpor.events.records import Line

RESULT = Path(__file__).resolve().parents[2] / "build" / "bench" / "records.json"
BROKER = "default/default"
MOST_SHARE = 0.1
DATA = b'{"text": "' + b"x" * 1000 + b'"}'
TRIGGER = Trigger(metadata=Metadata(name="t"), spec=TriggerSpec(subscriber=Subscriber(function="f")))


class _Nothing(Recorder):
    """Writes nothing down."""

    def add(self, broker_key: str, lines: Iterable[Line]) -> None:
        """Forget it."""

    async def flush(self, broker_key: str) -> None:
        """There is nothing to wait for."""


async def _function(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _serve(listener: socket.socket) -> None:
    uvicorn.Server(uvicorn.Config(_function, log_level="error", lifespan="off")).run([listener])


async def _publish(log: JetStreamLog, start: int, events: int) -> None:
    for first in range(start, start + events, 1000):
        batch = [
            WireEvent(
                {"specversion": "1.0", "id": str(number), "source": "/bench", "type": "a"}
                | {"datacontenttype": "application/json"},
                DATA,
            )
            for number in range(first, min(first + 1000, start + events))
        ]
        await append_events(log, BROKER, batch)


async def _round(
    nats: NatsServer, gateway: Endpoint, start: int, events: int, kind: type[Recorder]
) -> dict[str, float]:
    """Seconds of the processor, and of the clock, that each of ``events`` took."""
    clock, stats = SystemClock(), Stats()
    log = await JetStreamLog.connect(nats.url, token=nats.token, clock=clock)
    client = Client(max_connections_per_endpoint=256, clock=clock)
    sender = GatewaySender(client, clock, gateway)
    dispatcher = Dispatcher(log, sender, clock, stats=stats, recorder=kind(log, clock, stats, "bench"))
    await dispatcher.apply(Declared([TRIGGER], [BROKER]))
    await dispatcher.close()  # its consumer is there now, and so nothing passes it by
    await _publish(log, start, events)
    dispatcher = Dispatcher(log, sender, clock, stats=stats, recorder=kind(log, clock, stats, "bench"))
    processor, began = time.process_time(), time.perf_counter()
    await dispatcher.apply(Declared([TRIGGER], [BROKER]))
    while stats.of(TRIGGER.key).delivered < events:
        await asyncio.sleep(0.01)
    took = {
        "cpu_seconds": (time.process_time() - processor) / events,
        "seconds": (time.perf_counter() - began) / events,
    }
    await dispatcher.close()
    written = 0
    async for _ in log.read(names.records_stream(BROKER), ">"):
        written += 1
    await log.purge(names.records_stream(BROKER), ">")
    await client.close()
    await log.close()
    return {**took, "messages": written / events}


async def _measure(rounds: int, events: int) -> dict[str, Any]:
    listener = socket.create_server(("127.0.0.1", 0))
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(listener,), daemon=True)
    process.start()
    gateway = Endpoint(*listener.getsockname()[:2])
    found: dict[str, list[dict[str, float]]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory() as folder:
        nats = NatsServer(Path(folder))
        await nats.start()
        try:
            for number in range(rounds):
                for index, (name, kind) in enumerate((("without", _Nothing), ("with", Recorder))):
                    start = (2 * number + index) * events
                    found[name].append(await _round(nats, gateway, start, events, kind))
        finally:
            await nats.close()
            process.terminate()
    result: dict[str, Any] = {
        name: {field: statistics.median(each[field] for each in some) for field in some[0]}
        for name, some in found.items()
    }
    result["share"] = 1 - result["without"]["cpu_seconds"] / result["with"]["cpu_seconds"]
    return result


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=4000)
    chosen = parser.parse_args()
    result = uvloop.run(_measure(chosen.rounds, chosen.events))
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    for name in ("without", "with"):
        one = result[name]
        print(
            f"{name:>7} records: {one['cpu_seconds'] * 1e6:.0f} µs of the processor, "
            f"{1 / one['seconds']:.0f} events a second, {one['messages']:.2f} messages of records an event"
        )
    print(f"records take {result['share']:.1%} of the dispatcher's processor time")
    return 0 if result["share"] <= MOST_SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
