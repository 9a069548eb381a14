"""A whole platform on this machine: its parts put together, started, watched over and ended in order.

It decides nothing itself. It keeps :class:`torpor.api.backend.Backend`, so that the API can show it; the
caller serves the API, which stands above it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING

from torpor.blobs import BlobStore
from torpor.clock import cancel
from torpor.errors import EventLogError, TorporError
from torpor.events.declared import Callee
from torpor.events.names import DEFAULT_BROKER
from torpor.events.views import broker_statuses, schedule_status, trigger_status
from torpor.gateway.gateway import Gateway
from torpor.local.events_process import EventsProcess
from torpor.local.lock import DataFolder
from torpor.local.logs import LogBook
from torpor.local.ports import require_free
from torpor.local.reload import Reloader
from torpor.local.reports import News, Report
from torpor.local.views import Facts, function_status, removed_in_words, scale_in_words
from torpor.local.watch import changes
from torpor.providers.process.provider import ProcessProvider
from torpor.scaling.backlog import Backlog, BacklogLoads, waiting
from torpor.scaling.loop import Autoscaler
from torpor.spec.calls import CallQuestion
from torpor.spec.status import PlatformStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from torpor.binding import WireEvent
    from torpor.blobs import OpenBlob
    from torpor.clock import Clock
    from torpor.endpoint import Endpoint
    from torpor.local.reports import Tell
    from torpor.otlp import Tracer
    from torpor.spec.calls import CallPage, CallSelection, CallStatus
    from torpor.spec.history import Answer, Question
    from torpor.spec.letters import DeadLetter, LetterAction, LetterOutcome, LetterSelection
    from torpor.spec.models import Function, Schedule, Trigger
    from torpor.spec.replays import Replay, ReplayPage
    from torpor.spec.status import (
        BrokerStatus,
        FunctionStatus,
        LogLine,
        PartStatus,
        ScheduleStatus,
        TriggerStatus,
    )

HOST = "127.0.0.1"
"""Nobody but this machine is served: a laptop's platform has no access control yet."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a person chooses: what to run, where it is served, and where things are kept."""

    paths: tuple[Path, ...]
    port: int
    data_dir: Path
    cache_dir: Path
    log_level: str
    broker: str = "nats"
    """``nats``, ``kafka``, or the URL of a broker that is there."""


