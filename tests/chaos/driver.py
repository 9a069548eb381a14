"""Kills the platform's processes at random while it works, and counts what came of the work.

A platform is ``torpor up`` as a person starts it. Killed are, with SIGKILL: the broker, the events process,
Envoy, instances, and ``torpor up`` itself, which is the gateway's agent, the autoscaler and the provider.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import threading
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from tests.chaos.workload import Workload, declare, faults, workload
from torpor.api.client import Client
from torpor.clock import SystemClock
from torpor.endpoint import free_ports
from torpor.errors import TorporError
from torpor.events import names
from torpor.events.brokers import Broker, connect
from torpor.events.kafka_server import KafkaServer, install
from torpor.events.nats_server import NatsServer
from torpor.settings import PlatformSettings
from torpor.testing.running import Running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from torpor.binding import WireEvent

_BATCH = 100
_LOOK_SECONDS = 0.1
_PAUSES_SECONDS = (0.3, 2.0)
_DONE_SECONDS = 300.0
_START_SECONDS = {"nats": 60.0, "kafka": 120.0}
_MARKS = {"nats": "nats-server", "kafka": "kafka.Kafka", "events": "torpor.events", "envoy": "envoy"}
BROKERS = ("nats", "kafka")


@dataclass(slots=True)
class Outcome:
    """What one run came to."""

    seed: int
    events: int
    outcomes: int
    seconds: float = 0.0
    killed: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Chaos:
    """One run. ``kills`` is how many processes are killed while events are sent and worked on."""

    def __init__(self, folder: Path, *, seed: int, total: int, kills: int, broker: str = "nats") -> None:
        chance = random.Random(seed)
        self._folder = folder
        self._chance = chance
        self._kills = kills
        self._broker = broker
        self._victims = (broker, "events", "envoy", "instance", "platform")
        self._work: Workload = workload(total, chance)
        [self._port] = free_ports(1)
        self._platform = self._new_platform()
        self._sent = threading.Event()
        self.outcome = Outcome(seed, len(self._work.events), self._work.outcomes)

    def run(self) -> Outcome:
        """Do it, and say what came of it."""
        declare(self._folder)
        began = time.monotonic()
        self._platform.__enter__()
        try:
            sender = threading.Thread(target=self._send, name="producer", daemon=True)
            sender.start()
            for _ in range(self._kills):
                time.sleep(self._chance.uniform(*_PAUSES_SECONDS))
                self._kill(self._chance.choice(self._victims))
            self._until(self._sent.is_set, "all events were sent")
            self._until(self._is_done, "all work was done")
        finally:
            self._platform.stop()
        self.outcome.seconds = time.monotonic() - began
        stored, dead = asyncio.run(_stored(self._broker, self._folder / "data" / "events"))
        self.outcome.faults = list(faults(self._work, stored, dead))
        return self.outcome

    def _client(self) -> Client:
        """Of the platform, or of the one that is started in its place: the port is the same."""
        return Client(f"http://127.0.0.1:{self._port}")

    def _new_platform(self) -> Running:
        return Running(
            [self._folder / "functions.yaml"],
            self._folder,
            port=self._port,
            broker=self._broker,
            start_seconds=_START_SECONDS[self._broker],
        )

    # --- events -------------------------------------------------------------------------------------------

    def _send(self) -> None:
        """Send everything, each batch until it was taken."""
        events = self._work.events
        for start in range(0, len(events), _BATCH):
            while True:
                with contextlib.suppress(TorporError), self._client() as client:
                    client.send(events[start : start + _BATCH])
                    break
                time.sleep(_LOOK_SECONDS)
        self._sent.set()

    def _is_done(self) -> bool:
        try:
            with self._client() as client:
                return all(one.ready and not one.pending for one in client.triggers())
        except TorporError:
            return False

    @staticmethod
    def _until(holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _DONE_SECONDS
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {_DONE_SECONDS:g} s: {what}")
            time.sleep(_LOOK_SECONDS)

    # --- kills --------------------------------------------------------------------------------------------

    def _kill(self, victim: str) -> None:
        if victim == "platform":
            self._platform.stop(signal.SIGKILL)
            self._platform = self._new_platform()
            self._platform.__enter__()
            self.outcome.killed[victim] += 1
            return
        candidates = self._processes(victim)
        if candidates:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._chance.choice(candidates).kill()
                self.outcome.killed[victim] += 1

    def _processes(self, victim: str) -> list[psutil.Process]:
        if victim == "instance":
            with contextlib.suppress(TorporError), self._client() as client:
                pids = [one.pid for function in client.functions() for one in function.instances]
                return [psutil.Process(pid) for pid in pids if pid is not None and psutil.pid_exists(pid)]
            return []
        found = []
        for process in psutil.Process(self._platform.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if any(part.endswith(_MARKS[victim]) for part in process.cmdline()):
                    found.append(process)
        return found


async def _stored(broker: str, folder: Path) -> tuple[list[WireEvent], list[WireEvent]]:
    """What the broker holds at the end: its events, oldest first, and its dead letters."""
    async with _served(broker, folder) as there:
        log = await connect(there, SystemClock())
        try:
            streams = (names.broker_stream(names.DEFAULT_BROKER), names.dead_stream(names.DEFAULT_BROKER))
            stored, dead = [[one.event async for one in log.read(stream, ">")] for stream in streams]
        finally:
            await log.close()
    return stored, dead


@asynccontextmanager
async def _served(broker: str, folder: Path) -> AsyncIterator[Broker]:
    """The platform's broker with what it holds, without the platform."""
    server: NatsServer | KafkaServer
    if broker == "nats":
        server = NatsServer(folder / "nats")
        await server.start()
        there = Broker(server.url, server.token)
    else:
        server = KafkaServer(folder / "kafka", await install(PlatformSettings.from_environment().cache_dir))
        await server.start()
        there = Broker(f"kafka://{server.servers}", options=server.options)
    try:
        yield there
    finally:
        await server.close()
