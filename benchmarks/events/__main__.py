"""``python -m benchmarks.events``: how fast events are taken in and delivered, beside what they are made of.

In one run, by turns, in several rounds, of which the medians count. A share is the median of the rounds' own
ones, since a machine that others use as well may change its speed by half within minutes:

- *delivery*: a dispatcher process with delivery records, beside its own HTTP client by itself, on the same
  messages to the same function (bare ASGI, in a process of its own), which answers nothing or one event; then
  two dispatchers, which share the trigger.
- *ingress*: events over HTTP, singly (256 requests under way) and in batches of 100 (16 under way), beside
  the broker's own client, which publishes the same data durably with 256 under way. Kafka's sends them in
  batches, however it is called: singly nothing is asked there.
- *log*: records appended and delivered by the event log, beside the broker's own client, without HTTP.

Where a dispatcher's processor time goes is sampled in a run of its own. Written to
``build/bench/events.json``; the exit status is 1 when a goal is missed. Of two dispatchers nothing is asked
with less than :data:`CORES_FOR_TWO` cores: they, the function, the broker and its clients share them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.events.clients import Measured, own, through_log
from benchmarks.events.dispatching import Run, alone, dispatch, empty, fill, serve, together
from benchmarks.events.processes import Worker, working
from benchmarks.events.taking_in import produce, take_in
from torpor.endpoint import Endpoint
from torpor.events.brokers import Broker
from torpor.events.kafka_server import KafkaServer, install
from torpor.events.nats_server import NatsServer
from torpor.settings import PlatformSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

RESULT = Path(__file__).resolve().parents[2] / "build" / "bench" / "events.json"
CORES_FOR_TWO = 6
BATCH = 100
GOALS = {"delivery": 0.4, "ingress": 0.5, "two dispatchers": 1.6}
_BROKERS = ("jetstream", "kafka")


@dataclass(frozen=True)
class Compared:
    """What was measured of one broker, beside what; a rate is events a second."""

    broker: str
    what: str
    beside: str
    theirs: Measured
    ours: Measured
    shares: list[float]
    goal: float | None = None
    parts_micros: dict[str, float] = field(default_factory=dict)
    rss_mib: list[float] = field(default_factory=list)
    start_seconds: float | None = None
    """From when a dispatcher is told of its trigger to the first delivery."""

    @property
    def share(self) -> float:
        """Ours of theirs: the middle one of ``shares``, those of the rounds."""
        return statistics.median(self.shares)

    @property
    def holds(self) -> bool:
        """Whether the goal, if there is one, is reached."""
        return self.goal is None or self.share >= self.goal


class Bench:
    """All measurements of one broker."""

    def __init__(self, name: str, broker: Broker, rounds: int, events: int) -> None:
        self._name = name
        self._broker = broker
        self._rounds = rounds
        self._events = events
        self._runs = 0

    def _key(self) -> str:
        self._runs += 1
        return f"bench/{self._name}-{self._runs}"

    async def log(self) -> list[Compared]:
        """The event log beside the broker's own client."""
        theirs, ours = [], []
        for _ in range(self._rounds):
            theirs.append(await self._in_process(own, self._broker, self._events))
            ours.append(await self._in_process(through_log, self._broker, self._events))
        return [
            self._compared(f"log, {what}", "own client", its, own_)
            for what, its, own_ in zip(
                ("append", "deliver"), zip(*theirs, strict=True), zip(*ours, strict=True), strict=True
            )
        ]

    async def ingress(self) -> list[Compared]:
        """The ingress beside the broker's own client."""
        theirs, singly, batches = [], [], []
        for _ in range(self._rounds):
            theirs.append((await self._in_process(own, self._broker, self._events))[0])
            singly.append(await self._take_in(self._key(), 1))
            batches.append(await self._take_in(self._key(), BATCH))
        return [
            self._compared(what, "own client", theirs, ours, goal)
            for what, ours, goal in (
                ("ingress", singly, None if self._name == "kafka" else GOALS["ingress"]),
                (f"ingress, batches of {BATCH}", batches, GOALS["ingress"]),
            )
        ]

    async def delivery(self, *, answers: bool) -> list[Compared]:
        """One dispatcher beside its HTTP client, and two beside one."""
        what = "delivery with a reply" if answers else "delivery"
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        gateway = Endpoint(*listener.getsockname()[:2])
        theirs, one, two = [], [], []
        async with working(serve, listener, answers) as function:
            await function.hear()
            for _ in range(self._rounds):
                theirs.append(_measured([await self._in_process(alone, gateway, self._events)]))
                one.append(await self._dispatch(gateway, 1))
                two.append(await self._dispatch(gateway, 2))
            sampled = (await self._dispatch(gateway, 1, sampled=True))[0]
        listener.close()
        handled = sampled.before + sampled.events
        parts = {part: seconds / handled * 1e6 for part, seconds in sampled.parts.items()}
        ones = [_measured(runs) for runs in one]
        rss = max((runs[0].rss_bytes for runs in one), key=len)
        start_seconds = statistics.median(runs[0].start_seconds for runs in one)
        enough = (os.cpu_count() or 1) >= CORES_FOR_TWO
        return [
            self._compared(
                what,
                "HTTP client alone",
                theirs,
                ones,
                None if answers else GOALS["delivery"],  # it stores no replies
                parts_micros=parts,
                rss_mib=[round(size / 1024**2, 1) for size in rss],
                start_seconds=start_seconds,
            ),
            self._compared(
                f"{what}, two dispatchers",
                "one dispatcher",
                ones,
                [_measured(runs) for runs in two],
                GOALS["two dispatchers"] if enough else None,
            ),
        ]

    async def _dispatch(self, gateway: Endpoint, dispatchers: int, *, sampled: bool = False) -> list[Run]:
        key = self._key()
        await self._in_process(fill, self._broker, key, self._events)
        async with AsyncExitStack() as stack:
            workers: list[Worker] = [
                await stack.enter_async_context(
                    working(dispatch, self._broker, key, gateway, self._events, sampled)
                )
                for _ in range(dispatchers)
            ]
            for worker in workers:
                await worker.hear()
            for worker in workers:
                worker.tell()
            runs: list[Run] = [await worker.hear() for worker in workers]
        await self._in_process(empty, self._broker, key)
        if (done := sum(run.before + run.events for run in runs)) < self._events:
            raise RuntimeError(f"{done} of {self._events} events were delivered")
        return runs

    async def _take_in(self, key: str, batch: int) -> Measured:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        endpoint = Endpoint(*listener.getsockname()[:2])
        async with (
            working(take_in, self._broker, key, listener) as ingress,
            working(produce, endpoint, key, self._events, batch) as producer,
        ):
            await ingress.hear()
            await producer.hear()
            ingress.tell()
            producer.tell()
            await ingress.hear()
            run = await producer.hear()
            ingress.tell()
            cpu_seconds = await ingress.hear()
        listener.close()
        await self._in_process(empty, self._broker, key)
        return Measured(run.events / (run.ended - run.began), cpu_seconds / run.events * 1e6)

    async def _in_process(self, work: Any, *arguments: object) -> Any:
        async with working(work, *arguments) as worker:
            return await worker.hear()

    def _compared(
        self,
        what: str,
        beside: str,
        theirs: Sequence[Measured],
        ours: Sequence[Measured],
        goal: float | None = None,
        **more: Any,
    ) -> Compared:
        shares = [our.per_second / their.per_second for our, their in zip(ours, theirs, strict=True)]
        found = Compared(self._name, what, beside, _median(theirs), _median(ours), shares, goal, **more)
        _show(found)
        return found