class LocalPlatform:
    """Runs while its block is entered. ``api`` is where the caller serves the API; ``tracer``, which it
    closes, exports traces of cold starts.

    Entering raises :class:`~torpor.errors.StartError`; then nothing is left running.
    """

    def __init__(
        self, options: Options, api: Endpoint, clock: Clock, tell: Tell, tracer: Tracer | None = None
    ) -> None:
        self._options = options
        self._api = (api,)
        self._clock = clock
        self._tell = tell
        self._started_at = clock.now()
        self._folder = DataFolder(options.data_dir)
        self._blobs_url = (options.data_dir / "blobs").absolute().as_uri()
        self._blobs = BlobStore(self._blobs_url)
        self._book = LogBook()
        self._gateway = Gateway(
            host=HOST,
            port=options.port,
            clock=clock,
            work_dir=options.data_dir / "gateway",
            wake=self._wake,
        )
        self._gateway.follow_process(partial(self._part_changed, "gateway"))
        self._gateway.follow_starts(tracer=tracer)
        self._provider = ProcessProvider(
            clock=clock,
            publisher=self._gateway,
            on_line=self._book.add,
            cache_dir=options.cache_dir,
            blobs_url=self._blobs_url,
            on_parent=partial(self._part_changed, "torpor-parent"),
        )
        lag = BacklogLoads(clock, self._gateway.observe, self._lagging, self._backlogs)
        self._autoscaler = Autoscaler(clock=clock, observe=lag.observe, fleet=self._provider)
        self._events = EventsProcess(
            options.data_dir / "events",
            self._blobs_url,
            options.log_level,
            clock,
            tell,
            broker=options.broker,
        )
        self._reloader = Reloader(options.paths, self._provider, self, clock, tell)
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._shown: dict[str, tuple[int, int]] = {}

    # --- life -------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._folder.__enter__()
        try:
            if self._options.port:
                require_free(HOST, self._options.port)
            self._options.data_dir.joinpath("blobs").mkdir(exist_ok=True)
            await _all(self._gateway.start(), self._events.start())
            # What is declared may be wrong at first: the API answers all the same.
            await self._gateway.configure([], events=(), api=self._api)
            self._provider.subscribe(self._changed)
            self._tasks = [
                asyncio.create_task(self._autoscaler.run()),
                asyncio.create_task(self._watch()),
            ]
            await self._reloader.reload()
        except BaseException:
            await self._close()
            raise
        self._tell(Report(News.READY, self.url, "up"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tell(Report(News.STOPPING, self.url, "ending what runs"))
        await self._close()

    async def _close(self) -> None:
        self._stopping.set()
        await self._reloader.close()
        await cancel(*self._tasks)
        try:
            # The gateway stays until the last instance has answered, the broker until the dispatcher is done.
            await self._events.close_dispatcher()
            await self._provider.close()
        finally:
            await asyncio.gather(self._gateway.close(), self._events.close())
            self._folder.__exit__(None, None, None)

    async def _watch(self) -> None:
        """Reload after each change of a declaration, or of the code of a function."""
        while not self._stopping.is_set():
            roots = self._roots()
            async with contextlib.aclosing(changes(roots, self._stopping)) as bursts:
                async for _ in bursts:
                    await self._reloader.reload()
                    if self._roots() != roots:
                        break

    def _roots(self) -> list[Path]:
        code = [function.spec.code.path for function in self._reloader.current.functions.values()]
        roots: list[Path] = []
        for path in sorted({path.resolve() for path in (*self._options.paths, *code)}):
            if path.exists() and not any(path.is_relative_to(root) for root in roots):
                roots.append(path)
        return roots

    def _wake(self, key: str) -> None:
        """A request waits for an instance."""
        self._autoscaler.poke(key)
        self._gateway.reached(key, "decide")

    def _part_changed(self, name: str, problem: str | None) -> None:
        self._tell(Report(News.PART, name, problem or "is back"))

    def _changed(self, key: str) -> None:
        """The instances of a function have changed, or what keeps them from running."""
        state = self._provider.state(key)
        if state is None:
            return
        self._gateway.fail(key, state.problem)
        ready = self._provider.ready(key)
        if self._shown.get(key, (0, 0)) != (ready, state.desired):
            self._shown[key] = (ready, state.desired)
            self._tell(Report(News.SCALED, key, scale_in_words(ready, state.desired)))

    # --- what the reloader asks of the data path --------------------------------------------------------

    async def serve(
        self,
        functions: Mapping[str, Function],
        triggers: Mapping[str, Trigger],
        schedules: Mapping[str, Schedule],
    ) -> None:
        """Lead requests to ``functions`` and events through ``triggers``, and to no others; and fire
        ``schedules``.
        """
        for key in self._reloader.current.functions.keys() - functions.keys():
            self._autoscaler.forget(key)
            self._book.forget(key)
        await self._gateway.configure(list(functions.values()), events=[self._events.ingress], api=self._api)
        for key, function in functions.items():
            self._autoscaler.set(key, function.spec)
        removed = self._reloader.current.triggers.keys() - triggers.keys()
        waiting: Mapping[str, int] = {}
        if removed:
            with contextlib.suppress(EventLogError):  # then it is not told how many wait
                waiting = await self._pending()
        await self._events.declare(
            list(triggers.values()),
            list(schedules.values()),
            [DEFAULT_BROKER],
            {key: self._callee(function) for key, function in functions.items()},
            self._gateway.internal,
        )
        for key in sorted(removed):
            self._tell(Report(News.REMOVED, key, removed_in_words(waiting.get(key, 0))))

    def _callee(self, function: Function) -> Callee:
        state = self._provider.state(function.key)
        return Callee.of(function, state.revision if state is not None else "")

    async def _pending(self) -> Mapping[str, int]:
        """How many events wait for each trigger."""
        return {key: report.pending for key, report in (await self._events.state()).triggers.items()}

    def fail(self, key: str, problem: str | None) -> None:
        """Requests for the function can't be served, or can be again (``None``)."""
        self._gateway.fail(key, problem)

    # --- what scales functions by their events ----------------------------------------------------------

    def _lagging(self) -> Mapping[str, bool]:
        return {
            key: function.spec.scaling.target_age_seconds is not None
            for key, function in self._reloader.current.functions.items()
            if function.spec.scaling.metric == "lag" and self._autoscaler.is_awake(key)
        }

    async def _backlogs(self, lagging: Mapping[str, bool]) -> Mapping[str, Backlog]:
        declared = self._reloader.current.triggers.items()
        triggers = {key: trigger.function_key for key, trigger in declared}
        return await waiting(lagging, triggers, self._events.backlogs)

    # --- what the API shows -----------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where functions are called and events are sent."""
        return f"http://{self._gateway.address}"

    async def functions(self) -> Sequence[FunctionStatus]:
        """Every declared function."""
        loads = await self._gateway.observe()
        now = self._reloader.current
        statuses = []
        for key, function in now.functions.items():
            load = loads.get(key)
            facts = Facts(
                url=f"{self.url}/function/{function.metadata.name}.{function.metadata.namespace}",
                declared_in=now.origins.get(("Function", key), ""),
                state=self._provider.state(key),
                instances=self._provider.instances(key),
                scaling=self._autoscaler.explain(key),
                requests=load.requests_total if load else 0,
                problem=now.problems.get(key),
            )
            statuses.append(function_status(function, facts))
        return statuses

    async def function(self, key: str) -> FunctionStatus | None:
        """One function."""
        return next((one for one in await self.functions() if f"{one.namespace}/{one.name}" == key), None)

    async def triggers(self) -> Sequence[TriggerStatus]:
        """Every declared trigger."""
        state = await self._events.state()
        return [
            trigger_status(trigger, state.counts(key), state.problem(key))
            for key, trigger in self._reloader.current.triggers.items()
        ]

    async def schedules(self) -> Sequence[ScheduleStatus]:
        """Every declared schedule."""
        state = await self._events.state()
        return [
            schedule_status(schedule, state.schedules.get(key))
            for key, schedule in self._reloader.current.schedules.items()
        ]

    async def brokers(self) -> Sequence[BrokerStatus]:
        """Every broker."""
        declared = self._reloader.current.triggers.items()
        brokers = [(key, trigger.broker_key) for key, trigger in declared]
        filled = [schedule.broker_key for schedule in self._reloader.current.schedules.values()]
        return broker_statuses(brokers, await self._events.state(), self.url, filled)

    async def status(self) -> PlatformStatus:
        """The platform itself."""
        now = self._reloader.current
        return PlatformStatus(
            version=metadata.version("torpor"),
            started_at=datetime.fromtimestamp(self._started_at, UTC),
            gateway_url=self.url,
            parts=tuple(await self._parts()),
            functions=len(now.functions),
            triggers=len(now.triggers),
            schedules=len(now.schedules),
            sources=tuple(str(path) for path in self._options.paths),
            loaded_at=None if now.loaded_at is None else datetime.fromtimestamp(now.loaded_at, UTC),
            faults=(*now.faults, *(f"{key}: {text}" for key, text in sorted(now.problems.items()))),
        )

    async def _parts(self) -> list[PartStatus]:
        return [self._gateway.status(), *await self._events.parts()]

    def logs(self, key: str, *, tail: int, follow: bool) -> AsyncIterator[LogLine]:
        """The last lines of a function's instances."""
        return self._book.read(key, tail=tail, follow=follow)

    async def tail(self, broker: str) -> AsyncIterator[WireEvent]:
        """Events of a broker from now on."""
        return await self._events.tail(broker)

    async def dead_letters(self, selection: LetterSelection) -> AsyncIterator[DeadLetter]:
        """The dead letters of a selection."""
        return await self._events.control.dead_letters(selection)

    async def dead_letter(self, letter_id: str) -> DeadLetter | None:
        """One dead letter."""
        return await self._events.control.dead_letter(letter_id)

    async def replay(self, action: LetterAction) -> Sequence[LetterOutcome]:
        """Deliver dead letters again."""
        return await self._events.control.replay(action)

    async def drop(self, action: LetterAction) -> Sequence[LetterOutcome]:
        """Remove dead letters for good."""
        return await self._events.control.drop(action)

    async def replay_events(self, broker: str, replay: Replay) -> ReplayPage:
        """Deliver events again that a broker still has."""
        return await self._events.control.replay_events(broker, replay)

    async def explain(self, question: Question) -> Answer:
        """What happened to the events of an id."""
        return await self._events.control.explain(question)

    async def call(self, call_id: str) -> CallStatus | None:
        """A call that nobody waits for."""
        return await self._events.control.call(call_id)

    async def calls(self, selection: CallSelection) -> CallPage:
        """Calls that nobody waits for."""
        return await self._events.control.calls(CallQuestion(selection=selection))

    async def put_blob(self, chunks: AsyncIterator[bytes], content_type: str | None) -> str:
        """Store a blob."""
        return await self._blobs.put_stream(chunks, content_type)

    async def get_blob(self, name: str) -> OpenBlob:
        """Read a blob."""
        return await self._blobs.open(name)


async def _all(*starts: Awaitable[None]) -> None:
    """Await all of ``starts`` at once; when one fails the others are ended first, and its error is raised."""
    tasks = [asyncio.ensure_future(start) for start in starts]
    try:
        await asyncio.gather(*tasks)
    except TorporError:
        await cancel(*tasks)
        raise
