"""Brings what runs to what is declared, again and again.

A wrong file changes nothing, and a function whose newest version can't run keeps the one before.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from torpor.clock import cancel
from torpor.errors import DeclarationError, EnvironmentBuildError, HandlerError, TorporError
from torpor.local.plan import plan
from torpor.local.reports import News, Report
from torpor.local.sources import fingerprint
from torpor.providers.base import Revision
from torpor.spec.load import Declared, load

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence
    from pathlib import Path

    from torpor.clock import Clock
    from torpor.local.reports import Tell
    from torpor.providers.base import Provider
    from torpor.spec.models import Function, Schedule, Trigger

_AT_ONCE = 4
PATIENCE_SECONDS = 5.0
"""How long a reload waits for functions to start; those that take longer follow when they have."""
MISSING_SECONDS = 2.0
"""How long a declaration must be missing to count as removed: editors empty a file before they write it."""
_WAITING = "what has changed since waits until this is put right"
_NOTHING = "nothing is served until this is put right"


class DataPath(Protocol):
    """What has to know which functions, triggers and schedules there are."""

    async def serve(
        self,
        functions: Mapping[str, Function],
        triggers: Mapping[str, Trigger],
        schedules: Mapping[str, Schedule],
    ) -> None:
        """Lead requests to ``functions`` and events through ``triggers``, and to no others; and fire
        ``schedules``.
        """
        ...

    def fail(self, key: str, problem: str | None) -> None:
        """Requests for the function can't be served, or can be again (``None``)."""
        ...


@dataclass(slots=True)
class Current:
    """What holds at the moment. Keys are ``namespace/name``."""

    functions: dict[str, Function] = field(default_factory=dict)
    """As they run; where the newest version is broken, this is the one before, if there was one."""
    triggers: dict[str, Trigger] = field(default_factory=dict)
    schedules: dict[str, Schedule] = field(default_factory=dict)
    origins: dict[tuple[str, str], str] = field(default_factory=dict)
    """``file:line`` by kind and key."""
    problems: dict[str, str] = field(default_factory=dict)
    """By function: what keeps its newest version from running."""
    faults: tuple[str, ...] = ()
    loaded_at: float | None = None


