"""What is measured: the events process on a broker of its own, and how to fill that and look at both."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from tests.integration.events.process import EventsProcess, Kafka, Server, nats_in
from torpor.clock import SystemClock
from torpor.errors import TorporError
from torpor.events import names
from torpor.events.brokers import connect
from torpor.events.declaration import Declaration
from torpor.events.intake import append_events
from torpor.events.kafka_server import KafkaServer, install
from torpor.settings import PlatformSettings
from torpor.spec.models import Delivery, Filter, Join, Metadata, Subscriber, Trigger, TriggerSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from benchmarks.scale.functions import Functions
    from torpor.binding import WireEvent
    from torpor.events.log import EventLog

BROKER = "default/default"
_AT_ONCE = 1000
_LOOK_SECONDS = 0.02


def trigger(name: str, function: str, join: Join | None = None, *, parallelism: int = 32) -> Trigger:
    """A trigger for the events of the type that is its name."""
    return Trigger(
        metadata=Metadata(name=name.replace(".", "-")),
        spec=TriggerSpec(
            filters=(Filter(exact={"type": name}),),
            subscriber=Subscriber(function=function),
            delivery=Delivery(timeout_seconds=3600.0),
            parallelism=parallelism,
            join=join,
        ),
    )


class Rig:
    """The events process, its broker, and functions."""

    def __init__(self, folder: Path, server: Server, log: EventLog, functions: Functions) -> None:
        self._server, self.log, self.functions = server, log, functions
        self.events = EventsProcess(folder, server)

    async def start(self, *triggers: Trigger) -> float:
        """Start the process and tell it what there is to do; when that was begun, since the epoch."""
        began = time.time()
        await self.events.start()
        await self.declare(*triggers)
        return began

    async def declare(self, *triggers: Trigger) -> None:
        """Tell the process what there is to do, as often as it takes."""
        gateway = str(self.functions.endpoint)
        declaration = Declaration(triggers=triggers, brokers=(BROKER,), gateway=gateway)
        while True:
            try:
                await self.events.client.declare(declaration)
            except (TorporError, httpx.HTTPError) as error:
                print("declared again:", error)
            else:
                return

    async def kill(self) -> None:
        """End the process in the middle of what it does."""
        await self.events.kill()

    def rss_mib(self) -> float:
        """What the process holds in memory."""
        return self._status("VmRSS:")

    def peak_mib(self) -> float:
        """The most that it held."""
        return self._status("VmHWM:")

    def broker_mib(self) -> float:
        """What the broker holds in memory."""
        return _status(self._server.pid, "VmRSS:")

    def cpu_seconds(self) -> float:
        """What the process has used of processors."""
        process = self.events.process
        fields = Path(f"/proc/{process.pid if process else 0}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _status(self, field: str) -> float:
        process = self.events.process
        return _status(process.pid if process is not None else None, field)

    async def publish(self, events: Iterable[WireEvent]) -> None:
        """Put events into the broker, past the ingress."""
        some: list[WireEvent] = []
        for event in events:
            some.append(event)
            if len(some) == _AT_ONCE:
                await append_events(self.log, BROKER, some)
                some = []
        if some:
            await append_events(self.log, BROKER, some)

    async def pending(self, name: str) -> int:
        """What waits at a trigger, as the process says."""
        report = (await self.events.client.state()).triggers.get(f"default/{name}")
        return report.pending if report is not None else -1

    async def until_pending(self, name: str, wanted: int, *, pause_seconds: float = 0.25) -> float:
        """When as much waits at a trigger."""
        while True:
            with suppress(TorporError, httpx.HTTPError):
                if await self.pending(name) == wanted:
                    return time.time()
            await asyncio.sleep(pause_seconds)

    async def until_calls(self, wanted: int) -> float:
        """When functions have been called so often."""
        while self.functions.calls < wanted:
            await asyncio.sleep(_LOOK_SECONDS)
        return time.time()

    async def count(self, stream: str, key: str) -> tuple[int, int]:
        """How many records are below a key, and how many different events."""
        found, ids = 0, set()
        async for stored in self.log.read(stream, key):
            found += 1
            ids.add(stored.event.id)
        return found, len(ids)

    async def results(self, event_type: str) -> tuple[int, int]:
        """How many events of a type there are, and how many different ones."""
        return await self.count(names.broker_stream(BROKER), names.token(event_type))

    async def dead(self) -> tuple[int, int]:
        """How many dead letters there are, and how many different ones."""
        return await self.count(names.dead_stream(BROKER), ">")


def _status(pid: int | None, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


@asynccontextmanager
async def _server(kind: str, folder: Path, sync: Any) -> AsyncIterator[Server]:
    if kind == "jetstream":
        async with nats_in(folder, sync=sync) as nats:
            yield nats
        return
    libraries = await install(PlatformSettings.from_environment().cache_dir)
    kafka = KafkaServer(folder / "kafka", libraries, sync=sync)
    await kafka.start()
    try:
        yield Kafka(kafka)
    finally:
        await kafka.close()


@asynccontextmanager
async def rig(kind: str, folder: Path, sync: str, functions: Functions) -> AsyncIterator[Rig]:
    """Everything, on an empty broker."""
    async with _server(kind, folder, sync) as server:
        log = await connect(server.broker, SystemClock())
        it = Rig(folder, server, log, functions)
        try:
            yield it
        finally:
            await it.events.close()
            await log.close()
