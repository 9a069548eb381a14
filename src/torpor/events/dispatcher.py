"""Brings events from brokers to functions: keeps one subscription at work for each declared trigger."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torpor.errors import TorporError
from torpor.events import names
from torpor.events.claims import Claims
from torpor.events.courier import Courier, Route
from torpor.events.delivery import delays_seconds
from torpor.events.filters import Matcher
from torpor.events.joins import JoinSubscription
from torpor.events.log import EventLog, StreamSpec
from torpor.events.stats import Stats, TriggerCounts
from torpor.events.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torpor.clock import Clock
    from torpor.events.sender import Sender
    from torpor.spec.models import Trigger

_LOG = logging.getLogger("torpor.events")
HOLD_SECONDS = 60.0
"""What a delivery may take beyond the function's own time-out: while the gateway holds it for a start."""
_DEFAULT_TIMEOUT_SECONDS = 300.0
_HOUSEKEEPING_SECONDS = 60.0
_STOP_GRACE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of a broker's past is kept. Events that a trigger still waits for are kept, however old."""

    age_seconds: float = 86_400.0
    max_bytes: int = 8 * 1024**3
    """A broker that holds this much forgets what was delivered, however young; when that does not make room,
    it refuses events."""
    duplicate_window_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class Declared:
    """What the dispatcher works from: whole, each time it changes.

    ``timeouts_seconds`` are the functions' own, by key. Brokers are those named here and those of the
    triggers.
    """

    triggers: Sequence[Trigger] = ()
    brokers: Sequence[str] = ()
    timeouts_seconds: Mapping[str, float] | None = None

    def all_brokers(self) -> set[str]:
        """The keys of all brokers."""
        return {*self.brokers, *(trigger.broker_key for trigger in self.triggers)}


@dataclass(frozen=True, slots=True)
class TriggerState:
    """A trigger at work. ``problem`` says why it is not."""

    counts: TriggerCounts
    pending: int
    problem: str = ""


