"""Keeps a worker for each function that has calls nobody waits for.

Which functions these are is in the log: those whose calls have a durable consumer. It is made before the
first call of a function is accepted, and every process that works on the log comes upon it. A function that
is not declared any more keeps its worker until none of its calls waits: each still gets an outcome.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from typing import TYPE_CHECKING

from torpor.clock import cancel
from torpor.errors import EventLogError
from torpor.events import names
from torpor.events.call_worker import PARALLELISM, CallWorker, Office
from torpor.events.declared import UNKNOWN
from torpor.events.dispatcher import HOLD_SECONDS
from torpor.events.log import StreamSpec
from torpor.events.recorder import stream_spec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from torpor.clock import Clock
    from torpor.events.claims import Claims
    from torpor.events.declared import Callee
    from torpor.events.lag import Queue
    from torpor.events.log import EventLog
    from torpor.events.recorder import Recorder
    from torpor.events.sender import Forwarder, Poster
    from torpor.events.stats import Stats

_LOG = logging.getLogger("torpor.events")
OUTCOME_SECONDS = 86_400.0
"""How long an outcome is kept."""
OUTCOMES_BYTES = 4 * 1024**3
CALLS_BYTES = 8 * 1024**3
CALLBACKS_BYTES = 4 * 1024**3
_DONE_SECONDS = 3600.0  # more than it takes to read an outcome after its call was not found
LOOK_SECONDS = 10.0
"""How soon a process comes upon functions whose first call another one accepted."""


class CallWorkers:
    """All workers. ``shared`` says that other processes work on the same log."""

    def __init__(
        self,
        log: EventLog,
        forwarder: Forwarder,
        clock: Clock,
        callbacks: Poster,
        claims: Claims,
        stats: Stats,
        recorder: Recorder,
        *,
        shared: bool = False,
    ) -> None:
        self._log = log
        self._clock = clock
        self._office = Office(log, clock, forwarder, callbacks, claims, stats, recorder)
        self._shared = shared
        self._callees: Mapping[str, Callee] = {}
        self._workers: dict[str, CallWorker] = {}
        self._ending: dict[asyncio.Task[None], CallWorker] = {}
        self._resting: set[str] = set()
        self._taking: Counter[str] = Counter()
        self._changing = asyncio.Lock()
        self._halted = False
        self._looker: asyncio.Task[None] | None = None

    @property
    def busy(self) -> int:
        """How many calls and callbacks are under way."""
        return sum(each.busy for each in (*self._workers.values(), *self._ending.values()))

    def is_running(self, call_id: str) -> bool:
        """Whether this process is making the call."""
        return call_id in self._office.running

    def running(self) -> set[str]:
        """The ids of the calls that this process is making."""
        return set(self._office.running)

    def queue(self, function_key: str) -> Queue | None:
        """The calls of a function that wait, if this process works on any."""
        worker = self._workers.get(function_key)
        return None if worker is None else worker.queue

    async def apply(self, callees: Mapping[str, Callee]) -> None:
        """Work on all calls that there are; ``callees`` are the functions. Raises ``EventLogError``."""
        self._callees = callees
        await self._log.ensure_stream(StreamSpec(names.CALLS, max_bytes=CALLS_BYTES))
        await self._log.ensure_stream(
            StreamSpec(
                names.OUTCOMES, max_age_seconds=OUTCOME_SECONDS, max_bytes=OUTCOMES_BYTES, once_per_key=True
            )
        )
        await self._log.ensure_stream(
            StreamSpec(names.CALLBACKS, max_bytes=CALLBACKS_BYTES, once_per_key=True)
        )
        await self._log.ensure_stream(stream_spec(names.CALLS))
        await self._follow()
        if self._looker is None:
            self._looker = asyncio.create_task(self._look_for_ever())

    @contextlib.asynccontextmanager
    async def taking(self, function_key: str) -> AsyncIterator[None]:
        """A block in which calls of the function may be stored: whatever happens then, they are made."""
        self._taking[function_key] += 1
        try:
            if function_key not in self._workers:
                async with self._changing:
                    await self._start(function_key)
            yield
        finally:
            self._taking[function_key] -= 1

    async def strays(self) -> set[str]:
        """The functions that are not declared to this process, and none of whose calls waits anywhere."""
        async with self._changing:
            for key in sorted(self._resting):
                if await self._worker(key).left():
                    self._resting.discard(key)  # which has it worked on again
            return set(self._resting)

    async def remove(self, function_keys: Iterable[str]) -> None:
        """Forget functions that are among the strays."""
        async with self._changing:
            for key in sorted(self._resting.intersection(function_keys)):
                if not self._taking[key]:
                    await self._log.remove_consumer(names.CALLS, names.call_consumer(key))
                    await self._log.remove_consumer(names.CALLBACKS, names.callback_consumer(key))

    async def halt(self) -> None:
        """Begin nothing more; what is under way goes on until :meth:`close`."""
        self._halted = True
        if self._looker is not None:
            await cancel(self._looker)
            self._looker = None
        async with self._changing:
            await asyncio.gather(*(each.halt() for each in self._workers.values()))

    async def close(self, grace_seconds: float) -> None:
        """Stop; what is under way for longer than ``grace_seconds`` is done again later."""
        await self.halt()
        # Of those that are ending already, with a grace of their own, the shorter one counts.
        workers = (*self._workers.values(), *self._ending.values())
        await asyncio.gather(*(each.stop(grace_seconds) for each in workers))
        await asyncio.gather(*self._ending)
        self._workers = {}

    # --- within ---------------------------------------------------------------------------------------------

    def _worker(self, function_key: str) -> CallWorker:
        callee = self._callees.get(function_key, UNKNOWN)
        timeout_seconds, parallelism = callee.timeout_seconds + HOLD_SECONDS, callee.at_once(PARALLELISM)
        return CallWorker(function_key, self._office, timeout_seconds, parallelism)

    async def _start(self, function_key: str) -> None:
        if function_key in self._workers:
            return
        worker = self._worker(function_key)
        if self._halted:  # then others are to find it
            await worker.left()
            return
        try:
            await worker.start()
        except BaseException:
            await worker.stop(0.0)
            raise
        self._workers[function_key] = worker
        self._resting.discard(function_key)

    async def _end(self, function_key: str) -> None:
        await self._workers.pop(function_key).stop(0.0)

    async def _follow(self) -> None:
        """Have a worker for each function whose calls have a consumer, but for those that rest."""
        async with self._changing:
            found = {names.called_function(each) for each in await self._log.consumers(names.CALLS)}
            self._resting = self._resting & found - self._callees.keys()
            for key in self._workers.keys() - found:
                await self._end(key)
            for key, worker in list(self._workers.items()):
                if key in self._callees and worker.terms != self._worker(key).terms:
                    await self._replace(key, worker)
            for key in sorted(found - self._resting):
                await self._start(key)

    async def _replace(self, function_key: str, worker: CallWorker) -> None:
        """Have another worker begin calls; what is under way goes on, for as long as it may take."""
        await worker.halt()
        del self._workers[function_key]
        task = asyncio.create_task(worker.stop(worker.terms[0]))
        self._ending[task] = worker
        task.add_done_callback(self._ending.pop)
        await self._start(function_key)

    async def _rest(self) -> None:
        """Have no worker for a function that is not declared and has no calls that wait."""
        async with self._changing:
            for key in self._workers.keys() - self._callees.keys():
                if not self._taking[key] and not await self._workers[key].pending():
                    await self._end(key)
                    self._resting.add(key)

    async def _look_for_ever(self) -> None:
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            try:
                await self._follow()
                await self._rest()
                if not self._shared:
                    await self.remove(await self.strays())
                for stream in (names.CALLS, names.CALLBACKS):
                    await self._log.trim(stream, self._clock.now() - _DONE_SECONDS)
            except EventLogError as error:
                _LOG.warning("calls can't be looked after", extra={"error": str(error)})
