"""One trigger at work: the broker's events that match go to its function, each for itself."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

from torpor.events import names
from torpor.events.courier import Courier, Message, Route
from torpor.events.fields import event_fields, plain_fields, trace_fields
from torpor.events.lag import Queue
from torpor.events.log import Consumer, ConsumerSpec, Delivery, EventLog, Stored, StreamSpec
from torpor.events.overflow import Overflow
from torpor.events.passing import Passing
from torpor.events.pump import Pump
from torpor.events.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torpor.binding import WireEvent
    from torpor.clock import Clock

ACK_WAIT_SECONDS = 10.0
"""How long after a crash of the dispatcher what it was working on is delivered again."""
MAX_WAITING = 10_000
"""Most events of a trigger that wait for a retry; then it takes no new ones, which stay in the log."""
WINDOW = 1000
"""Most events of a trigger ordered by key that are held in memory: a key that is held up by a retry holds up
others only once so many wait behind it."""


class AtWork(Queue, Protocol):
    """A trigger that this process does something for, and what waits for it."""

    route: Route

    @property
    def busy(self) -> int:
        """How many deliveries are under way."""
        ...

    @property
    def problem(self) -> str:
        """What keeps events waiting though it is at work, if there is such a thing."""
        ...

    async def start(self) -> None:
        """Begin; when this returns, no event passes the trigger by."""
        ...

    async def halt(self) -> None:
        """Begin nothing more; others may do so from then on."""
        ...

    async def stop(self, grace_seconds: float) -> None:
        """Halt; what is not done after ``grace_seconds`` is delivered again later."""
        ...


class Reading:
    """What most of those at work (:class:`AtWork`) have in common: one pump reads for them, ``_pump``."""

    route: Route
    problem = ""
    _pump: Pump

    @property
    def busy(self) -> int:
        """How many deliveries are under way."""
        return self._pump.busy

    async def start(self) -> None:
        """Begin; when this returns, nothing passes by."""
        await self._pump.start()

    async def pending(self) -> int:
        """How many wait, or are under way."""
        return await self._pump.pending()

    async def waiting_since(self) -> float | None:
        """When the oldest came that was not begun (seconds since the epoch), if one waits."""
        return await self._pump.waiting_since()

    async def halt(self) -> None:
        """Begin nothing more."""
        await self._pump.halt()

    async def stop(self, grace_seconds: float) -> None:
        """Stop; what is not done after ``grace_seconds`` is delivered again later."""
        await self.halt()
        await self._pump.stop(grace_seconds)


def consumer_spec(route: Route, *, fresh: bool = False) -> ConsumerSpec:
    """The durable consumer of a trigger; where its filters name types, the log hands out no others.

    ``fresh`` says that the broker's stream was made for this, so that whatever it holds came after.
    """
    types = route.matcher.types()
    spec = route.trigger.spec
    most = WINDOW if spec.ordering == "key" else MAX_WAITING + spec.parallelism
    return ConsumerSpec(
        stream=names.broker_stream(route.broker_key),
        name=names.trigger_consumer(route.key),
        keys=(*sorted(names.token(each) for each in types), names.addressed_keys(route.key)) if types else (),
        ack_wait_seconds=ACK_WAIT_SECONDS,
        max_in_flight=most,
        start="first" if fresh else "next",
        revision=filters_revision(route),
    )


def is_for(route: Route, record: Stored) -> bool:
    """Whether a broker's record is for the trigger: addressed to it, or else by its filters."""
    addressee = names.addressee(record.key)
    if addressee is not None:
        return addressee == names.token(route.key)
    return route.matcher.matches(record.event)


def filters_revision(route: Route) -> str:
    """What tells a trigger's filters from other ones."""
    filters = "\n".join(each.model_dump_json(exclude_none=True) for each in route.trigger.spec.filters)
    return hashlib.sha256(filters.encode()).hexdigest()[:16]


