"""The brokers' own clients, and the event logs beside them: appending and delivering, without HTTP.

Records of 1 KiB are appended singly, with a number of them under way, as an ingress does; then they are
delivered and acknowledged singly, as to a dispatcher whose functions take no time. The own client publishes
durably in the same way, and takes messages with acknowledgements (NATS: pull and ack; Kafka: poll and a
commit of each batch, which is less: no single one can be put off).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from nats.aio.client import Client

from torpor.binding import WireEvent
from torpor.clock import SystemClock
from torpor.events.brokers import Broker, connect
from torpor.events.log import ConsumerSpec, Record, StreamSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.events.processes import Gate

DATA = b'{"x": "' + b"x" * 1000 + b'"}'
UNDER_WAY = 256


@dataclass(frozen=True)
class Measured:
    """One run: how many a second, and processor time of the process in microseconds each."""

    per_second: float
    cpu_micros: float


def event(number: int) -> WireEvent:
    """The event that all parts are measured with."""
    attributes = {"specversion": "1.0", "id": str(number), "source": "/bench", "type": "bench.made"}
    return WireEvent({**attributes, "datacontenttype": "application/json"}, DATA)


async def measured(count: int, work: Callable[[], Awaitable[None]]) -> Measured:
    """``work``, which handles ``count`` records."""
    wall, cpu = time.perf_counter(), time.process_time()
    await work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Measured(count / wall, cpu / count * 1e6)


async def through_log(_: Gate, broker: Broker, count: int) -> tuple[Measured, Measured]:
    """Append and deliver by a log."""
    log = await connect(broker, SystemClock())
    stream = f"broker.bench.{uuid.uuid4().hex[:8]}"
    await log.ensure_stream(StreamSpec(stream))
    consumer = await log.consumer(ConsumerSpec(stream, "trigger.bench", max_in_flight=10_000))
    numbers = iter(range(count))

    async def append() -> None:
        for number in numbers:
            await log.append(stream, [Record("bench", uuid.uuid4().hex, event(number))])

    async def deliver() -> None:
        taken = 0
        while taken < count:
            for delivery in await consumer.fetch(UNDER_WAY):
                taken += 1
                await delivery.ack()

    appended = await measured(count, lambda: _all(append() for _ in range(UNDER_WAY)))
    delivered = await measured(count, deliver)
    await log.remove_stream(stream)
    await log.close()
    return appended, delivered


async def own(_: Gate, broker: Broker, count: int) -> tuple[Measured, Measured]:
    """The same by the broker's own client."""
    through = _through_kafka if broker.scheme == "kafka" else _through_nats
    return await through(broker, count)


async def _all(works: Any) -> None:
    await asyncio.gather(*works)


async def _through_nats(broker: Broker, count: int) -> tuple[Measured, Measured]:
    client = Client()
    await client.connect(broker.url, token=broker.token)
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


async def _through_kafka(broker: Broker, count: int) -> tuple[Measured, Measured]:
    servers = broker.url.removeprefix("kafka://")
    common: dict[str, Any] = {"bootstrap.servers": servers, **broker.options}
    name = uuid.uuid4().hex[:8]
    admin = AdminClient(common)
    admin.create_topics([NewTopic(name, 1, 1)])[name].result()
    producer = Producer({**common, "enable.idempotence": True, "linger.ms": 1})
    producer.list_topics(name)
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
    admin.delete_topics([name])[name].result()
    return appended, delivered
