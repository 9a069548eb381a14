"""What the cases of the event log's contract work with: a log, time that passes, and the usual steps."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Protocol, TypeVar

from torpor.binding import WireEvent
from torpor.clock import cancel
from torpor.events.log import ConsumerSpec, Record, StreamSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Sequence

    from torpor.events.log import Consumer, Delivery, EventLog, Stored

T = TypeVar("T")
_PATIENCE_SECONDS = 20.0
_TICK_SECONDS = 0.01
_STREAMS = itertools.count(1)


class Time(Protocol):
    """How time passes for the log that is tested."""

    def now(self) -> float:
        """Seconds since the epoch, as the log has it."""
        ...

    async def pass_(self, seconds: float) -> None:
        """Return when that much time has passed for the log."""
        ...

    async def settle(self) -> None:
        """Give what is under way a chance to happen."""
        ...


class Rig:
    """A log under test, and a stream of its own for the case.

    ``step_seconds`` is a delay that is short for the log and long enough to be told from none.
    """

    def __init__(self, log: EventLog, time: Time, step_seconds: float) -> None:
        self.log = log
        self.time = time
        self.step_seconds = step_seconds
        self.stream = f"broker.contract.case-{next(_STREAMS)}"

    async def make(self, **spec: object) -> None:
        """Have the case's stream."""
        await self.log.ensure_stream(StreamSpec(self.stream, **spec))  # type: ignore[arg-type]

    async def append(self, *ids: str, key: str = "some.key") -> list[bool]:
        """Append a record for each id, under one key."""
        return await self.log.append(self.stream, [record(each, key) for each in ids])

    async def open(self, name: str = "trigger.contract.reader", **spec: object) -> Consumer:
        """A consumer of the case's stream."""
        return await self.log.consumer(ConsumerSpec(self.stream, name, **spec))  # type: ignore[arg-type]

    async def ids(self, key: str = ">") -> list[str]:
        """The ids of the events that the stream holds, in order."""
        return [stored.event.id for stored in await self.stored(key)]

    async def stored(self, key: str = ">") -> list[Stored]:
        """The records that the stream holds, in order."""
        return [stored async for stored in self.log.read(self.stream, key)]

    async def soon(self, work: Awaitable[T]) -> T:
        """``work``, which is expected to be done without that time passes."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await work

    async def take(self, consumer: Consumer, count: int) -> list[Delivery]:
        """Fetch exactly ``count`` deliveries."""
        taken: list[Delivery] = []
        while len(taken) < count:
            taken.extend(await self.soon(consumer.fetch(count - len(taken))))
        return taken

    async def take_after(self, consumer: Consumer, seconds: float, since: float) -> Delivery:
        """Fetch one delivery that comes only when ``seconds`` have passed ``since`` then."""
        fetching = asyncio.ensure_future(consumer.fetch(1))
        try:
            await self.time.settle()
            await self.time.pass_(max(0.0, since + seconds - self.time.now()))
            [delivery] = await self.soon(fetching)
        finally:
            fetching.cancel()
        waited = self.time.now() - since
        if waited < seconds - _TICK_SECONDS:
            raise AssertionError(f"{_ids([delivery])} came after {waited:.3f} s, {seconds} s were expected")
        return delivery

    async def nothing_for(self, consumer: Consumer, limit: int = 1) -> None:
        """Nothing is there to be delivered."""
        fetching = asyncio.ensure_future(consumer.fetch(limit))
        await self.time.settle()
        if fetching.done():
            raise AssertionError(f"{_ids(fetching.result())} came, nothing was expected")
        await cancel(fetching)

    async def until_pending(self, consumer: Consumer, count: int) -> None:
        """``pending`` becomes ``count``, without that time passes."""

        async def reached() -> None:
            while await consumer.pending() != count:
                await self.time.settle()

        await self.soon(reached())

    async def in_background(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """``work``, begun as far as it goes by itself."""
        task = asyncio.ensure_future(work)
        await self.time.settle()
        return task


def event(event_id: str, data: bytes | None = b"{}", **attributes: str) -> WireEvent:
    """An event."""
    base = {"specversion": "1.0", "id": event_id, "source": "/contract", "type": "contract.case"}
    if data is not None:
        base["datacontenttype"] = "application/json"
    return WireEvent({**base, **attributes}, data)


def record(event_id: str, key: str = "some.key", identity: str | None = None) -> Record:
    """A record whose identity is the event's id."""
    return Record(key, identity or event_id, event(event_id))


def _ids(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.record.event.id for delivery in deliveries]
