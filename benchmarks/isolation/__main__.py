"""``python -m benchmarks.isolation``: what a trigger has to bear from others beside it.

One dispatcher delivers from a real NATS server to functions of bare ASGI in a process of their own. Events
for a fast trigger come at an even rate; it is alone, or beside another trigger that has much to do: one whose
function is slow, one whose function fails always, one whose function is missing, one with a huge backlog, and
five slow ones with a thousand calls under way each. In every round it is alone and beside each of them. Told
is how many of its events were delivered in the time, and how long each took from its producer to its
function. Written to ``build/bench/isolation.json``; the exit status is 1 when one beside it costs more than a
tenth of what is delivered.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import socket
import statistics
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from benchmarks.isolation.functions import serve
from torpor.clock import SystemClock
from torpor.endpoint import Endpoint
from torpor.events.declaration import Declaration
from torpor.events.jetstream import JetStreamLog
from torpor.events.nats_server import NatsServer
from torpor.events.service import Service
from torpor.spec.models import Filter, Metadata, Subscriber, Trigger, TriggerSpec
from torpor.transport import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RESULT = Path(__file__).resolve().parents[2] / "build" / "bench" / "isolation.json"
LEAST_SHARE = 0.9
LATE_SECONDS = 1.0
"""What is not delivered so long after the last one was sent counts as not delivered."""
WARM_SECONDS = 8.0


@dataclass(frozen=True)
class Neighbour:
    """What is beside the fast trigger: so many triggers of a function, each with so many events."""

    name: str
    function: str = ""
    triggers: int = 0
    events: int = 0
    parallelism: int = 32


NEIGHBOURS = (
    Neighbour("alone"),
    Neighbour("slow", "slow", 1, 2_000),
    Neighbour("five slow, 1,000 calls each", "slow", 5, 2_000, 1000),
    Neighbour("fails always", "broken", 1, 2_000),
    Neighbour("missing", "missing", 1, 2_000),
    Neighbour("backlog of 50,000", "busy", 1, 50_000),
)


def _trigger(name: str, kind: str, function: str, parallelism: int = 32) -> Trigger:
    spec = TriggerSpec(
        filters=(Filter(exact={"type": kind}),),
        subscriber=Subscriber(function=function),
        parallelism=parallelism,
    )
    return Trigger(metadata=Metadata(name=name), spec=spec)


@asynccontextmanager
async def _nats() -> AsyncIterator[NatsServer]:
    with tempfile.TemporaryDirectory() as folder:
        server = NatsServer(Path(folder), sync="interval")
        await server.start()
        try:
            yield server
        finally:
            await server.close()


async def _run(nats: NatsServer, *arguments: object) -> None:
    """Have the producer do something, and wait for it."""
    given = (sys.executable, "-m", "benchmarks.isolation.producer", nats.url, nats.token)
    process = await asyncio.create_subprocess_exec(*given, *map(str, arguments))
    if await process.wait():
        raise RuntimeError("the producer failed")


async def _case(gateway: Endpoint, neighbour: Neighbour, rate: float, seconds: float) -> dict[str, float]:
    """What the fast trigger gets beside ``neighbour``."""
    clock = SystemClock()
    async with _nats() as nats:
        log = await JetStreamLog.connect(nats.url, token=nats.token, clock=clock)
        service = Service(log, clock)
        others = tuple(
            _trigger(f"other-{number}", "other", neighbour.function, neighbour.parallelism)
            for number in range(neighbour.triggers)
        )
        declaration = Declaration(triggers=(_trigger("fast", "fast", "fast"), *others), gateway=str(gateway))
        await service.declare(declaration)
        await _run(nats, "fill", neighbour.events)
        await clock.sleep(WARM_SECONDS)
        asking = Client()
        await asking.request(gateway, b"GET", b"/", b"", b"", timeout_seconds=30.0)
        processor = time.process_time()
        await _run(nats, "send", rate, seconds)
        await clock.sleep(LATE_SECONDS)
        processor = time.process_time() - processor
        told = await asking.request(gateway, b"GET", b"/", b"", b"", timeout_seconds=30.0)
        taken = sorted(json.loads(told.body))
        await asking.close()
        await service.close(0.0)
    sent = int(rate * seconds)
    # What never came counts as if it had taken all of the time.
    all_taken = taken + [seconds + LATE_SECONDS] * (sent - len(taken))
    return {
        "share": len(taken) / sent,
        "p50_ms": all_taken[sent // 2] * 1000,
        "p99_ms": all_taken[sent * 99 // 100] * 1000,
        "cpu": processor / seconds,
    }


async def _measure(rounds: int, rate: float, seconds: float) -> dict[str, dict[str, float]]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=16_384)
    process = multiprocessing.get_context("fork").Process(target=serve, args=(listener,), daemon=True)
    process.start()
    gateway = Endpoint(*listener.getsockname()[:2])
    found: dict[str, list[dict[str, float]]] = {one.name: [] for one in NEIGHBOURS}
    try:
        for _ in range(rounds):
            for neighbour in NEIGHBOURS:
                one = await _case(gateway, neighbour, rate, seconds)
                print(neighbour.name, {name: round(value, 3) for name, value in one.items()}, file=sys.stderr)
                found[neighbour.name].append(one)
    finally:
        process.terminate()
    return {
        name: {field: statistics.median(one[field] for one in some) for field in some[0]}
        for name, some in found.items()
    }


def _show(result: dict[str, dict[str, float]]) -> None:
    alone = result["alone"]
    print(f"{'beside':<30}{'delivered':>10}{'p50':>10}{'of alone':>10}{'p99':>10}{'of alone':>10}")
    for name, one in result.items():
        print(
            f"{name:<30}{one['share']:>10.1%}{one['p50_ms']:>7.1f} ms{one['p50_ms'] / alone['p50_ms']:>10.2f}"
            f"{one['p99_ms']:>7.1f} ms{one['p99_ms'] / alone['p99_ms']:>10.2f}"
        )


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=50.0, help="events a second for the fast trigger")
    parser.add_argument("--seconds", type=float, default=5.0)
    chosen = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    result = uvloop.run(_measure(chosen.rounds, chosen.rate, chosen.seconds))
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    _show(result)
    alone = result["alone"]["share"]
    return 0 if all(one["share"] >= LEAST_SHARE * alone for one in result.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
