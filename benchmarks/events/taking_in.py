"""The ingress, with a producer that keeps a number of requests under way, each in its process."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from benchmarks.events.clients import UNDER_WAY, event
from benchmarks.events.dispatching import Run
from torpor.binding import BATCH, encode_batch
from torpor.clock import SystemClock
from torpor.events import names
from torpor.events.brokers import Broker, connect
from torpor.events.fields import event_fields
from torpor.events.ingress import Ingress
from torpor.events.intake import Intake
from torpor.events.log import StreamSpec
from torpor.events.recorder import Recorder, stream_spec
from torpor.events.service import collect_seldom
from torpor.events.stats import Stats
from torpor.serving import serving
from torpor.transport import Client, encode_fields

if TYPE_CHECKING:
    import socket

    from benchmarks.events.processes import Gate
    from torpor.endpoint import Endpoint


BATCHES_UNDER_WAY = 16


async def take_in(gate: Gate, broker: Broker, broker_key: str, listener: socket.socket) -> float:
    """Serve the ingress; processor time in seconds between two gates."""
    clock, stats = SystemClock(), Stats()
    log = await connect(broker, clock)
    await log.ensure_stream(StreamSpec(names.broker_stream(broker_key)))
    await log.ensure_stream(stream_spec(broker_key))
    recorder = Recorder(log, clock, stats, "bench")
    ingress = Ingress(Intake(log, clock, stats), clock, stats, recorder=recorder)
    ingress.set_brokers([broker_key])
    collect_seldom()  # as the process does that this stands for
    async with serving(ingress, listener, grace_seconds=5):
        await gate.wait()
        cpu = time.process_time()
        await gate.wait()
        cpu = time.process_time() - cpu
    await recorder.drain(5.0)
    await log.close()
    return cpu


async def produce(gate: Gate, endpoint: Endpoint, broker_key: str, count: int, batch: int) -> Run:
    """Send that many events, ``batch`` of them in each request, and a number of requests at once."""
    client = Client()
    target = f"/events/{broker_key}".encode()
    first = iter(range(1, count + 1, batch))

    def encoded(number: int) -> tuple[bytes, bytes]:
        if batch == 1:
            one = event(number)
            return event_fields(one), one.data or b""
        events = map(event, range(number, min(number + batch, count + 1)))
        return encode_fields([(b"content-type", BATCH)]), encode_batch(events)

    async def send() -> None:
        for number in first:
            fields, body = encoded(number)
            answer = await client.request(endpoint, b"POST", target, fields, body, timeout_seconds=60)
            if answer.status != 202:
                raise RuntimeError(f"the ingress answered {answer.status}: {answer.body!r}")

    await gate.wait()
    began, cpu = time.monotonic(), time.process_time()
    await asyncio.gather(*(send() for _ in range(UNDER_WAY if batch == 1 else BATCHES_UNDER_WAY)))
    run = Run(count, began, time.monotonic(), time.process_time() - cpu)
    await client.close()
    return run
