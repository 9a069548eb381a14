"""One partition as this process has read it: up to where, and when it is up to date."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError

from torpor.errors import EventLogError
from torpor.events.kafka_wire import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Message

    from torpor.events.kafka_wire import Wire

_MANY_MESSAGES = 64
_LOG = logging.getLogger("torpor.events")


class Followed:
    """Hands each message of a partition to ``take``, in order.

    ``fell`` is called when it can't go on: what it was to read next has been removed.
    """

    def __init__(
        self,
        wire: Wire,
        topic: str,
        partition: int,
        take: Callable[[Message], None],
        fell: Callable[[], None],
    ) -> None:
        self._wire = wire
        self._topic = topic
        self._partition = partition
        self._take_one = take
        self._fell = fell
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._asking: asyncio.Task[int] | None = None
        self._asking_next: asyncio.Task[int] | None = None
        self._ended: EventLogError | None = None
        self._beside = False
        self.end = 0
        """The offset that comes next."""
        self.first_new = 0
        """What was there when this began is below this offset."""

    async def begin(self, start: int = 0, *, beside: bool = True) -> None:
        """Begin at the offset ``start``, or at the first that is left.

        ``beside`` says that nothing else is to wait behind what is there already.
        """
        low = await self._wire.first(self._topic, self._partition)
        self.first_new = await self._wire.next(self._topic, self._partition)
        self.end = max(start, low)
        self._beside = beside and self.first_new - self.end > _MANY_MESSAGES
        self._wire.follow(self._topic, self._partition, self.end, self._take, beside=self._beside)

    async def open(self, start: int = 0) -> None:
        """Begin; returns when all there is was read."""
        await self.begin(start, beside=False)
        await self.reach(self.first_new)

    async def sync(self) -> int:
        """Read all that was written before this call; returns the offset that came next then."""
        high = await self.ask()
        await self.reach(high)
        return high

    async def ask(self) -> int:
        """The offset that comes next for the broker, whatever was read here."""
        # Those who come while a question is under way share the next one: it may have been answered already.
        if self._asking is None:
            self._asking = task = asyncio.create_task(self._ask(None))
        elif self._asking_next is None:
            self._asking_next = task = asyncio.create_task(self._ask(self._asking))
        else:
            task = self._asking_next
        return await asyncio.shield(task)

    async def _ask(self, before: asyncio.Task[int] | None) -> int:
        if before is not None:
            await asyncio.wait([before])
            self._asking, self._asking_next = self._asking_next, None
        try:
            return await self._wire.next(self._topic, self._partition)
        finally:
            if self._asking_next is None:
                self._asking = None

    async def reach(self, offset: int) -> None:
        """Read all below ``offset``, for as long as something comes."""
        if self._ended is not None:
            raise self._ended
        if self.end >= offset:
            return
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (offset, reached)
        self._waiting.append(entry)
        seen = -1
        try:
            while not reached.done():
                if self.end == seen:
                    raise EventLogError("Kafka can't be read: nothing came in time")
                seen = self.end
                await asyncio.wait([reached], timeout=PATIENCE_SECONDS)
            await reached
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)

    def close(self, error: EventLogError) -> None:
        """Read no more; who waits is told ``error``."""
        self._wire.unfollow(self._topic, self._partition)
        self._ended = error
        waiting, self._waiting = self._waiting, []
        for _, reached in waiting:
            if not reached.done():
                reached.set_exception(error)

    def _pass_on(self, message: Message, offset: int) -> None:
        """What can't be taken in ends this: what is known would be wrong from then on."""
        taken = False
        try:
            self._take_one(message)
            taken = True
        finally:
            if not taken:
                self._fell()
        self.end = offset + 1

    def _take(self, messages: list[Message]) -> None:
        for message in messages:
            error = message.error()
            if error is None:
                offset = message.offset() or 0
                if offset >= self.end:
                    self._pass_on(message, offset)
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001 - its name
                self._fell()
                return
            else:
                _LOG.debug("%s can't be read at the moment: %s", self._topic, error.str())
        if self._beside and self.end >= self.first_new:
            self._beside = False
            self._wire.unfollow(self._topic, self._partition)
            self._wire.follow(self._topic, self._partition, self.end, self._take)
        if self._waiting:
            for offset, reached in self._waiting:
                if offset <= self.end and not reached.done():
                    reached.set_result(None)
            self._waiting = [entry for entry in self._waiting if not entry[1].done()]
