"""Brings events to one function, whatever triggers there are: what a replay sends to it by name.

They are in the broker under keys that no trigger reads. A durable consumer of each broker reads them all, and
delivers each by the defaults of a trigger that has nothing but its function: for itself, in no order.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from torpor.events import names
from torpor.events.burials import Burial
from torpor.events.delivery import DeadLetter
from torpor.events.log import ConsumerSpec, Delivery, EventLog
from torpor.events.pump import Pump
from torpor.events.subscription import ACK_WAIT_SECONDS, MAX_WAITING, Reading, message_of
from torpor.spec.models import Metadata, Subscriber, Trigger, TriggerSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.clock import Clock
    from torpor.events.courier import Courier, Route

_LOG = logging.getLogger("torpor.events")


def trigger_to(function: str, broker_key: str) -> Trigger:
    """What stands for a trigger where a broker's events go to a function of its namespace by name."""
    namespace, broker = broker_key.split("/")
    spec = TriggerSpec(broker=broker, subscriber=Subscriber(function=function))
    trigger = Trigger(metadata=Metadata(name=function, namespace=namespace), spec=spec)
    _, name = names.direct_trigger(trigger.function_key).split("/")
    return trigger.model_copy(update={"metadata": trigger.metadata.model_copy(update={"name": name})})


class DirectSubscription(Reading):
    """Keeps :class:`torpor.events.subscription.AtWork` for a broker's events that go to functions by name.

    ``find`` tells the way to a function, by its name, and ``serving`` its revision, by its key.
    """

    def __init__(
        self,
        route: Route,
        log: EventLog,
        clock: Clock,
        courier: Courier,
        *,
        find: Callable[[str], Route],
        serving: Callable[[str], str | None],
        fresh: bool = False,
    ) -> None:
        self.route = route
        self._courier = courier
        self._find = find
        self._serving = serving
        parallelism = route.trigger.spec.parallelism
        spec = ConsumerSpec(
            stream=names.broker_stream(route.broker_key),
            name=names.DIRECT,
            keys=(names.DIRECT_KEYS,),
            ack_wait_seconds=ACK_WAIT_SECONDS,
            max_in_flight=MAX_WAITING + parallelism,
            start="first" if fresh else "next",
        )
        self._pump = Pump(log, clock, spec, self._handle, parallelism)

    async def _handle(self, delivery: Delivery) -> None:
        try:
            function, revision = names.direct_to(delivery.record.key)
            route = self._find(function)
        except ValueError:  # another program's
            about = {"broker": self.route.broker_key, "key": delivery.record.key[:200]}
            _LOG.warning("an event that is for no function is left out", extra=about)
            await delivery.ack()
            return
        if await self._courier.refuses(route, delivery):
            return
        message = message_of(delivery.record.event)
        serving = self._serving(route.function_key)
        if revision and serving and revision != serving:
            reason = f"it is for revision {revision} of the function, and {serving} serves now"
            about = {"function": route.function_key, "event": message.events[0].id}
            _LOG.warning("an event becomes a dead letter", extra={**about, "reason": reason})
            if not await self._courier.settle(
                route, message, delivery, Burial(DeadLetter(reason), delivery.attempt)
            ):
                return
        elif not await self._courier.deliver(route, message, delivery):
            return
        await self._courier.acknowledge(route, delivery)
