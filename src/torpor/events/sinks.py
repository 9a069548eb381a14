"""Brings a trigger's dead letters to where it wants them: to a function, or into another broker.

The list that people see is the stream of dead letters, and it keeps them all. A durable consumer reads it
for the sink. One that the sink does not take, in the end, stays in the list and nothing more comes of it; and
what came out of one sink goes into no other broker. So nothing goes round in circles.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from torpor.binding import WireEvent
from torpor.errors import RecordTooLargeError
from torpor.events import names
from torpor.events.dead_letters import keys_of, letter_id
from torpor.events.log import ConsumerSpec, Delivery, EventLog, Record
from torpor.events.pump import Pump
from torpor.events.records import Attempt, taken_in, tried
from torpor.events.subscription import ACK_WAIT_SECONDS, MAX_WAITING, Reading, message_of

if TYPE_CHECKING:
    from torpor.clock import Clock
    from torpor.events.courier import Courier, Route

_LOG = logging.getLogger("torpor.events")
_SUNK = "torporsink"
"""Extension of an event that a sink put into a broker: the key of the trigger whose dead letter it was."""


def sink_spec(route: Route) -> ConsumerSpec:
    """The durable consumer of a trigger's dead letters from now on."""
    return ConsumerSpec(
        stream=names.dead_stream(route.broker_key),
        name=names.sink_consumer(route.key),
        keys=(keys_of(route.key),),
        ack_wait_seconds=ACK_WAIT_SECONDS,
        max_in_flight=MAX_WAITING + route.trigger.spec.parallelism,
        start="next",
    )


class SinkSubscription(Reading):
    """Keeps :class:`torpor.events.subscription.AtWork` for the way of dead letters to their sink."""

    def __init__(self, route: Route, log: EventLog, clock: Clock, courier: Courier) -> None:
        self.route = route
        self._clock = clock
        self._courier = courier
        self._stats = courier.stats
        self._pump = Pump(log, clock, sink_spec(route), self._handle, route.parallelism)

    async def _handle(self, delivery: Delivery) -> None:
        if await self._courier.refuses(self.route, delivery):
            return
        event, broker = delivery.record.event, self.route.trigger.sink_broker_key
        identity = letter_id(delivery.record.key)
        if not identity:
            self._leave(event, "another program wrote it")
        elif broker is not None:
            await self._put(event, broker, identity, delivery.attempt)
        elif not await self._courier.deliver(self.route, message_of(event), delivery):
            return
        await self._courier.acknowledge(self.route, delivery)

    async def _put(self, event: WireEvent, broker: str, identity: str, attempt: int) -> None:
        """Have the dead letter in the broker ``broker``, once."""
        counts, recorder = self._stats.of_sink(self.route.key), self._courier.recorder
        at, began = recorder.now(), self._clock.monotonic()
        if _SUNK in event.attributes:
            self._leave(event, "it came out of a sink before")
            return
        sunk = WireEvent({**event.attributes, _SUNK: self.route.key}, event.data)
        try:
            # Several triggers, and replays, may have made dead letters of one event: each counts.
            record = Record(names.token(event.type), identity, sunk)
            new = await self._courier.intake.store(broker, [record])
        except RecordTooLargeError as error:
            self._leave(event, str(error))
        else:
            self._stats.count_published(broker, sum(new))
            counts.delivered += 1
            lines = taken_in([sunk], new, at=at, by=recorder.name, how="sink", trigger=self.route.key)
            recorder.add(broker, lines)
            await recorder.flush(broker)
            end = f"put into broker {broker}"
            put = Attempt(self.route.slot, attempt, self._clock.monotonic() - began, end=end)
            line = tried([event], None, put, at=at, by=recorder.name)
            recorder.add(self.route.broker_key, [line])

    def _leave(self, event: WireEvent, reason: str) -> None:
        self._stats.of_sink(self.route.key).dead_lettered += 1
        about = {"trigger": self.route.key, "event": event.id, "reason": reason}
        _LOG.warning("a dead letter goes into no broker", extra=about)
