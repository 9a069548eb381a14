"""The connections to Kafka: what is sent, what is followed, and the few calls beside.

librdkafka (confluent-kafka) works in threads of its own; a few more wait for it and hand over to the event
loop (:mod:`torpor.events.kafka_follower`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]

from torpor.errors import EventLogError, RecordTooLargeError
from torpor.events.kafka_codec import MAX_MESSAGE_BYTES
from torpor.events.kafka_follower import Follower
from torpor.transport.deadlines import Deadlines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from confluent_kafka import Message

    from torpor.clock import Clock
    from torpor.events.kafka_codec import Headers

T = TypeVar("T")
_LOG = logging.getLogger("torpor.events")
PATIENCE_SECONDS = 20.0
_SEND_MS = 300_000  # who waits for it gives up earlier; what ends a delivery is not lost with a short outage
_POLL_SECONDS = 0.2
_AT_ONCE = 1000
_FETCH_WAIT_MS = 50  # also how long a partition that is added waits for the fetch under way
_QUEUED_KBYTES = 16 * 1024
_PROBE_SECONDS = 0.5
_PROBE_TIMEOUT_SECONDS = 2.0
_THREADS = 8
_MAX_REPLICAS = 3
_PAUSE_SECONDS = 0.05
_ATTEMPT_SECONDS = 2.0  # who asks for a partition that is not known yet is not told once it is
_PASSING = frozenset(
    (
        KafkaError._NOENT,  # noqa: SLF001 - its name: there is no leader
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
    )
)
_QUIET = {
    "log_level": 2,  # what matters is said here
    "socket.keepalive.enable": True,
    "reconnect.backoff.max.ms": 1000,
    "topic.metadata.refresh.interval.ms": 60_000,
    "topic.metadata.refresh.fast.interval.ms": 50,
    "retry.backoff.ms": 50,
}


class Wire:
    """All connections of one log. To be made on the event loop that uses it."""

    def __init__(
        self, servers: str, options: Mapping[str, str], clock: Clock, patience_seconds: float
    ) -> None:
        self._common: dict[str, Any] = {
            **_QUIET,
            **options,
            "bootstrap.servers": servers,
            "error_cb": self._on_error,
        }
        self._clock = clock
        self._patience_seconds = patience_seconds
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(clock)
        self._pool = ThreadPoolExecutor(_THREADS, "torpor-kafka")
        self._producer = Producer(
            {
                **self._common,
                "enable.idempotence": True,  # and so acks=all
                "linger.ms": 2,  # with less there are so many small messages that they take all processors
                "message.max.bytes": MAX_MESSAGE_BYTES,
                "queue.buffering.max.kbytes": 64 * 1024,
                "delivery.report.only.error": True,
                "message.timeout.ms": _SEND_MS,
            }
        )
        self._follower = Follower(self._consumer(""), self._loop)
        self._beside: Follower | None = None
        self._ended: list[Follower] = []
        self._admin = AdminClient(self._common)
        self._ending = threading.Event()
        self._reporter = threading.Thread(target=self._report, name="torpor-kafka-report", daemon=True)
        self._listeners: set[Callable[[], None]] = set()
        self._probing: asyncio.Task[None] | None = None
        self._said = ""  # what the client said last of a connection
        self.connected = False
        """Whether the brokers were there when last heard of."""

    async def open(self) -> int:
        """Reach the brokers, and begin; how many there are. Raises :class:`~torpor.errors.EventLogError`."""
        self._reporter.start()
        self._follower.start()
        try:
            metadata = await self.call(lambda: self._admin.list_topics(timeout=self._patience_seconds))
        except EventLogError as error:
            raise EventLogError(f"{error}{self._said and f' ({self._said})'}") from error
        self.connected = True
        return len(metadata.brokers)

    async def close(self) -> None:
        """Send what is still to be sent, and let go."""
        if self._ending.is_set():
            return
        if self._probing is not None:
            self._probing.cancel()
        if self._reporter.ident is not None:
            await self._in_thread(lambda: self._producer.flush(2.0))
        self._ending.set()
        if self._reporter.ident is not None:
            await self._in_thread(self._reporter.join)
        for follower in (self._follower, *filter(None, [self._beside]), *self._ended):
            await self._in_thread(follower.join)
        await self._deadlines.close()
        self._pool.shutdown(wait=False)

    def on_reconnect(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` when the brokers are there again; what is returned ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    async def within_patience(self, future: asyncio.Future[T]) -> T:
        """What ``future`` has, unless that takes too long; what was sent may still take effect then.

        Raises :class:`~torpor.errors.EventLogError`.
        """
        if not future.done():
            waiter: asyncio.Future[None] = self._loop.create_future()

            def wake(_: object = None) -> None:
                if not waiter.done():
                    waiter.set_result(None)

            alarm = self._deadlines.after(self._patience_seconds, wake)
            future.add_done_callback(wake)
            try:
                await waiter
            finally:
                alarm.cancel()
                future.remove_done_callback(wake)
            if not future.done():
                raise EventLogError("Kafka did not take in time what was sent; it still may")
        return future.result()

    # --- sending --------------------------------------------------------------------------------------------

    def send(
        self,
        topic: str,
        partition: int,
        headers: Headers,
        value: bytes | None,
        *,
        key: str | None = None,
        failed: Callable[[EventLogError], None],
    ) -> None:
        """Send a message; those of a partition arrive in the order of the calls, or ``failed`` is told."""

        def reported(error: KafkaError | None, _: object) -> None:
            if error is not None:
                self._loop.call_soon_threadsafe(failed, mapped(error))

        try:
            self._producer.produce(
                topic, value=value, key=key, headers=[*headers], partition=partition, on_delivery=reported
            )
        except BufferError:
            failed(EventLogError("too much waits for Kafka"))
        except KafkaException as error:
            failed(mapped(error.args[0]))

    def _report(self) -> None:
        while not self._ending.is_set():
            self._producer.poll(_POLL_SECONDS)

    # --- following ------------------------------------------------------------------------------------------

    def follow(
        self,
        topic: str,
        partition: int,
        start: int,
        take: Callable[[list[Message]], None],
        *,
        beside: bool = False,
    ) -> None:
        """Have ``take`` called for all messages from the offset ``start`` on, errors among them.

        ``beside`` says that they are many: so that nothing else waits behind them, another client reads them.
        """
        if not beside:
            self._follower.follow(topic, partition, start, take)
            return
        if self._beside is None:
            self._ended = [each for each in self._ended if not each.has_ended]
            self._beside = Follower(self._consumer(""), self._loop)
            self._beside.start()
        self._beside.follow(topic, partition, start, take)

    async def prepare(self, topic: str) -> None:
        """Have the producer know a topic, which else waits for a second with what it is to send at first."""
        await self.call(lambda: self._producer.list_topics(topic, timeout=self._patience_seconds))

    def unfollow(self, topic: str, partition: int) -> None:
        """The contrary of :meth:`follow`."""
        self._follower.unfollow(topic, partition)
        if self._beside is not None:
            self._beside.unfollow(topic, partition)
            if self._beside.is_idle:
                self._beside.end()
                self._ended.append(self._beside)
                self._beside = None

    # --- calls ----------------------------------------------------------------------------------------------

    async def first(self, topic: str, partition: int) -> int:
        """The first offset that a partition has."""
        return await self._offset(topic, partition, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    async def next(self, topic: str, partition: int) -> int:
        """The offset that comes next."""
        return await self._offset(topic, partition, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    async def first_since(self, topic: str, partition: int, at: float) -> int:
        """The first offset that was stored at or after that time; the next one if there is none."""
        found = await self._offset(topic, partition, OffsetSpec.for_timestamp(int(at * 1000)))
        return found if found >= 0 else await self.next(topic, partition)

    async def _offset(self, topic: str, partition: int, spec: OffsetSpec) -> int:
        place = TopicPartition(topic, partition)
        deadline = self._clock.monotonic() + self._patience_seconds
        while True:
            try:
                answer = await self._admin_call(
                    lambda **given: self._admin.list_offsets({place: spec}, **given), _ATTEMPT_SECONDS
                )
            except EventLogError as error:
                # A topic that is new, or whose leader has changed, is not known everywhere at once.
                if _code(error) not in _PASSING or self._clock.monotonic() >= deadline:
                    raise
                await self._clock.sleep(_PAUSE_SECONDS)
                # Else the client asks whom it knows as the leader, until it looks for itself a minute later.
                with contextlib.suppress(EventLogError):
                    await self.call(lambda: self._admin.list_topics(topic, timeout=_ATTEMPT_SECONDS))
            else:
                return int(answer.offset)

    async def create(self, topic: str, partitions: int, brokers: int, config: Mapping[str, str]) -> None:
        """Have a topic."""
        replicas = min(brokers, _MAX_REPLICAS)
        durable = {"min.insync.replicas": str(max(1, replicas - 1)), **config}
        new = NewTopic(topic, num_partitions=partitions, replication_factor=replicas, config=durable)
        with _suppress(KafkaError.TOPIC_ALREADY_EXISTS):
            await self._admin_call(lambda **given: self._admin.create_topics([new], **given))

    async def delete(self, topic: str) -> None:
        """Delete a topic, if it is there."""
        with _suppress(KafkaError.UNKNOWN_TOPIC_OR_PART):
            await self._admin_call(lambda **given: self._admin.delete_topics([topic], **given))

    async def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Remove the messages below ``offset``."""
        place = TopicPartition(topic, partition, offset)
        await self._admin_call(lambda **given: self._admin.delete_records([place], **given))

    def reader(self, topic: str) -> Reader:
        """Reads single messages of a topic's first partition."""
        return Reader(self, topic, self._consumer(topic))

    def _consumer(self, name: str) -> Consumer:
        return Consumer(
            {
                **self._common,
                "group.id": f"torpor-{name or 'follower'}",  # asked for, but no group is joined
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": _FETCH_WAIT_MS,
                "fetch.error.backoff.ms": _FETCH_WAIT_MS,
                "fetch.queue.backoff.ms": _FETCH_WAIT_MS,
                "fetch.message.max.bytes": 4 * 1024 * 1024,
                "queued.max.messages.kbytes": _QUEUED_KBYTES,
                "enable.partition.eof": False,
            }
        )

    async def _admin_call(
        self, begin: Callable[..., Mapping[Any, Any]], timeout_seconds: float | None = None
    ) -> Any:
        """The answer to a request about one thing."""
        if self._ending.is_set():
            raise EventLogError("the connection to Kafka is closed")
        try:
            [future] = begin(request_timeout=timeout_seconds or self._patience_seconds).values()
            return await asyncio.wrap_future(future)
        except KafkaException as error:
            raise mapped(error.args[0]) from error

    async def call(self, work: Callable[[], T]) -> T:
        """``work`` in a thread. Raises :class:`~torpor.errors.EventLogError`."""
        if self._ending.is_set():
            raise EventLogError("the connection to Kafka is closed")
        try:
            return await self._in_thread(work)
        except KafkaException as error:
            raise mapped(error.args[0]) from error

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._pool, work)

    # --- the connection -------------------------------------------------------------------------------------

    def _on_error(self, error: KafkaError) -> None:
        """Called in any thread."""
        _LOG.debug("the connection to Kafka has trouble: %s", error.str())
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - its name
            self._said = error.str()
        elif not self._ending.is_set():
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._lost)

    def _lost(self) -> None:
        if self.connected and not self._ending.is_set():
            self.connected = False
            self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        while True:
            await self._clock.sleep(_PROBE_SECONDS)
            with contextlib.suppress(EventLogError):
                await self.call(lambda: self._admin.list_topics(timeout=_PROBE_TIMEOUT_SECONDS))
                break
        self.connected = True
        for listener in list(self._listeners):
            listener()


