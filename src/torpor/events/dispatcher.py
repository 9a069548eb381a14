"""Brings events from brokers to functions: keeps one subscription at work for each declared trigger."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torpor.clock import cancel
from torpor.errors import EventLogError, TorporError
from torpor.events import intake, names
from torpor.events.batches import BatchSubscription
from torpor.events.claims import Claims
from torpor.events.courier import Courier, Route, direct_slot
from torpor.events.declared import Declared
from torpor.events.delivery import schedule
from torpor.events.direct import DirectSubscription, trigger_to
from torpor.events.filters import Matcher
from torpor.events.intake import Intake
from torpor.events.join_log import endings_spec, streams
from torpor.events.joins import JoinSubscription
from torpor.events.log import EventLog, StreamSpec
from torpor.events.ordered import OrderedSubscription
from torpor.events.recorder import Recorder, stream_spec
from torpor.events.sinks import SinkSubscription
from torpor.events.stats import Stats, TriggerCounts
from torpor.events.strays import Stray, find_strays, forget_strays, source
from torpor.events.subscription import AtWork, Subscription, Watched, consumer_spec
from torpor.spec.models import Subscriber

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from torpor.clock import Clock
    from torpor.events.lag import Queue
    from torpor.events.sender import Sender
    from torpor.spec.models import Trigger, TriggerSpec

_LOG = logging.getLogger("torpor.events")
HOLD_SECONDS = 60.0
"""What a delivery may take beyond the function's own time-out: while the gateway holds it for a start."""
_HOUSEKEEPING_SECONDS = 60.0
STOP_GRACE_SECONDS = 5.0
_DRAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of a broker's past is kept. Events that a trigger still waits for are kept, however old."""

    age_seconds: float = 86_400.0
    max_bytes: int = intake.MAX_BYTES
    """A broker that holds this much forgets what was delivered, however young; when that does not make room,
    it refuses events. The groups of a joining trigger hold as much beside it."""
    duplicate_window_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class TriggerState:
    """A trigger at work. ``problem`` says why it is not."""

    counts: TriggerCounts
    pending: int
    problem: str = ""