class Sieve:
    """Settles what is not for a trigger; ``pump`` reads its consumer, with others at it if ``shared``."""

    def __init__(self, route: Route, pump: Pump, courier: Courier, *, shared: bool) -> None:
        self._route = route
        self._courier = courier
        self._passing = Passing(filters_revision(route), pump.revision) if shared else None

    def has_to_fetch(self, record: Stored) -> bool:
        """Whether filters look into data that was put into the blob store."""
        event = record.event
        return self._route.matcher.looks_into_data and event.data is None and "dataref" in event.attributes

    async def passes_by(self, delivery: Delivery) -> bool:
        """Whether the record is not for the trigger, or for nobody, and settled.

        Waits before it knows only where it :meth:`has_to_fetch`. Raises
        :class:`~torpor.errors.EventLogError` or :class:`~torpor.errors.BlobError`.
        """
        record = delivery.record
        if self.has_to_fetch(record):
            record = record._replace(event=await self._courier.claims.looked_into(record.event))
        if is_for(self._route, record):
            return await self._courier.refuses(self._route, delivery)
        await self.let_pass(delivery)
        return True

    async def let_pass(self, delivery: Delivery) -> None:
        """Settle what is not for the trigger. Raises :class:`~torpor.errors.EventLogError`."""
        await (delivery.ack() if self._passing is None else self._passing.let_pass(delivery))


class Subscription(Reading):
    """Delivers each event of a trigger for itself; ``shared`` if others may do so at the same time.

    Of those, the one that ``leads`` sees to what is too much for the trigger's backlog.
    """

    def __init__(
        self,
        route: Route,
        log: EventLog,
        clock: Clock,
        courier: Courier,
        *,
        shared: bool = False,
        fresh: bool = False,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self.route = route
        self._courier = courier
        spec = consumer_spec(route, fresh=fresh)
        self._pump = Pump(log, clock, spec, self._handle, route.parallelism, ahead=True)
        self._throttle = Throttle(route.trigger.spec.rate_limit, clock)
        self._sieve = Sieve(route, self._pump, courier, shared=shared)
        self._overflow = Overflow(route, log, clock, courier, spec, self._pump, self._sieve, leads)

    @property
    def busy(self) -> int:
        """How many deliveries are under way; one that waits for its turn is not yet."""
        return self._pump.busy - self._throttle.waiting

    async def start(self) -> None:
        """Begin; when this returns, no event passes the trigger by."""
        await super().start()
        self._overflow.start()

    async def halt(self) -> None:
        """Begin nothing more; what waits for its turn is for others."""
        await self._overflow.halt()
        await super().halt()
        self._throttle.end()

    async def _handle(self, delivery: Delivery) -> None:
        record = delivery.record
        fields: bytes | None = None
        if self._sieve.has_to_fetch(record):
            if await self._sieve.passes_by(delivery):
                return
        elif not is_for(self.route, record):
            await self._sieve.let_pass(delivery)
            return
        else:
            fields = plain_fields(record.event)
            if fields is None and await self._courier.refuses(self.route, delivery):
                return
        message = message_of(record.event, fields)
        throttle = self._throttle
        if not (throttle.is_open or self._courier.burial_of(delivery) or await throttle.turn()):
            await delivery.retry(0.0)
        elif await self._courier.deliver(
            self.route, message, self._overflow.limited(delivery), self._pump.rest
        ):
            await self._courier.acknowledge(self.route, delivery)


class Watched:
    """A trigger that another process works on: here it only has what keeps events from passing it by."""

    busy = 0
    problem = ""

    def __init__(
        self, route: Route, log: EventLog, streams: Sequence[StreamSpec], consumers: Sequence[ConsumerSpec]
    ) -> None:
        self.route = route
        self._log = log
        self._streams = streams
        self._specs = consumers
        self._consumers: list[Consumer] = []

    async def start(self) -> None:
        """Have the streams and consumers."""
        for stream in self._streams:
            await self._log.ensure_stream(stream)
        self._consumers = [await self._log.consumer(each) for each in self._specs]

    async def pending(self) -> int:
        """How many events wait, or are under way somewhere."""
        return sum([await each.pending() for each in self._consumers])

    async def waiting_since(self) -> float | None:
        """When the oldest event came that was not begun (seconds since the epoch), if one waits."""
        return await self._consumers[0].waiting_since() if self._consumers else None

    async def halt(self) -> None:
        """Let go of the consumers."""
        consumers, self._consumers = self._consumers, []
        for each in consumers:
            await each.close()

    async def stop(self, grace_seconds: float) -> None:  # noqa: ARG002 - nothing is under way
        """Let go of the consumers."""
        await self.halt()


def message_of(event: WireEvent, fields: bytes | None = None) -> Message:
    """What is sent for one valid event: the binary mode, and its trace context as the call's own.

    ``fields`` are its :func:`~torpor.events.fields.event_fields` where they are known.
    """
    fields = event_fields(event) if fields is None else fields
    return Message(fields + trace_fields(event), event.data or b"", [event])