def _measured(runs: list[Run]) -> Measured:
    per_second, cpu_seconds = together(runs)
    return Measured(per_second, cpu_seconds * 1e6)


def _median(runs: Sequence[Measured]) -> Measured:
    return Measured(*map(statistics.median, zip(*map(astuple, runs), strict=True)))


def _show(one: Compared) -> None:
    goal = "" if one.goal is None else f" of {one.goal}{'' if one.holds else ', missed'}"
    print(
        f"{one.broker:<10}{one.what:<40}{one.ours.per_second:>8.0f}/s {one.ours.cpu_micros:>5.0f} µs"
        f"   {one.beside:<18}{one.theirs.per_second:>8.0f}/s {one.theirs.cpu_micros:>5.0f} µs   "
        f"{one.share:.2f}{goal} ({min(one.shares):.2f} to {max(one.shares):.2f})",
        flush=True,
    )
    if one.parts_micros:
        parts = sorted(one.parts_micros.items(), key=lambda item: -item[1])
        print("  µs: " + ", ".join(f"{part} {micros:.1f}" for part, micros in parts if micros >= 0.05))
    if one.start_seconds is not None:
        print(f"  first delivery after {one.start_seconds * 1000:.0f} ms")
    if one.rss_mib:
        print(f"  MiB over the run: {' '.join(f'{mib:.0f}' for mib in one.rss_mib)}", flush=True)


@asynccontextmanager
async def _broker(name: str, folder: Path, sync: Any) -> AsyncIterator[Broker]:
    if name == "jetstream":
        nats = NatsServer(folder / "nats", sync=sync)
        await nats.start()
        try:
            yield Broker(nats.url, nats.token)
        finally:
            await nats.close()
        return
    libraries = await install(PlatformSettings.from_environment().cache_dir)
    kafka = KafkaServer(folder / "kafka", libraries, sync=sync)
    await kafka.start()
    try:
        yield Broker(f"kafka://{kafka.servers}", options=kafka.options)
    finally:
        await kafka.close()


async def _measure(chosen: argparse.Namespace) -> list[Compared]:
    found: list[Compared] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen.brokers:
            async with _broker(name, Path(folder), chosen.sync) as broker:
                bench = Bench(name, broker, chosen.rounds, chosen.events)
                if "delivery" in chosen.parts:
                    found += await bench.delivery(answers=False)
                    found += await bench.delivery(answers=True)
                if "ingress" in chosen.parts:
                    found += await bench.ingress()
                if "log" in chosen.parts:
                    found += await bench.log()
    return found


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--events", type=int, default=20_000, help="events of each run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--brokers", nargs="+", choices=_BROKERS, default=_BROKERS)
    parser.add_argument(
        "--parts", nargs="+", choices=("delivery", "ingress", "log"), default=("delivery", "ingress", "log")
    )
    parser.add_argument(
        "--sync", choices=("always", "interval"), default="always", help="when the broker forces to the disk"
    )
    chosen = parser.parse_args()
    found = asyncio.run(_measure(chosen))
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "cores": os.cpu_count(),
        "events": chosen.events,
        "sync": chosen.sync,
        "compared": [{**asdict(each), "share": each.share, "holds": each.holds} for each in found],
    }
    RESULT.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    if (os.cpu_count() or 1) < CORES_FOR_TWO:
        print(f"of two dispatchers nothing is asked with {os.cpu_count()} cores, {CORES_FOR_TWO} are needed")
    return 0 if all(each.holds for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