class Reader:
    """Reads messages of one partition by their offsets; cheap where they follow each other."""

    def __init__(self, wire: Wire, topic: str, consumer: Consumer) -> None:
        self._wire = wire
        self._topic = topic
        self._consumer = consumer
        self._position: int | None = None
        self._lock = asyncio.Lock()
        self._closed = False

    async def read(self, offsets: Iterable[int]) -> list[Message]:
        """The messages at ``offsets``, and some of those between; what is gone is left out."""
        # A thread that reads goes on when nobody waits for it any more: until then nobody else may read, or
        # each would take messages that the other is to find.
        reading = asyncio.create_task(self._read_alone(sorted(offsets)))
        reading.add_done_callback(_seen)
        return await asyncio.shield(reading)

    async def _read_alone(self, offsets: list[int]) -> list[Message]:
        async with self._lock:
            if self._closed:
                raise EventLogError("what was to be read is not followed any more")
            return await self._wire.call(lambda: self._read(offsets))

    async def close(self) -> None:
        """Let go."""
        async with self._lock:
            self._closed = True
            await self._wire.call(self._consumer.close)

    def _read(self, offsets: list[int]) -> list[Message]:
        found: dict[int, Message] = {}
        for offset in offsets:
            if offset in found:
                continue  # it came on the way
            at = self._position
            if at is None or not at <= offset < at + _AT_ONCE:
                self._consumer.assign([TopicPartition(self._topic, 0, offset)])
                self._position = offset
            self._read_to(offset, found)
        return list(found.values())

    def _read_to(self, offset: int, found: dict[int, Message]) -> None:
        left_seconds = PATIENCE_SECONDS
        while (at := self._position) is not None and at <= offset:
            message = self._consumer.poll(_POLL_SECONDS)
            if message is None:
                left_seconds -= _POLL_SECONDS
                if left_seconds <= 0:
                    raise EventLogError("Kafka did not give a record in time")
                continue
            self._take(message, found)
            if offset > at:
                for each in self._consumer.consume(offset - at, 0):
                    self._take(each, found)

    def _take(self, message: Message, found: dict[int, Message]) -> None:
        error = message.error()
        if error is None:
            offset = message.offset() or 0
            found[offset] = message
            self._position = offset + 1
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001 - its name
            self._position = None
            raise EventLogError("records were removed while they were read")


def _seen(reading: asyncio.Task[list[Message]]) -> None:
    if not reading.cancelled():
        reading.exception()  # who has gone away need not see it


@contextlib.contextmanager
def _suppress(code: int) -> Any:
    try:
        yield
    except EventLogError as error:
        if _code(error) != code:
            raise


def _code(error: EventLogError) -> int | None:
    cause = error.__cause__
    return cause.args[0].code() if isinstance(cause, KafkaException) else None


def mapped(error: KafkaError) -> EventLogError:
    """Kafka's error as Torpor's."""
    if error.code() in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE):
        return RecordTooLargeError(f"an append is larger than Kafka takes: {error.str()}")
    return EventLogError(f"Kafka: {error.str()}")