class Dispatcher:
    """Keeps a subscription for each trigger."""

    def __init__(
        self,
        log: EventLog,
        sender: Sender,
        clock: Clock,
        *,
        claims: Claims | None = None,
        stats: Stats | None = None,
        retention: Retention | None = None,
    ) -> None:
        self._log = log
        self._clock = clock
        self._claims = claims or Claims(None)
        self.stats = stats or Stats()
        self._retention = retention or Retention()
        self._courier = Courier(log, sender, clock, self._claims, self.stats)
        self._subscriptions: dict[str, Subscription | JoinSubscription] = {}
        self._brokers: set[str] = set()
        self._applying = asyncio.Lock()
        self._housekeeper: asyncio.Task[None] | None = None

    @property
    def busy(self) -> int:
        """How many deliveries are under way."""
        return sum(subscription.busy for subscription in self._subscriptions.values())

    async def apply(self, declared: Declared) -> None:
        """Bring brokers and subscriptions to what is declared.

        A trigger that is not declared any more is forgotten, with the events that waited for it. When this
        returns, events that are published reach every trigger. Raises :class:`~torpor.errors.EventLogError`;
        then it is to be called again.
        """
        async with self._applying:
            for broker in sorted(declared.all_brokers()):
                await self._ensure_broker(broker)
            wanted = {trigger.key: self._route(trigger, declared) for trigger in declared.triggers}
            for key, subscription in list(self._subscriptions.items()):
                if key not in wanted or not _same(subscription.route, wanted[key]):
                    await subscription.stop(_STOP_GRACE_SECONDS)
                    del self._subscriptions[key]
            await self._forget(wanted)
            for key, route in wanted.items():
                if key not in self._subscriptions:
                    subscription = self._subscribe(route)
                    try:
                        await subscription.start()
                    except TorporError:
                        await subscription.stop(0.0)
                        raise
                    self._subscriptions[key] = subscription
            self._brokers = declared.all_brokers()
            if self._housekeeper is None:
                self._housekeeper = asyncio.create_task(self._keep_house())

    async def states(self) -> dict[str, TriggerState]:
        """Each trigger's state, by key."""
        subscriptions = dict(self._subscriptions)
        found = await asyncio.gather(*(self._state(key, each) for key, each in subscriptions.items()))
        return dict(zip(subscriptions, found, strict=True))

    async def _state(self, key: str, subscription: Subscription | JoinSubscription) -> TriggerState:
        try:
            pending, problem = await subscription.pending(), ""
        except TorporError as error:
            pending, problem = 0, str(error)
        return TriggerState(self.stats.of(key), pending, problem)

    def brokers(self) -> set[str]:
        """The keys of the brokers that there are."""
        return set(self._brokers)

    async def close(self) -> None:
        """Stop; what is under way for longer than a few seconds is delivered again later."""
        if self._housekeeper is not None:
            self._housekeeper.cancel()
            await asyncio.gather(self._housekeeper, return_exceptions=True)
            self._housekeeper = None
        subscriptions, self._subscriptions = list(self._subscriptions.values()), {}
        await asyncio.gather(*(each.stop(_STOP_GRACE_SECONDS) for each in subscriptions))

    def _route(self, trigger: Trigger, declared: Declared) -> Route:
        own = (declared.timeouts_seconds or {}).get(trigger.function_key, _DEFAULT_TIMEOUT_SECONDS)
        timeout = trigger.spec.delivery.timeout_seconds
        return Route(
            trigger=trigger,
            matcher=Matcher(trigger.spec.filters),
            delays_seconds=delays_seconds(trigger.spec.delivery),
            timeout_seconds=own + HOLD_SECONDS if timeout is None else timeout,
        )

    def _subscribe(self, route: Route) -> Subscription | JoinSubscription:
        if route.trigger.spec.join is None:
            return Subscription(route, self._log, self._clock, self._courier)
        return JoinSubscription(route, self._log, self._clock, self._courier, self._claims)

    async def _ensure_broker(self, key: str) -> None:
        await self._log.ensure_stream(
            StreamSpec(
                names.broker_stream(key),
                duplicate_window_seconds=self._retention.duplicate_window_seconds,
                max_bytes=self._retention.max_bytes,
            )
        )
        await self._log.ensure_stream(StreamSpec(names.dead_stream(key), max_bytes=self._retention.max_bytes))

    async def _forget(self, wanted: Mapping[str, Route]) -> None:
        """Remove what belongs to triggers that are not declared, or that read another broker now."""
        readers = {
            (names.broker_stream(route.trigger.broker_key), names.trigger_consumer(key))
            for key, route in wanted.items()
        }
        groups = {names.groups_stream(key) for key, route in wanted.items() if route.trigger.spec.join}
        for stream in await self._log.streams():
            if stream.startswith(f"{names.GROUPS}.") and stream not in groups:
                await self._log.remove_stream(stream)
            elif stream.startswith(f"{names.BROKER}."):
                for consumer in await self._log.consumers(stream):
                    if (stream, consumer) not in readers:
                        _LOG.info("a trigger is forgotten", extra={"stream": stream, "consumer": consumer})
                        await self._log.remove_consumer(stream, consumer)

    async def _keep_house(self) -> None:
        while True:
            await self._clock.sleep(_HOUSEKEEPING_SECONDS)
            await self._trim(sorted(self._brokers))

    async def _trim(self, brokers: Iterable[str]) -> None:
        before = self._clock.now() - self._retention.age_seconds
        for key in brokers:
            try:
                await self._log.trim(names.broker_stream(key), before)
            except TorporError as error:
                _LOG.warning("old events could not be removed", extra={"broker": key, "error": str(error)})


def _same(old: Route, new: Route) -> bool:
    return (old.trigger.spec, old.timeout_seconds) == (new.trigger.spec, new.timeout_seconds)
