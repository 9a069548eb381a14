"""One trigger at work: the broker's events that match go to its function, each for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torpor.binding import Headers, WireEvent, encode_binary
from torpor.events import names
from torpor.events.courier import Courier, Message, Route
from torpor.events.log import ConsumerSpec, Delivery, EventLog
from torpor.events.pump import Pump

if TYPE_CHECKING:
    from torpor.clock import Clock

ACK_WAIT_SECONDS = 10.0
"""How long after a crash of the dispatcher what it was working on is delivered again."""
MAX_WAITING = 10_000
"""Most events of a trigger that wait for a retry; then it takes no new ones, which stay in the log."""
_TRACE = ("traceparent", "tracestate")


def consumer_spec(route: Route) -> ConsumerSpec:
    """The durable consumer of a trigger; where its filters name types, the log hands out no others."""
    types = route.matcher.types()
    return ConsumerSpec(
        stream=names.broker_stream(route.trigger.broker_key),
        name=names.trigger_consumer(route.key),
        keys=tuple(sorted(names.token(each) for each in types)) if types else (),
        ack_wait_seconds=ACK_WAIT_SECONDS,
        max_in_flight=MAX_WAITING + route.trigger.spec.parallelism,
        start="next",
    )


class Subscription:
    """Delivers each event of a trigger for itself."""

    def __init__(self, route: Route, log: EventLog, clock: Clock, courier: Courier) -> None:
        self.route = route
        self._courier = courier
        self._pump = Pump(log, clock, consumer_spec(route), self._handle, route.trigger.spec.parallelism)

    @property
    def busy(self) -> int:
        """How many deliveries are under way."""
        return self._pump.busy

    async def start(self) -> None:
        """Begin; when this returns, no event passes the trigger by."""
        await self._pump.start()

    async def pending(self) -> int:
        """How many events wait, or are under way."""
        return await self._pump.pending()

    async def stop(self, grace_seconds: float) -> None:
        """Stop; what is not done after ``grace_seconds`` is delivered again later."""
        await self._pump.stop(grace_seconds)

    async def _handle(self, delivery: Delivery) -> None:
        event = delivery.record.event
        if not self.route.matcher.matches(event.attributes):
            await delivery.ack()
            return
        headers, body = encode_binary(event)
        message = Message([*headers, *trace_headers(event)], body, [event])
        if await self._courier.deliver(self.route, message, delivery):
            await delivery.ack()


def trace_headers(event: WireEvent) -> Headers:
    """The event's trace context as the headers of the call (CloudEvents extension "Distributed Tracing")."""
    return [
        (name.encode(), event.attributes[name].encode("ascii", "replace"))
        for name in _TRACE
        if name in event.attributes
    ]
