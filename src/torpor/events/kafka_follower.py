"""Follows partitions in a thread, and hands what comes to the event loop.

What is handed over is bounded: no more is read before the loop has taken in the last batch, of which it takes
in little at once, so that others have their turns between.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException, TopicPartition

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from confluent_kafka import Consumer, Message

_WAIT_SECONDS = 0.02  # how long a change of what is followed waits
_ATTEMPT_SECONDS = 2.0  # who asks for a partition that is not known yet is not told once it is
_AT_ONCE = 1000
_TURN_BYTES = 64 * 1024  # what takes a few milliseconds to take in
_MESSAGE_BYTES = 256  # what a message takes beside its value


class Follower:
    """One client's consumer and its thread, which closes it in the end."""

    def __init__(self, consumer: Consumer, loop: asyncio.AbstractEventLoop) -> None:
        self._consumer = consumer
        self._loop = loop
        self._sinks: dict[tuple[str, int], Callable[[list[Message]], None]] = {}
        self._orders: deque[Callable[[], None]] = deque()
        self._taken = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="torpor-kafka-follow", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def is_idle(self) -> bool:
        """Whether it follows nothing."""
        return not self._sinks

    @property
    def has_ended(self) -> bool:
        """Whether its thread has ended."""
        return self._ending.is_set() and not self._thread.is_alive()

    def follow(self, topic: str, partition: int, start: int, take: Callable[[list[Message]], None]) -> None:
        """Have ``take`` called for all messages from the offset ``start`` on, errors among them."""
        self._sinks[topic, partition] = take
        self._orders.append(lambda: self._assign(TopicPartition(topic, partition, start)))

    def unfollow(self, topic: str, partition: int) -> None:
        """The contrary of :meth:`follow`, if that was called."""
        if self._sinks.pop((topic, partition), None) is not None:
            place = TopicPartition(topic, partition)
            self._orders.append(lambda: self._consumer.incremental_unassign([place]))

    def end(self) -> None:
        """Follow no more."""
        self._ending.set()
        self._taken.set()

    def join(self) -> None:
        """Return once it has ended. To be called in a thread."""
        self.end()
        if self._thread.ident is not None:
            self._thread.join()
        else:
            self._consumer.close()

    def _assign(self, place: TopicPartition) -> None:
        with contextlib.suppress(KafkaException):  # it is asked again, once a second
            self._consumer.list_topics(place.topic, timeout=_ATTEMPT_SECONDS)
        self._consumer.incremental_assign([place])

    def _run(self) -> None:
        while not self._ending.is_set():
            # In this thread alone, since a poll keeps others waiting for as long as it has nothing.
            while self._orders:
                with contextlib.suppress(KafkaException):
                    self._orders.popleft()()
            first = self._consumer.poll(_WAIT_SECONDS)
            if first is None:
                continue
            batch = deque([first, *self._consumer.consume(_AT_ONCE, 0)])
            self._taken.clear()
            self._loop.call_soon_threadsafe(self._take, batch)
            self._taken.wait()
        self._consumer.close()

    def _take(self, batch: deque[Message]) -> None:
        left_bytes = _TURN_BYTES
        try:
            while batch and left_bytes > 0:
                place = _place(batch[0])
                messages: list[Message] = []
                while batch and left_bytes > 0 and _place(batch[0]) == place:
                    left_bytes -= _MESSAGE_BYTES + len(batch[0].value() or b"")
                    messages.append(batch.popleft())
                if (take := self._sinks.get(place)) is not None:
                    take(messages)
        finally:
            if batch:
                self._loop.call_soon(self._take, batch)
            else:
                self._taken.set()


def _place(message: Message) -> tuple[str, int]:
    return message.topic() or "", message.partition() or 0
