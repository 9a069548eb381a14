"""Everything that takes in, makes and delivers events and calls: all that works on one event log.

The process that runs it is chosen elsewhere: ``python -m torpor.events`` on a laptop, ``torpor role events``
in a pod. It keeps nothing that counts: what waits is in the event log, what is declared is told to it again
after each start.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from torpor.blobs import BlobStore
from torpor.clock import cancel, first_of
from torpor.errors import EventLogError
from torpor.events import brokers, names
from torpor.events.admission import Admission
from torpor.events.archive import Archive
from torpor.events.blob_sweep import BlobSweep
from torpor.events.call_intake import CallIntake
from torpor.events.call_list import CallList
from torpor.events.call_reader import CallReader
from torpor.events.call_workers import CallWorkers
from torpor.events.callback_urls import REFUSED, Networks
from torpor.events.callbacks import CallbackSender
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
from torpor.events.lag import backlogs
from torpor.events.letters import DeadLetters
from torpor.events.recorder import Recorder
from torpor.events.scheduler import Scheduler
from torpor.events.stats import Stats
from torpor.scaling.backlog import called_by
from torpor.transport import Client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from torpor.clock import Clock
    from torpor.events.brokers import Broker
    from torpor.events.claims import BlobOptions
    from torpor.events.lag import Queue
    from torpor.events.log import EventLog, Stored
    from torpor.scaling.backlog import Backlog

_LOG = logging.getLogger("torpor.events")
_MAX_CONNECTIONS = 4096
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 5.0


class Service:
    """Ingress, scheduler and dispatcher. ``shared`` says that other processes do the same on the same log.

    Data that is too large for an event goes to ``blobs``, if there are any. ``name`` is what this process
    calls itself where it writes down what happened.
    """

    def __init__(
        self,
        log: EventLog,
        clock: Clock,
        *,
        blobs: BlobOptions | None = None,
        stats: Stats | None = None,
        shared: bool = False,
        name: str = "events",
        callbacks_refused: str = REFUSED,
    ) -> None:
        self._log = log
        self._clock = clock
        self.stats = stats or Stats()
        claims = Claims(None)
        self._keeper = blobs.keeper if blobs is not None else None
        self._sweep: BlobSweep | None = None
        if blobs is not None:
            claims = Claims(BlobStore(blobs.url, blobs.keeper), blobs.max_inline_bytes)
            self._sweep = BlobSweep(
                log, blobs.keeper, clock, self.stats, blobs.ttl_seconds, lambda: self._schedule_texts
            )
        self._schedule_texts: tuple[str, ...] = ()
        self._client = Client(max_connections_per_endpoint=_MAX_CONNECTIONS, clock=clock)
        self._sender = GatewaySender(self._client, clock, places=_MAX_CONNECTIONS)
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
        intake = self.dispatcher.intake
        self.scheduler = Scheduler(log, clock, self.stats, intake, self._recorder, shared=shared)
        self.dead_letters = DeadLetters(log, intake, self.stats, self._recorder, self.dispatcher.route)
        self.archive = Archive(
            log, intake, self._recorder, self.dispatcher.routes, self.dispatcher.route, claims
        )
        self.explainer = Explainer(log, clock, self.dispatcher.routes, claims)
        self._admission = Admission(clock, self.stats, self.dispatcher.pending)
        self._callbacks = CallbackSender(Networks(callbacks_refused))
        self.call_workers = CallWorkers(
            log,
            self._sender,
            clock,
            self._callbacks,
            claims,
            self.stats,
            self._recorder,
            shared=shared,
        )
        self.calls = CallReader(log, self.call_workers.is_running)
        self.call_list = CallList(log, self.call_workers.is_running)
        self._call_intake = CallIntake(
            log, self.call_workers, claims, self.stats, self._recorder, self._callbacks.refused
        )
        self.ingress = Ingress(
            intake,
            clock,
            self.stats,
            claims=claims,
            recorder=self._recorder,
            calls=self._call_intake,
            admission=self._admission,
        )
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
        await self.call_workers.apply(declaration.functions)
        self.stats.forget_all_but(
            {
                *(trigger.key for trigger in declaration.triggers),
                *(names.direct_trigger(function) for function in declaration.functions),
            },
            [schedule.key for schedule in declaration.schedules],
            declaration.functions,
        )
        self._admission.set_routes(self.dispatcher.all_routes())
        self.ingress.set_brokers(declared.all_brokers())
        self._schedule_texts = tuple(each.model_dump_json() for each in declaration.schedules)
        self._call_intake.set_callees(declaration.functions)
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

    async def backlogs(self, wanted: Mapping[str, bool]) -> dict[str, Backlog]:
        """What waits in queues, by their keys, of those that are at work; ``wanted`` says whether by age.

        Raises :class:`~torpor.errors.EventLogError`.
        """
        queues: dict[str, Queue] = {}
        for key in wanted:
            called = called_by(key)
            queue = self.dispatcher.queue(key) if called is None else self.call_workers.queue(called)
            if queue is not None:
                queues[key] = queue
        return await backlogs(self._clock, queues, wanted)

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

    @property
    def busy(self) -> int:
        """How many deliveries, calls and callbacks are under way."""
        return self.dispatcher.busy + self.call_workers.busy

    def health(self) -> EventsHealth:
        """How it is."""
        return EventsHealth(connected=self.connected, declared=self.declared.is_set(), busy=self.busy)

    async def tail(self, broker_key: str) -> AsyncGenerator[Stored, None]:
        """Each event that a broker takes in from the return of this call on."""
        return await self._log.tail(names.broker_stream(broker_key))

    async def keep_blobs(self) -> None:
        """For ever: remove blobs that nothing names any more. It is enough that one process does so."""
        await self.declared.wait()
        if self._sweep is not None:
            await self._sweep.run()
        await asyncio.Event().wait()

    async def halt(self) -> None:
        """Begin nothing more; what is under way goes on until :meth:`close`."""
        await self.scheduler.close()
        await self.dispatcher.halt()
        await self.call_workers.halt()

    async def finish(self, grace_seconds: float) -> None:
        """Stop working; what is under way for longer than ``grace_seconds`` is done again later."""
        await asyncio.gather(self.call_workers.close(grace_seconds), self.dispatcher.close(grace_seconds))

    async def close(self, grace_seconds: float = STOP_GRACE_SECONDS) -> None:
        """Stop; deliveries under way for longer than ``grace_seconds`` are made again later."""
        await self.scheduler.close()
        await self.finish(grace_seconds)
        await self.ingress.close()
        await self._recorder.close()
        await self._callbacks.close()
        await self._client.close()
        if self._keeper is not None:
            await self._keeper.close()
        await self._log.close()


def _time(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def collect_seldom() -> None:
    """Look for garbage in cycles less often, for the whole process, and never among what is there already.

    An event leaves none, but makes so many objects that a busy dispatcher spent some 5 % on looking.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


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
