"""Processes that share a consumer of a real Kafka are killed, stopped and replaced: nothing is lost."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING

import orjson

from tests.integration.events.process import PATIENCE_SECONDS, Kafka
from torpor.children import tied
from torpor.clock import SystemClock
from torpor.events.brokers import connect
from torpor.events.log import ConsumerSpec, StreamSpec
from torpor.testing.contracts.rig import record

if TYPE_CHECKING:
    from torpor.events.brokers import Broker
    from torpor.events.kafka_server import KafkaServer
    from torpor.events.log import EventLog

STREAM = "broker.kafka.killed"
SPEC = ConsumerSpec(STREAM, "trigger.kafka.killed", ack_wait_seconds=2.0)
PROCESSES, RECORDS, AT_ONCE = 3, 6000, 5
DISTURBANCES = ("kill", "stop", "kill at its begin") * 3
PHASE = RECORDS // (len(DISTURBANCES) + 1)


class _Taken:
    """Which attempts at which records all processes have said to have had."""

    def __init__(self) -> None:
        self.attempts: Counter[tuple[str, int]] = Counter()
        self.ids: set[str] = set()
        self._more = asyncio.Condition()

    async def add(self, event_id: str, attempt: int) -> None:
        async with self._more:
            self.attempts[event_id, attempt] += 1
            self.ids.add(event_id)
            self._more.notify_all()

    async def until(self, count: int) -> None:
        """Return when so many records were had."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._more:
            await self._more.wait_for(lambda: len(self.ids) >= count)


class _Taker:
    """A process, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process, taken: _Taken) -> None:
        self._process = process
        self._ready = asyncio.Event()
        self._listening = asyncio.create_task(self._listen(taken))

    @classmethod
    async def start(cls, broker: Broker, taken: _Taken) -> _Taker:
        process = await asyncio.create_subprocess_exec(
            *tied(sys.executable, "-m", "tests.integration.events.taker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        given = {
            "url": broker.url,
            "token": broker.token,
            "options": dict(broker.options),
            "stream": STREAM,
            "consumer": SPEC.name,
        }
        assert process.stdin is not None
        process.stdin.write(orjson.dumps(given) + b"\n")
        return cls(process, taken)

    async def _listen(self, taken: _Taken) -> None:
        assert self._process.stdout is not None
        while line := (await self._process.stdout.readline()).decode():
            if line == "ready\n":
                self._ready.set()
            else:
                event_id, attempt = line.split()
                await taken.add(event_id, int(attempt))

    async def ready(self) -> None:
        """Return once it reads."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._ready.wait()

    async def end(self, number: signal.Signals) -> int:
        """End it by that signal; returns how it ended once all that it said was heard."""
        if self._process.returncode is None:
            self._process.send_signal(number)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._listening
            return await self._process.wait()


class _Takers:
    """The processes that are there; chance says which one is disturbed, the same in every run."""

    def __init__(self, broker: Broker, taken: _Taken) -> None:
        self._broker = broker
        self._taken = taken
        self._there: list[_Taker] = []
        self._chance = random.Random(7)

    async def add(self) -> None:
        taker = await _Taker.start(self._broker, self._taken)
        self._there.append(taker)
        await taker.ready()

    async def disturb(self, how: str) -> None:
        if how == "kill at its begin":
            await self.add()
            await self._kill(self._there[-1])
            return
        chosen = self._chance.choice(self._there)
        if how == "kill":
            await self._kill(chosen)
        else:
            await self._stop(chosen)
        await self.add()

    async def _kill(self, taker: _Taker) -> None:
        self._there.remove(taker)
        assert await taker.end(signal.SIGKILL) == -signal.SIGKILL

    async def _stop(self, taker: _Taker) -> None:
        self._there.remove(taker)
        assert await taker.end(signal.SIGTERM) == 0

    async def stop_all(self) -> None:
        for taker in list(self._there):
            await self._stop(taker)

    async def close(self) -> None:
        for taker in self._there:
            await taker.end(signal.SIGKILL)


def test_nothing_is_lost_however_processes_end(kafka: KafkaServer) -> None:
    async def run() -> None:
        broker, taken = Kafka(kafka).broker, _Taken()
        log = await connect(broker, SystemClock())
        await log.ensure_stream(StreamSpec(STREAM))
        await (await log.consumer(SPEC)).close()
        takers = _Takers(broker, taken)
        try:
            for _ in range(PROCESSES):
                await takers.add()
            await _append(log, range(PHASE))
            for number, how in enumerate(DISTURBANCES, start=1):
                appending = asyncio.create_task(_append(log, range(number * PHASE, (number + 1) * PHASE)))
                await taken.until(number * PHASE + PHASE // 3)  # while more comes
                await takers.disturb(how)
                await appending
            await takers.stop_all()
        finally:
            await takers.close()
        await _finish(log, taken)
        assert taken.ids == {str(number) for number in range(RECORDS)}
        assert set(taken.attempts.values()) == {1}  # no two had the same attempt
        await log.remove_stream(STREAM)
        await log.close()

    asyncio.run(run())


async def _append(log: EventLog, numbers: range) -> None:
    """Each of a few a message, so that who starts has many to read."""
    for start in numbers[::AT_ONCE]:
        records = [record(str(number)) for number in range(start, start + AT_ONCE)]
        assert await log.append(STREAM, records) == [True] * AT_ONCE


async def _finish(log: EventLog, taken: _Taken) -> None:
    """Take what those that are gone have left, until nothing is pending."""
    consumer = await log.consumer(SPEC, keep=True)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await consumer.outstanding() or await consumer.pending():
            for delivery in await consumer.fetch(100):
                await taken.add(delivery.record.event.id, delivery.attempt)
                await delivery.ack()
    await consumer.close()