class Reloader:
    """Loads declarations from ``paths`` and applies what has changed. Belongs to one running loop."""

    def __init__(
        self, paths: Sequence[Path], provider: Provider, data_path: DataPath, clock: Clock, tell: Tell
    ) -> None:
        self._paths = paths
        self._provider = provider
        self._data_path = data_path
        self._clock = clock
        self._tell = tell
        self._declared = Declared()
        self._prints: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        self._starting: dict[str, asyncio.Task[Report]] = {}
        self._missing: dict[tuple[str, str], float] = {}  # kind and key, and since when
        self._lock = asyncio.Lock()
        self._limit = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self.current = Current()

    async def reload(self) -> None:
        """Do it once; what is wrong is told and kept in ``current``, never raised.

        Functions that take long to start don't hold up the others.
        """
        async with self._lock:
            try:
                declared, prints = await asyncio.to_thread(self._read)
            except DeclarationError as error:
                is_first = self.current.loaded_at is None
                self._refuse((*error.faults, _NOTHING if is_first else _WAITING))
                return
            try:
                await self._take_over(self._with_lately_missing(declared), prints)
            except TorporError as error:  # the data path can't take it in: try again at the next change
                self._prints = dict.fromkeys(self._prints | prints, "")
                self._refuse((str(error),))

    async def close(self) -> None:
        """Start nothing more, and take nothing over any more."""
        tasks = [*self._tasks, *self._starting.values()]
        await cancel(*tasks)

    # --- what is declared -----------------------------------------------------------------------------------

    def _read(self) -> tuple[Declared, dict[str, str]]:
        declared = load(self._paths, local=True)
        prints = {
            key: fingerprint(function, function.spec.code.path)
            for key, function in declared.functions.items()
        }
        return declared, prints

    def _refuse(self, faults: tuple[str, ...]) -> None:
        if faults != self.current.faults:
            for fault in faults:
                self._tell(Report(News.FAULT, "declarations", fault))
        self.current.faults = faults

    def _with_lately_missing(self, declared: Declared) -> Declared:
        """``declared`` and what was declared a moment ago: it may be a file that is just being written."""
        now = self._clock.monotonic()
        before = self._declared
        missing = before.origins.keys() - declared.origins.keys()
        self._missing = {each: self._missing.get(each, now) for each in missing}
        kept = {each for each, since in self._missing.items() if now - since < MISSING_SECONDS}
        if kept:
            self._spawn(self._reload_later())
        functions = {key: one for key, one in before.functions.items() if ("Function", key) in kept}
        triggers = {key: one for key, one in before.triggers.items() if ("Trigger", key) in kept}
        schedules = {key: one for key, one in before.schedules.items() if ("Schedule", key) in kept}
        return Declared(
            functions={**functions, **declared.functions},
            triggers={**triggers, **declared.triggers},
            schedules={**schedules, **declared.schedules},
            origins={**{each: before.origins[each] for each in kept}, **declared.origins},
        )

    async def _reload_later(self) -> None:
        await self._clock.sleep(MISSING_SECONDS)
        await self.reload()

    # --- what runs ------------------------------------------------------------------------------------------

    async def _take_over(self, declared: Declared, prints: dict[str, str]) -> None:
        kept = {key: self._prints.get(key, "") for key in declared.functions if key not in prints}
        steps = plan(self._prints, {**kept, **prints})
        changed = bool(steps.apply or steps.remove or self.current.faults)
        changed = changed or declared.triggers != self.current.triggers
        changed = changed or declared.schedules != self.current.schedules
        for key in (*steps.apply, *steps.remove):
            await self._stop_starting(key)
        for key in steps.apply:
            self._starting[key] = asyncio.create_task(self._apply(declared.functions[key]))
        self._declared, self._prints = declared, {**kept, **prints}
        await self._wait_for([self._starting[key] for key in steps.apply])
        await self._settle()
        for key in steps.remove:
            await self._provider.remove(key)
            self._tell(Report(News.REMOVED, key, "no longer declared"))
        self.current.faults = ()
        self.current.loaded_at = self._clock.now()
        if changed:
            functions, triggers = len(declared.functions), len(declared.triggers)
            text = f"{_count(functions, 'function')}, {_count(triggers, 'trigger')}"
            if declared.schedules:
                text += f", {_count(len(declared.schedules), 'schedule')}"
            self._tell(Report(News.LOADED, "declarations", text))
        for key, task in self._starting.items():
            if key in steps.apply:
                self._tell(Report(News.STARTING, key, "takes its time; requests to it are held"))
                self._spawn(self._follow(key, task))

    async def _settle(self) -> None:
        """Have the data path lead to what runs, as far as that is known, and then tell of it."""
        declared, now = self._declared, self.current
        outcomes = {key: task.result() for key, task in self._starting.items() if task.done()}
        for key in outcomes:
            del self._starting[key]
        known = {key: text for key, text in now.problems.items() if key not in outcomes}
        known |= {key: outcome.text for key, outcome in outcomes.items() if outcome.news is News.BROKEN}
        problems = {key: text for key, text in known.items() if key in declared.functions}
        running = {
            key: now.functions.get(key, function) if key in problems or key in self._starting else function
            for key, function in declared.functions.items()
        }
        await self._data_path.serve(running, declared.triggers, declared.schedules)
        for key in outcomes:
            # With a version before, that one serves on; without, callers are told why there is none.
            self._data_path.fail(key, problems.get(key) if self._provider.state(key) is None else None)
        now.functions, now.triggers, now.problems = running, dict(declared.triggers), problems
        now.schedules = dict(declared.schedules)
        now.origins = {identity: str(origin) for identity, origin in declared.origins.items()}
        for outcome in outcomes.values():
            self._tell(outcome)

    async def _apply(self, function: Function) -> Report:
        """Have the provider take over ``function``; what came of it."""
        key = function.key
        async with self._limit:
            number = self._numbers[key] = self._numbers.get(key, 0) + 1
            try:
                await self._provider.apply(Revision(f"{function.metadata.name}-{number:05d}", function))
            except (HandlerError, EnvironmentBuildError) as error:
                return Report(News.BROKEN, key, str(error))
        return Report(News.APPLIED, key, f"revision {function.metadata.name}-{number:05d}")

    async def _wait_for(self, starting: Sequence[asyncio.Task[Report]]) -> None:
        if not starting:
            return
        patience = asyncio.create_task(self._patience())
        waited: set[asyncio.Task[Any]] = {*starting}
        while waited and not patience.done():
            _, waited = await asyncio.wait({*waited, patience}, return_when=asyncio.FIRST_COMPLETED)
            waited.discard(patience)
        patience.cancel()

    async def _patience(self) -> None:
        await self._clock.sleep(PATIENCE_SECONDS)

    async def _follow(self, key: str, task: asyncio.Task[Report]) -> None:
        """Take over a function that took long, once it has started or failed."""
        await asyncio.wait([task])
        async with self._lock:
            if self._starting.get(key) is not task:
                return
            try:
                await self._settle()
            except TorporError as error:
                self._prints[key] = ""
                self._refuse((str(error),))

    async def _stop_starting(self, key: str) -> None:
        task = self._starting.pop(key, None)
        if task is not None:
            await cancel(task)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
