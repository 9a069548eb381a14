"""Everything that takes in, makes and delivers events: ingress, scheduler, dispatcher on one event log.

The process that runs it is chosen elsewhere: ``python -m torpor.events`` on a laptop, ``torpor role events``
in a pod. It keeps nothing that counts: what waits is in the event log, what is declared is told to it again
after each start.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from torpor.blobs import BlobStore
from torpor.clock import cancel, first_of
from torpor.errors import EventLogError
from torpor.events import brokers, names
from torpor.events.archive import Archive
from torpor.events.claims import Claims
from torpor.events.declaration import (
    Declaration,
    EventsHealth,
    EventsState,
    ScheduleReport,
    TriggerReport,
)
from torpor.events.dispatcher import STOP_GRACE_SECONDS, Dispatcher
from torpor.events.explain import Explainer
from torpor.events.http_sender import GatewaySender
from torpor.events.ingress import Ingress
from torpor.events.letters import DeadLetters
from torpor.events.recorder import Recorder
from torpor.events.scheduler import Scheduler
from torpor.events.stats import Stats
from torpor.transport import Client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from torpor.clock import Clock
    from torpor.events.brokers import Broker
    from torpor.events.log import EventLog, Stored

_LOG = logging.getLogger("torpor.events")
_MAX_CONNECTIONS = 4096
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 5.0


class Service:
    """Ingress, scheduler and dispatcher. ``shared`` says that other processes do the same on the same log.

    Data that is too large for an event goes to ``blobs_url``, if there is one. ``name`` is what this process
    calls itself where it writes down what happened.
    """

    def __init__(
        self,
        log: EventLog,
        clock: Clock,
        *,
        blobs_url: str = "",
        stats: Stats | None = None,
        shared: bool = False,
        name: str = "events",
    ) -> None:
        self._log = log
        self.stats = stats or Stats()
        claims = Claims(BlobStore(blobs_url) if blobs_url else None)
        self._client = Client(max_connections_per_endpoint=_MAX_CONNECTIONS, clock=clock)
        self._sender = GatewaySender(self._client, clock)
        self._recorder = Recorder(log, clock, self.stats, name)
        self.dispatcher = Dispatcher(
            log,
            self._sender,
            clock,
            claims=claims,
            stats=self.stats,
            recorder=self._recorder,
            shared=shared,
        )
        self.scheduler = Scheduler(log, clock, self.stats, self._recorder, shared=shared)
        self.dead_letters = DeadLetters(log, self.stats, self._recorder, self.dispatcher.route)
        self.archive = Archive(log, self._recorder, self.dispatcher.routes, self.dispatcher.route)
        self.explainer = Explainer(log, clock, self.dispatcher.routes)
        self.ingress = Ingress(log, claims=claims, stats=self.stats, recorder=self._recorder)
        self.registry = CollectorRegistry()
        """The counters, for Prometheus."""
        self.registry.register(self.stats)
        self.declared = asyncio.Event()
        """Set once it knows what it has to do; until then nothing is to be sent to its ingress."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the event log at the moment."""
        return self._log.connected

    async def declare(self, declaration: Declaration) -> None:
        """Bring everything to what is declared. Raises :class:`~torpor.errors.EventLogError`."""
        self._sender.gateway = declaration.endpoint()
        declared = declaration.declared()
        await self.dispatcher.apply(declared)
        await self.scheduler.apply(declaration.schedules)
        self.stats.forget_all_but(
            {
                *(trigger.key for trigger in declaration.triggers),
                *(names.direct_trigger(function) for function in declaration.timeouts_seconds),
            },
            [schedule.key for schedule in declaration.schedules],
        )
        self.ingress.set_brokers(declared.all_brokers())
        self.declared.set()

    async def state(self) -> EventsState:
        """All counters."""
        states = await self.dispatcher.states()
        return EventsState(
            published_by_broker=dict(self.stats.published),
            refused=dict(self.stats.refused),
            triggers={
                key: TriggerReport(
                    delivered=state.counts.delivered,
                    redelivered=state.counts.redelivered,
                    failed=state.counts.failed,
                    dead_lettered=state.counts.dead_lettered,
                    pending=state.pending,
                    problem=state.problem,
                )
                for key, state in states.items()
            },
            schedules=self._schedules(),
        )

    def _schedules(self) -> dict[str, ScheduleReport]:
        at_work = self.scheduler.at_work()
        reports = {}
        for key in sorted(at_work.keys() | self.stats.schedules.keys()):
            task, tally = at_work.get(key), self.stats.of_schedule(key)
            reports[key] = ScheduleReport(
                fired=tally.fired,
                missed=tally.missed,
                late_seconds=tally.late_seconds,
                last=_time(task.last) if task else None,
                next=_time(task.next) if task else None,
                problem=task.problem if task else "",
            )
        return reports

    def health(self) -> EventsHealth:
        """How it is."""
        return EventsHealth(
            connected=self.connected, declared=self.declared.is_set(), busy=self.dispatcher.busy
        )

    async def tail(self, broker_key: str) -> AsyncGenerator[Stored, None]:
        """Each event that a broker takes in from the return of this call on."""
        return await self._log.tail(names.broker_stream(broker_key))

    async def close(self, grace_seconds: float = STOP_GRACE_SECONDS) -> None:
        """Stop; deliveries under way for longer than ``grace_seconds`` are made again later."""
        await self.scheduler.close()
        await self.dispatcher.close(grace_seconds)
        await self._recorder.close()
        await self._client.close()
        await self._log.close()


def _time(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


async def connect(broker: Broker, clock: Clock, ending: asyncio.Event) -> EventLog | None:
    """Connect to the event log, however long that takes; ``None`` once ``ending`` is set."""
    connecting = asyncio.ensure_future(_connect(broker, clock))
    await first_of(asyncio.shield(connecting), ending.wait())
    if connecting.done():
        return connecting.result()
    await cancel(connecting)
    return None


async def _connect(broker: Broker, clock: Clock) -> EventLog:
    pause_seconds = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return await brokers.connect(broker, clock)
        except EventLogError as error:
            _LOG.warning("waiting for the event log", extra={"error": str(error)})
            await clock.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