class Dispatcher:
    """Keeps a subscription for each trigger, one for the way of its dead letters to their sink, and one of
    each broker for what goes to functions by name.

    ``shared`` says that other processes work on the same log. Then a trigger that can have but one worker,
    such as one that joins, is worked on only while this process leads (:meth:`lead`), and what belongs to no
    trigger is removed only when asked for (:meth:`remove`): another process may know more.
    """

    def __init__(
        self,
        log: EventLog,
        sender: Sender,
        clock: Clock,
        *,
        claims: Claims | None = None,
        stats: Stats | None = None,
        retention: Retention | None = None,
        recorder: Recorder | None = None,
        shared: bool = False,
    ) -> None:
        self._log = log
        self._clock = clock
        self._claims = claims or Claims(None)
        self.stats = stats or Stats()
        self._retention = retention or Retention()
        self._sender = sender
        self.recorder = recorder or Recorder(log, clock, self.stats, "events")
        self.intake = Intake(log, clock, self.stats, self._retention.max_bytes)
        self._courier = Courier(log, sender, clock, self._claims, self.stats, self.recorder, self.intake)
        self._shared = shared
        self._leads = not shared
        self._declared = Declared()
        self._wanted: dict[str, Route] = {}
        self._by_name: dict[tuple[str, str], Route] = {}
        self._subscriptions: dict[str, AtWork] = {}
        self._ending: dict[asyncio.Task[None], AtWork] = {}
        self._brokers: set[str] = set()
        self._applying = asyncio.Lock()
        self._housekeeper: asyncio.Task[None] | None = None
        self.superseded = asyncio.Event()
        """Set when another process turns out to lead; cleared by :meth:`lead`."""

    @property
    def busy(self) -> int:
        """How many deliveries are under way."""
        return sum(each.busy for each in (*self._subscriptions.values(), *self._ending.values()))

    async def apply(self, declared: Declared) -> None:
        """Bring brokers and subscriptions to what is declared.

        A trigger that is not declared any more is forgotten, with the events that waited for it. When this
        returns, events that are published reach every trigger. Raises :class:`~torpor.errors.EventLogError`
        when some of it failed; the rest was done then, and it is to be called again.
        """
        async with self._applying:
            self._declared, self._by_name = declared, {}
            brokers = declared.all_brokers()
            direct = (replace(self._route(trigger_to("all", each)), direct=True) for each in sorted(brokers))
            routes = [*(route for each in declared.triggers for route in self._routes(each)), *direct]
            self._wanted = {route.slot: route for route in routes}
            there = set(await self._log.streams())
            await self._halt(key for key, it in self._subscriptions.items() if self._is_outdated(it, there))
            fresh = {key for key in sorted(brokers) if await self._ensure_broker(key)}
            self._brokers = brokers
            if self._housekeeper is None:
                self._housekeeper = asyncio.create_task(self._keep_house())
            failed: EventLogError | None = None
            try:
                await self._start_missing(fresh)
            except EventLogError as error:
                failed = error
            if not self._shared:
                strays = await find_strays(self._log, self._wanted.values())
                await forget_strays(self._log, self.stats, strays)
            if failed is not None:
                raise failed

    async def lead(self, leads: bool) -> None:
        """Begin, or end, to work on the triggers that can have but one worker.

        What is under way then goes on in the background. Raises :class:`~torpor.errors.EventLogError` when
        not all could begin; it is to be called again.
        """
        async with self._applying:
            self._leads = leads
            self.superseded.clear()
            await self._halt(
                key for key, each in self._subscriptions.items() if _is_lost(each) or not self._is_mine(each)
            )
            await self._start_missing()

    async def strays(self) -> set[Stray]:
        """What the log keeps for triggers that were not declared to this process."""
        async with self._applying:
            return await find_strays(self._log, self._wanted.values())

    async def remove(self, strays: Iterable[Stray]) -> None:
        """Forget triggers, with the events that waited for them."""
        async with self._applying:
            await forget_strays(self._log, self.stats, strays)

    async def halt(self) -> None:
        """Begin nothing more; what is under way goes on until :meth:`close`."""
        async with self._applying:
            self._wanted = {}
            await self._halt(list(self._subscriptions))

    async def states(self) -> dict[str, TriggerState]:
        """Each trigger's state, by key."""
        subscriptions = dict(self._subscriptions)
        found = await asyncio.gather(*(self._state(each) for each in subscriptions.values()))
        states = dict(zip(subscriptions, found, strict=True))
        return {
            slot: _with_sink(state, states.get(f"{slot} sink"))
            for slot, state in states.items()
            if not (subscriptions[slot].route.sink or subscriptions[slot].route.direct)
        }

    async def _state(self, subscription: AtWork) -> TriggerState:
        try:
            pending = await subscription.pending()
            problem = subscription.problem or self._courier.problem(subscription.route)
        except TorporError as error:
            pending, problem = 0, str(error)
        return TriggerState(self.stats.of(subscription.route.key), pending, problem)

    async def pending(self, trigger_key: str) -> int | None:
        """How many events wait for the trigger, or are under way; ``None`` if it is not at work.

        Raises :class:`~torpor.errors.EventLogError`.
        """
        subscription = self._subscriptions.get(trigger_key)
        return None if subscription is None else await subscription.pending()

    def queue(self, trigger_key: str) -> Queue | None:
        """What waits for the trigger, if it is at work."""
        return self._subscriptions.get(trigger_key)

    def route(self, trigger_key: str, broker_key: str) -> Route | None:
        """The trigger of this key, while events that are published reach it; or the way to a function by name
        from this broker, if there is such a function.
        """
        function = names.meant_by_name(trigger_key)
        if function is not None:
            there = direct_slot(broker_key) in self._subscriptions
            known = there and function in self._declared.functions
            return self._to(function.partition("/")[2], broker_key) if known else None
        subscription = self._subscriptions.get(trigger_key)
        return subscription.route if subscription is not None else None

    def _serving(self, function_key: str) -> str | None:
        """The revision of a function that serves, as far as this process knows."""
        return self._declared.callee(function_key).revision or None

    def _to(self, function: str, broker_key: str) -> Route:
        """The way from a broker to a function of its namespace by name."""
        route = self._by_name.get((function, broker_key))
        if route is None:
            route = self._by_name[function, broker_key] = self._route(trigger_to(function, broker_key))
        return route

    def all_routes(self) -> list[Route]:
        """All triggers, as declared, without the ways to sinks and to functions by name."""
        return [each for each in self._wanted.values() if not (each.sink or each.direct)]

    def routes(self, broker_key: str) -> list[Route]:
        """The triggers that read a broker, as declared, in the order of their names."""
        read = (each for each in self.all_routes() if each.trigger.broker_key == broker_key)
        return sorted(read, key=lambda it: it.key)

    def brokers(self) -> set[str]:
        """The keys of the brokers that there are."""
        return set(self._brokers)

    async def close(self, grace_seconds: float = STOP_GRACE_SECONDS) -> None:
        """Stop; what is under way for longer than ``grace_seconds`` is delivered again later."""
        if self._housekeeper is not None:
            await cancel(self._housekeeper)
            self._housekeeper = None
        subscriptions, self._subscriptions = list(self._subscriptions.values()), {}
        subscriptions += self._ending.values()
        # Of those that are ending already, with a grace of their own, the shorter one counts.
        await asyncio.gather(*(each.stop(grace_seconds) for each in subscriptions))
        await asyncio.gather(*self._ending)
        await self.recorder.drain(_DRAIN_SECONDS)

    # --- subscriptions --------------------------------------------------------------------------------------

    def _is_mine(self, subscription: AtWork) -> bool:
        """Whether it is worked on where it is to be: here, or by whoever leads."""
        return isinstance(subscription, Watched) != self._works_on(subscription.route)

    def _works_on(self, route: Route) -> bool:
        return self._leads or route.sink or not route.trigger.spec.one_worker

    def _is_outdated(self, subscription: AtWork, streams: set[str]) -> bool:
        route = subscription.route
        wanted = self._wanted.get(route.slot)
        if wanted is None or not _same(route, wanted) or not self._is_mine(subscription):
            return True
        needed = {source(route)}
        if route.trigger.spec.join is not None:
            needed.add(names.groups_stream(route.key))
        return not needed <= streams

    async def _halt(self, keys: Iterable[str]) -> None:
        """Have subscriptions begin nothing more; they end in the background."""
        halted = [self._subscriptions.pop(key) for key in list(keys)]
        await asyncio.gather(*(each.halt() for each in halted))
        for each in halted:
            task = asyncio.create_task(each.stop(STOP_GRACE_SECONDS))
            self._ending[task] = each
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._ending[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("a subscription could not end in order", exc_info=error)

    async def _start_missing(self, fresh: Collection[str] = ()) -> None:
        """Begin what is wanted and not at work; the streams of the brokers ``fresh`` were made just now."""
        failure: TorporError | None = None
        failed: set[str] = set()
        for slot, route in self._wanted.items():
            # Before its sink is there, a trigger would make dead letters that pass the sink by.
            if slot in self._subscriptions or route.key in failed:
                continue
            subscription = self._subscribe(route, fresh=route.broker_key in fresh)
            try:
                await subscription.start()
            except TorporError as error:
                about = {"trigger": route.key, "error": str(error)}
                _LOG.warning("a trigger can't be worked on yet", extra=about)
                await subscription.stop(0.0)
                failure = error
                failed.add(route.key)
            except BaseException:
                await subscription.stop(0.0)
                raise
            else:
                self._subscriptions[slot] = subscription
        if failure is not None:
            raise failure

    def _subscribe(self, route: Route, *, fresh: bool) -> AtWork:
        courier = self._courier.apart()
        if route.sink:
            return SinkSubscription(route, self._log, self._clock, courier)
        if route.direct:
            broker_key = route.broker_key
            return DirectSubscription(
                route,
                self._log,
                self._clock,
                courier,
                find=lambda function: self._to(function, broker_key),
                serving=self._serving,
                fresh=fresh,
            )
        return self._subscribe_trigger(route, courier, fresh=fresh)

    def _subscribe_trigger(self, route: Route, courier: Courier, *, fresh: bool) -> AtWork:
        joins = route.trigger.spec.join is not None
        if not self._works_on(route):
            consumers = [consumer_spec(route, fresh=fresh), *([endings_spec(route.key)] if joins else ())]
            needed = streams(route.key, self._retention.max_bytes) if joins else ()
            return Watched(route, self._log, needed, consumers)
        if route.trigger.spec.ordering == "key":
            return OrderedSubscription(
                route, self._log, self._clock, courier, shared=self._shared, fresh=fresh
            )
        if route.trigger.spec.batch is not None:
            return BatchSubscription(
                route,
                self._log,
                self._clock,
                courier,
                self._sender,
                shared=self._shared,
                fresh=fresh,
                leads=self._leading,
            )
        if not joins:
            return Subscription(
                route,
                self._log,
                self._clock,
                courier,
                shared=self._shared,
                fresh=fresh,
                leads=self._leading,
            )
        return JoinSubscription(
            route,
            self._log,
            self._clock,
            courier,
            self._claims,
            max_bytes=self._retention.max_bytes,
            shared=self._shared,
            fresh=fresh,
            superseded=self._hear_superseded,
        )

    def _leading(self) -> bool:
        return self._leads

    def _hear_superseded(self, subscription: JoinSubscription) -> None:
        if self._subscriptions.get(subscription.route.key) is subscription:
            self.superseded.set()

    def _routes(self, trigger: Trigger) -> Iterator[Route]:
        """The ways that events go by a trigger: to its sink, if it has one, and to its function."""
        sink = trigger.spec.delivery.dead_letter_sink
        if sink is not None:
            to = trigger.spec.subscriber if sink.function is None else Subscriber(function=sink.function)
            spec = trigger.spec.model_copy(update={"subscriber": to})
            yield self._route(trigger.model_copy(update={"spec": spec}), sink=True)
        yield self._route(trigger)

    def _route(self, trigger: Trigger, *, sink: bool = False) -> Route:
        callee = self._declared.callee(trigger.function_key)
        timeout = trigger.spec.delivery.timeout_seconds
        return Route(
            trigger=trigger,
            matcher=Matcher(trigger.spec.filters),
            schedule=schedule(trigger.spec.delivery),
            timeout_seconds=callee.timeout_seconds + HOLD_SECONDS if timeout is None else timeout,
            parallelism=callee.at_once(trigger.spec.parallelism),
            sink=sink,
        )

    async def _ensure_broker(self, key: str) -> bool:
        """Have the streams of a broker; whether that of its events is new."""
        window, most = self._retention.duplicate_window_seconds, self._retention.max_bytes
        events = StreamSpec(names.broker_stream(key), duplicate_window_seconds=window, max_bytes=most)
        await self._log.ensure_stream(StreamSpec(names.dead_stream(key), max_bytes=most, once_per_key=True))
        await self._log.ensure_stream(stream_spec(key))
        return await self._log.ensure_stream(events)

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


def _is_lost(subscription: AtWork) -> bool:
    return isinstance(subscription, JoinSubscription) and subscription.lost


def _with_sink(state: TriggerState, sink: TriggerState | None) -> TriggerState:
    """The state of a trigger, whose problem is that of its sink where it has none of its own."""
    if sink is None or state.problem or not sink.problem:
        return state
    return replace(state, problem=f"its dead letters do not reach their sink: {sink.problem}")


def _same(old: Route, new: Route) -> bool:
    return _terms(old) == _terms(new)


def _terms(route: Route) -> tuple[TriggerSpec, float, int]:
    return route.trigger.spec, route.timeout_seconds, route.parallelism
