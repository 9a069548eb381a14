"""``python -m benchmarks.events``: what the event logs append and deliver, beside the brokers' own clients.

In one run, one after the other, each several times and the best counts: records of 1 KiB are appended singly,
with a number of them under way, as an ingress does; then they are delivered and acknowledged singly, as to a
dispatcher whose functions take no time. The own client publishes durably in the same way, and takes messages
with acknowledgements (NATS: pull and ack; Kafka: poll and a commit of each batch, which is less: no single
one can be put off). CPU is that of the process, without the broker.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from nats.aio.client import Client

from torpor.binding import WireEvent
from torpor.clock import SystemClock
from torpor.events.brokers import Broker, connect
from torpor.events.kafka_server import KafkaServer, install
from torpor.events.log import ConsumerSpec, EventLog, Record, StreamSpec
from torpor.events.nats_server import NatsServer
from torpor.settings import PlatformSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

DATA = b'{"x": "' + b"x" * 1000 + b'"}'
UNDER_WAY = 256


@dataclass(frozen=True)
class Measured:
    """One run: how many a second, and CPU in microseconds each."""

    per_second: float
    cpu_micros: float


async def measured(count: int, work: Callable[[], Awaitable[None]]) -> Measured:
    """``work``, which handles ``count`` records."""
    wall, cpu = time.perf_counter(), time.process_time()
    await work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Measured(count / wall, cpu / count * 1e6)


def _record(number: int) -> Record:
    attributes = {"specversion": "1.0", "id": str(number), "source": "/bench", "type": "bench"}
    return Record(
        "bench", uuid.uuid4().hex, WireEvent({**attributes, "datacontenttype": "application/json"}, DATA)
    )


async def through_log(log: EventLog, count: int) -> tuple[Measured, Measured]:
    """Append and deliver by a log."""
    stream = f"broker.bench.{uuid.uuid4().hex[:8]}"
    await log.ensure_stream(StreamSpec(stream))
    consumer = await log.consumer(ConsumerSpec(stream, "trigger.bench", max_in_flight=10_000))
    numbers = iter(range(count))

    async def append() -> None:
        for number in numbers:
            await log.append(stream, [_record(number)])

    async def deliver() -> None:
        taken = 0
        while taken < count:
            for delivery in await consumer.fetch(UNDER_WAY):
                taken += 1
                await delivery.ack()

    appended = await measured(count, lambda: _all(append() for _ in range(UNDER_WAY)))
    delivered = await measured(count, deliver)
    await log.remove_stream(stream)
    return appended, delivered


async def _all(works: Any) -> None:
    await asyncio.gather(*works)


async def through_nats(server: NatsServer, count: int) -> tuple[Measured, Measured]:
    """The same by nats-py."""
    client = Client()
    await client.connect(server.url, token=server.token)
    jetstream = client.jetstream()
    name = uuid.uuid4().hex[:8]
    await jetstream.add_stream(name=name, subjects=[f"{name}.>"])
    subscription = await jetstream.pull_subscribe(f"{name}.>", durable="bench")
    numbers = iter(range(count))

    async def publish() -> None:
        for _ in numbers:
            await jetstream.publish(f"{name}.bench", DATA)

    async def take() -> None:
        taken = 0
        while taken < count:
            for message in await subscription.fetch(UNDER_WAY, timeout=5):
                taken += 1
                await message.ack()

    appended = await measured(count, lambda: _all(publish() for _ in range(UNDER_WAY)))
    delivered = await measured(count, take)
    await jetstream.delete_stream(name)
    await client.close()
    return appended, delivered


async def through_kafka(server: KafkaServer, count: int) -> tuple[Measured, Measured]:
    """The same by confluent-kafka."""
    common: dict[str, Any] = {"bootstrap.servers": server.servers, **server.options}
    name = uuid.uuid4().hex[:8]
    admin = AdminClient(common)
    admin.create_topics([NewTopic(name, 1, 1)])[name].result()
    producer = Producer({**common, "enable.idempotence": True, "linger.ms": 1})
    consumer = Consumer({**common, "group.id": name, "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(name, 0, 0)])

    def publish() -> None:
        under_way = 0

        def reported(*_: object) -> None:
            nonlocal under_way
            under_way -= 1

        for _ in range(count):
            while under_way >= UNDER_WAY:
                producer.poll(0.1)
            under_way += 1
            producer.produce(name, DATA, on_delivery=reported)
        producer.flush()

    def take() -> None:
        taken = 0
        while taken < count:
            messages = [one for one in consumer.consume(UNDER_WAY, 0.5) if one.error() is None]
            taken += len(messages)
            if messages:
                consumer.commit(asynchronous=True)

    appended = await measured(count, lambda: asyncio.to_thread(publish))
    delivered = await measured(count, lambda: asyncio.to_thread(take))
    consumer.close()
    return appended, delivered


@asynccontextmanager
async def _servers(folder: Path) -> AsyncIterator[tuple[NatsServer, KafkaServer]]:
    nats = NatsServer(folder / "nats", sync="interval")
    libraries = await install(PlatformSettings.from_environment().cache_dir)
    kafka = KafkaServer(folder / "kafka", libraries, sync="interval")
    await nats.start()
    try:
        await kafka.start()
        try:
            yield nats, kafka
        finally:
            await kafka.close()
    finally:
        await nats.close()


def _best(runs: list[tuple[Measured, Measured]]) -> tuple[Measured, Measured]:
    appended, delivered = zip(*runs, strict=True)
    return (
        max(appended, key=lambda run: run.per_second),
        max(delivered, key=lambda run: run.per_second),
    )


def _show(name: str, own: tuple[Measured, Measured], log: tuple[Measured, Measured]) -> None:
    for what, theirs, ours in zip(("append", "deliver"), own, log, strict=True):
        share = ours.per_second / theirs.per_second
        print(
            f"{name:<10}{what:<9}{theirs.per_second:>10.0f}/s {theirs.cpu_micros:>6.0f} µs"
            f"{ours.per_second:>10.0f}/s {ours.cpu_micros:>6.0f} µs   {share:.2f}"
        )


async def _main(count: int, rounds: int) -> None:
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as folder:
        async with _servers(Path(folder)) as (nats, kafka):
            places = (
                ("JetStream", nats, through_nats, Broker(nats.url, nats.token)),
                ("Kafka", kafka, through_kafka, Broker(f"kafka://{kafka.servers}", options=kafka.options)),
            )
            print(f"{'':<19}{'own client':>22}{'Torpor':>22}   share")
            for name, server, own, broker in places:
                log = await connect(broker, clock)
                theirs, ours = [], []
                for _ in range(rounds):
                    theirs.append(await own(server, count))  # type: ignore[arg-type]
                    ours.append(await through_log(log, count))
                await log.close()
                _show(name, _best(theirs), _best(ours))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Event logs beside their brokers' own clients.")
    parser.add_argument("--count", type=int, default=10_000, help="records of each run")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    asyncio.run(_main(given.count, given.rounds))
