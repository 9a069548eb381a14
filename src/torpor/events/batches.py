"""One trigger at work whose function is called with several events at once.

Events that match are put together until a batch is full, or the first of it has waited for long enough. One
call is made for it, and its replies are written; then each event ends for itself, by the courier, as if it
had been answered alone: it is done, tried again by its own attempts, or a dead letter.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torpor.clock import cancel, happens_within
from torpor.errors import TorporError
from torpor.events.batching import Contents, verdict
from torpor.events.courier import PREFER, Courier, Message, Route
from torpor.events.fields import trace_fields
from torpor.events.overflow import Overflow
from torpor.events.pump import Pump
from torpor.events.sender import as_part_of
from torpor.events.subscription import MAX_WAITING, Reading, Sieve, consumer_spec
from torpor.events.throttle import Throttle
from torpor.transport import Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.binding import WireEvent
    from torpor.clock import Clock
    from torpor.events.log import Delivery, EventLog
    from torpor.events.sender import Sender


_LOG = logging.getLogger("torpor.events")


class _Batch:
    """One call: ``goes`` says whether it is made, ``answers`` has what was said of each event, by id."""

    def __init__(self, contents: Contents) -> None:
        loop = asyncio.get_running_loop()
        self.contents = contents
        self.closed = asyncio.Event()
        self.goes: asyncio.Future[bool] = loop.create_future()
        self.answers: asyncio.Future[dict[str, Response]] = loop.create_future()


@dataclass(frozen=True, slots=True)
class _Share:
    """One event's share of the call: keeps :class:`torpor.events.sender.Sender`."""

    batch: _Batch
    event: WireEvent

    async def send(
        self,
        function_key: str,  # noqa: ARG002 - the batch has it all
        fields: bytes,  # noqa: ARG002
        body: bytes,  # noqa: ARG002
        timeout_seconds: float,  # noqa: ARG002
    ) -> Response:
        """What the call that is made for the whole batch says of the event."""
        return (await asyncio.shield(self.batch.answers))[self.event.id]


class BatchSubscription(Reading):
    """Keeps :class:`torpor.events.subscription.AtWork` for a trigger that has a batch."""

    def __init__(
        self,
        route: Route,
        log: EventLog,
        clock: Clock,
        courier: Courier,
        sender: Sender,
        *,
        shared: bool = False,
        fresh: bool = False,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        if route.trigger.spec.batch is None:
            raise ValueError(f"trigger {route.key} has no batch")
        self.route = route
        self._clock = clock
        self._courier = courier
        self._sender = sender
        self._size = route.trigger.spec.batch.size
        self._wait_seconds = route.trigger.spec.batch.wait_seconds
        parallelism = route.parallelism
        # One batch more than are called for can be in the making.
        most = min(self._size * (parallelism + 1), MAX_WAITING)
        spec = consumer_spec(route, fresh=fresh)
        self._pump = Pump(log, clock, spec, self._handle, most)
        self._sieve = Sieve(route, self._pump, courier, shared=shared)
        self._overflow = Overflow(route, log, clock, courier, spec, self._pump, self._sieve, leads)
        self._throttle = Throttle(route.trigger.spec.rate_limit, clock)
        self._places = asyncio.Semaphore(parallelism)
        self._open: _Batch | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._ended = False

    @property
    def busy(self) -> int:
        """How many events are under way; one that waits for others to go with is not yet."""
        return self._pump.busy - self._waiting

    async def start(self) -> None:
        """Begin; when this returns, no event passes the trigger by."""
        await super().start()
        self._overflow.start()

    async def halt(self) -> None:
        """Begin nothing more; what waits for others to go with is for others."""
        await self._overflow.halt()
        await super().halt()
        self._ended = True
        self._throttle.end()
        self._close()

    async def stop(self, grace_seconds: float) -> None:
        """Stop; what is not done after ``grace_seconds`` is delivered again later."""
        await super().stop(grace_seconds)
        await cancel(*self._calls)

    async def _handle(self, delivery: Delivery) -> None:
        if await self._sieve.passes_by(delivery):
            return
        event = delivery.record.event
        if self._courier.burial_of(delivery) is not None:
            await self._settle(self._courier, event, delivery)
            return
        batch = self._put(event, delivery.attempt)
        if not await asyncio.shield(batch.goes):
            await delivery.retry(0.0)
            return
        await self._settle(self._courier.through(_Share(batch, event)), event, delivery)

    async def _settle(self, courier: Courier, event: WireEvent, delivery: Delivery) -> None:
        if await courier.deliver(self.route, Message(b"", b"", [event]), self._overflow.limited(delivery)):
            await courier.acknowledge(self.route, delivery)

    def _put(self, event: WireEvent, attempt: int) -> _Batch:
        """Put the event into the batch in the making, or into a new one."""
        if self._open is not None and not self._open.contents.takes(event):
            self._close()
        if self._open is None:
            self._open = _Batch(Contents(self._size))
            call = asyncio.create_task(self._call(self._open))
            self._calls.add(call)
            call.add_done_callback(self._called)
        batch = self._open
        batch.contents.add(event, attempt)
        self._waiting += 1
        if batch.contents.full or self._ended:
            self._close()
        return batch

    def _close(self) -> None:
        batch, self._open = self._open, None
        if batch is not None:
            batch.closed.set()

    async def _call(self, batch: _Batch) -> None:
        """Make the call of a batch once it is whole."""
        await happens_within(self._clock, self._wait_seconds, batch.closed)
        if self._open is batch:
            self._open = None
        async with self._places:
            goes = await self._throttle.turn() and not self._ended
            self._waiting -= len(batch.contents.events)
            batch.goes.set_result(goes)
            if not goes:
                return
            try:
                batch.answers.set_result(await self._answers(batch.contents))
            except TorporError as error:
                batch.answers.set_exception(error)
                batch.answers.exception()  # those that wait for it tell of it
            finally:
                batch.answers.cancel()  # without an answer, its events come again when their time is up

    def _called(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and (error := call.exception()) is not None:
            _LOG.error("a batch failed unexpectedly", exc_info=error, extra={"trigger": self.route.key})

    async def _answers(self, contents: Contents) -> dict[str, Response]:
        """What the function says of each event, by id, once its replies are written."""
        fields, body = contents.request()
        response = await self._sender.send(
            self.route.function_key,
            fields + PREFER + trace_fields(contents.events[0]),
            body,
            self.route.timeout_seconds,
        )
        said = verdict(response, contents)
        if said.of_all is response and 200 <= response.status < 300:
            message = Message(fields, body, contents.events)
            # Else each event is told the whole answer, which makes it a dead letter and says why.
            if await self._courier.write_replies(self.route, message, response):
                said = replace(said, of_all=Response(204, [], b""))
        return {event.id: as_part_of(response, said.of(event)) for event in contents.events}
