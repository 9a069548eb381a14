"""The dispatcher beside its own HTTP client: the same messages to the same function, each in its process."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil
import uvicorn

from benchmarks.events.clients import event
from benchmarks.events.parts import Sampler
from torpor.clock import SystemClock
from torpor.events.brokers import Broker, connect
from torpor.events.courier import PREFER
from torpor.events.declared import Declared
from torpor.events.dispatcher import Dispatcher
from torpor.events.http_sender import GatewaySender
from torpor.events.intake import append_events
from torpor.events.recorder import Recorder
from torpor.events.service import collect_seldom
from torpor.events.stats import Stats
from torpor.events.subscription import message_of
from torpor.spec.models import Filter, Metadata, Subscriber, Trigger, TriggerSpec
from torpor.transport import Client, encode_fields

if TYPE_CHECKING:
    import socket

    from benchmarks.events.processes import Gate
    from torpor.endpoint import Endpoint

PARALLELISM = 32
_BATCH = 1000
_LOOK_SECONDS = 0.01
_STILL_SECONDS = 2.0
_RSS_POINTS = 10


@dataclass(frozen=True)
class Run:
    """What one process did; times are of the machine's one monotonic clock.

    ``before`` are events that were handled before it ``began``, ``start_seconds`` what it took to begin.
    """

    events: int
    began: float
    ended: float
    cpu_seconds: float
    before: int = 0
    start_seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    rss_bytes: list[int] = field(default_factory=list)


def together(runs: list[Run]) -> tuple[float, float]:
    """Events a second of processes that work at once, and processor time in seconds for each event."""
    runs = [run for run in runs if run.events]
    events = sum(run.events for run in runs)
    took = max(run.ended for run in runs) - min(run.began for run in runs)
    return events / took, sum(run.cpu_seconds for run in runs) / events


def trigger(broker_key: str) -> Trigger:
    """The trigger that is at work: two filters, both of which match."""
    namespace, _, broker = broker_key.partition("/")
    return Trigger(
        metadata=Metadata(name="t", namespace=namespace),
        spec=TriggerSpec(
            broker=broker,
            filters=(Filter(exact={"type": "bench.made"}), Filter(prefix={"source": "/be"})),
            subscriber=Subscriber(function="f"),
            parallelism=PARALLELISM,
        ),
    )


async def serve(gate: Gate, listener: socket.socket, answers: bool) -> None:
    """The function, of bare ASGI: answers nothing, or one event."""

    async def function(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        headers, body, status = [], b"", 204
        if answers:
            of = next(value for name, value in scope["headers"] if name == b"ce-id")
            status, body = 200, b'{"done": true}'
            headers = [
                (b"ce-specversion", b"1.0"),
                (b"ce-id", of + b".0"),
                (b"ce-source", b"/function/f"),
                (b"ce-type", b"bench.done"),
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
            ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(function, log_config=None, access_log=False, lifespan="off", ws="none")
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    await gate.wait()


async def alone(_: Gate, gateway: Endpoint, count: int) -> Run:
    """The HTTP client by itself."""
    client = Client()
    message = message_of(event(0))
    fields = (
        message.fields + PREFER + encode_fields([(b"torpor-attempt", b"1"), (b"torpor-function", b"bench/f")])
    )
    numbers = itertools.count(1)

    async def call() -> None:
        while next(numbers) <= count:
            answer = await client.request(gateway, b"POST", b"/", fields, message.body, timeout_seconds=30)
            if answer.status not in (200, 204):
                raise RuntimeError(f"the function answered {answer.status}")

    began, cpu = time.monotonic(), time.process_time()
    await asyncio.gather(*(call() for _ in range(PARALLELISM)))
    run = Run(count, began, time.monotonic(), time.process_time() - cpu)
    await client.close()
    return run


async def fill(_: Gate, broker: Broker, broker_key: str, count: int) -> None:
    """Have a consumer of the trigger, and then that many events that wait for it."""
    clock, stats = SystemClock(), Stats()
    log = await connect(broker, clock)
    client = Client()
    dispatcher = Dispatcher(log, GatewaySender(client, clock), clock, stats=stats, shared=True)
    await dispatcher.apply(Declared([trigger(broker_key)], [broker_key]))
    await dispatcher.close()
    for start in range(0, count, _BATCH):
        events = [event(number) for number in range(start, min(start + _BATCH, count))]
        await append_events(log, broker_key, events)
    await client.close()
    await log.close()


async def empty(_: Gate, broker: Broker, broker_key: str) -> tuple[int, int]:
    """Remove a broker's streams; how many records of what happened there were, and how many messages."""
    log = await connect(broker, SystemClock())
    lines = messages = 0
    for stream in await log.streams():
        if not stream.endswith(broker_key.replace("/", ".")):
            continue
        if stream.startswith("records."):
            async for stored in log.read(stream, ">"):
                messages += 1
                lines += (stored.event.data or b"").count(b"\n") + 1
        await log.remove_stream(stream)
    await log.close()
    return lines, messages


async def dispatch(
    gate: Gate, broker: Broker, broker_key: str, gateway: Endpoint, count: int, sampled: bool
) -> Run:
    """One dispatcher, until nothing waits any more. ``count`` is how many there are for all.

    Measured from when it is seen to deliver: how long it takes to begin is told by itself.
    """
    clock, stats = SystemClock(), Stats()
    log = await connect(broker, clock)
    client = Client(clock=clock)
    recorder = Recorder(log, clock, stats, "bench")
    dispatcher = Dispatcher(
        log, GatewaySender(client, clock, gateway), clock, stats=stats, recorder=recorder, shared=True
    )
    collect_seldom()  # as the process does that this stands for
    process, sampler = psutil.Process(), Sampler()
    counts = stats.of(trigger(broker_key).key)
    await gate.wait()
    if sampled:
        sampler.start()
    opened = began = ended = time.monotonic()
    cpu = spent = time.process_time()
    await dispatcher.apply(Declared([trigger(broker_key)], [broker_key]))
    rss = [process.memory_info().rss]
    before = seen = 0
    looked = ended
    while seen < count:
        await asyncio.sleep(_LOOK_SECONDS)
        if (now := time.monotonic()) > max(ended, looked) + _STILL_SECONDS:
            looked = now
            [state] = (await dispatcher.states()).values()
            if not state.pending and not state.problem:  # others have had the rest
                break
        if counts.delivered > seen:
            seen, ended, spent = counts.delivered, time.monotonic(), time.process_time()
            if not before:
                before, began, cpu = seen, ended, spent
            if seen >= count * len(rss) / _RSS_POINTS:
                rss.append(process.memory_info().rss)
    parts = sampler.stop() if sampled else {}
    await dispatcher.close()
    await client.close()
    await log.close()
    return Run(seen - before, began, ended, spent - cpu, before, began - opened, parts, rss)
