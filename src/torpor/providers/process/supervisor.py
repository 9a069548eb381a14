"""One function's instances: starts, replaces and ends them until there are as many as desired.

A revision replaces another like this: the new one's first instance proves that it starts; then it is the one
that runs, and instances of the old one go as those of the new one become ready, so that there are never
fewer than desired. At rest nothing here uses the processor.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import signal
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from torpor.clock import happens_within
from torpor.errors import EnvironmentBuildError, HandlerError
from torpor.providers.base import FunctionState, Instance, InstanceState
from torpor.providers.process.backoff import Backoff
from torpor.providers.process.instance import InstanceProcess
from torpor.providers.process.launcher import Launcher
from torpor.providers.process.liveness import Liveness
from torpor.providers.process.publication import Publication
from torpor.providers.process.timer import Timer
from torpor.providers.process.variables import DRAIN_MARGIN_SECONDS, for_revision
from torpor.spec.status import LogLine

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from pathlib import Path

    from torpor.clock import Clock
    from torpor.providers.base import EndpointPublisher, Revision
    from torpor.providers.process.environments import Environments
    from torpor.providers.process.parents import Parents
    from torpor.transport import Client

# How long an instance's end waits for the data path; if it has not answered by then, nothing comes through
# it either.
WITHDRAW_SECONDS = 30.0
# An instance that ends itself in time is ahead of this; the rest is killed.
KILL_MARGIN_SECONDS = DRAIN_MARGIN_SECONDS + 4.0
# Instances of one function that start at once: more only get in each other's way.
MAX_STARTING = 16
# Deaths before readiness, in a row, from which on the function counts as one that can't start.
PROBLEM_AFTER_FAILED_STARTS = 2

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the supervisors of all functions share."""

    clock: Clock
    publisher: EndpointPublisher
    client: Client
    parents: Parents
    environments: Environments
    inherited: Mapping[str, str]
    blobs_url: str
    start_seconds: float
    on_line: Callable[[str, LogLine], None]
    on_change: Callable[[str], None]


class Supervisor:
    """Everything that runs for the function ``key``."""

    def __init__(self, key: str, around: Surroundings) -> None:
        self.key = key
        self.desired = 0
        self.restarts = 0
        self._around = around
        self._clock = around.clock
        self._launcher: Launcher | None = None
        self._candidate: Launcher | None = None  # of the revision that is being applied
        self._retired: set[Launcher] = set()
        self._instances: dict[str, InstanceProcess] = {}
        self._publication = Publication(around.publisher, around.clock, key)
        self._liveness = Liveness(around.clock, around.client, self._wedged)
        self._backoff = Backoff()
        self._problem: str | None = None
        self._applying = asyncio.Lock()
        self._retry = Timer(around.clock, self._reconcile)
        self._rest = Timer(around.clock, self._go_to_rest)
        self._resting = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._preparing: asyncio.Task[None] | None = None
        self._start_limits: dict[str, Timer] = {}
        self._removed = False
        self.removed = asyncio.Event()  # and nothing of it is left

    # --- what is asked of it --------------------------------------------------------------------------------

    async def apply(self, revision: Revision) -> None:
        """Make ``revision`` the one that runs; see :class:`torpor.providers.base.Provider`."""
        async with self._applying:
            requirements = revision.function.spec.code.requirements
            packages = await self._around.environments.packages(requirements) if requirements else None
            launcher = self._candidate = self._new_launcher(revision, packages)
            try:
                await launcher.prepare()
                proof = await self._prove(launcher)
            except BaseException:
                launcher.close()
                raise
            finally:
                self._candidate = None
            if self._removed:
                launcher.close()
                raise HandlerError(f"{self.key} was removed while {revision.name} was started")
            self._switch_to(launcher, proof)

    def scale(self, replicas: int) -> None:
        """Set how many instances should run."""
        if replicas != self.desired:
            self.desired = replicas
            self._reconcile()
            self._changed()

    async def remove(self) -> None:
        """Drain and end every instance, and the template."""
        self._removed = True
        self.scale(0)
        async with self._applying:
            if self._preparing is not None:
                self._preparing.cancel()
            for instance in list(self._instances.values()):
                self._drain(instance)
            while self._tasks:
                await asyncio.wait(list(self._tasks))
            for timer in (self._retry, self._rest):
                timer.stop()
            if self._launcher is not None:
                self._launcher.close()
            await self._publication.close()

    def kill_all(self) -> None:
        """End every instance now."""
        for instance in self._instances.values():
            instance.kill()

    # --- what it knows --------------------------------------------------------------------------------------

    @property
    def packages(self) -> set[Path | None]:
        """The environments in use."""
        launchers = {*self._retired, self._launcher, self._candidate}
        return {launcher.packages for launcher in launchers if launcher is not None}

    @property
    def template_pid(self) -> int | None:
        """The process of the template that is in use."""
        return self._launcher.template_pid if self._launcher is not None else None

    def ready(self) -> int:
        """How many instances take requests."""
        return sum(instance.state is InstanceState.READY for instance in self._instances.values())

    def instances(self) -> list[Instance]:
        """The instances, the oldest first."""
        return [instance.describe(self.key) for instance in self._instances.values()]

    def state(self) -> FunctionState | None:
        """What is known beside them; ``None`` until a revision runs."""
        if self._launcher is None:
            return None
        return FunctionState(
            revision=self._launcher.revision.name,
            desired=self.desired,
            restarts=self.restarts,
            start_method=self._launcher.start_method,
            problem=self._problem,
        )

    # --- a new revision -------------------------------------------------------------------------------------

    def _new_launcher(self, revision: Revision, packages: Path | None) -> Launcher:
        around = self._around
        common = for_revision(revision, around.inherited, around.blobs_url)
        if packages is not None:
            common.setdefault("PYTHONPATH", str(packages))
        return Launcher(
            revision,
            packages,
            common,
            clock=around.clock,
            parents=around.parents,
            start_seconds=around.start_seconds,
            on_line=self._line,
            on_lost=self._template_lost,
        )

    async def _prove(self, launcher: Launcher) -> InstanceProcess:
        """Start one instance, which is not yet of the function; it is ready."""
        news = asyncio.Event()
        instance = self._make(launcher, lambda _: news.set(), lambda _: news.set())
        launcher.start(instance)
        try:
            in_time = await happens_within(self._clock, self._around.start_seconds, news)
        except BaseException:
            instance.kill()
            raise
        if instance.state is not InstanceState.READY or instance.gone.is_set():
            instance.kill()
            late = self._too_late()
            raise HandlerError(_why_it_ended(instance, instance.end_reason if in_time else late))
        return instance

    def _switch_to(self, launcher: Launcher, proof: InstanceProcess) -> None:
        old, self._launcher = self._launcher, launcher
        if old is not None:
            self._retired.add(old)
        self._problem = None
        self._backoff = Backoff()
        self._resting = False
        self._instances[proof.id] = proof
        proof.hand_to(self._instance_ready, self._instance_ended)
        self._instance_ready(proof)

    # --- towards what is desired ----------------------------------------------------------------------------

    def _reconcile(self) -> None:
        launcher = self._launcher
        if launcher is None:
            return
        alive = [one for one in self._instances.values() if one.state is not InstanceState.DRAINING]
        current = [one for one in alive if one.launcher is launcher]
        missing = self.desired - len(current)
        if missing > 0:
            self._rest.stop()
            self._resting = False
        if missing > 0 or not (launcher.ready or self._resting or self._removed):
            self._start(launcher, max(missing, 0))
        # Those that are not ready go first, then the youngest.
        current.sort(key=lambda one: (one.state is InstanceState.READY, -one.started_monotonic))
        for instance in current[: max(0, -missing)]:
            self._drain(instance)
        ready = sum(one.state is InstanceState.READY for one in current)
        old = [one for one in alive if one.launcher is not launcher]
        for instance in old[max(0, self.desired - ready) :]:
            self._drain(instance)
        self._retire()
        self._consider_rest(launcher)

    def _start(self, launcher: Launcher, count: int) -> None:
        wait_seconds = self._backoff.wait_seconds(self._clock.monotonic())
        if wait_seconds > 0:
            self._retry.start(wait_seconds)
            return
        if not launcher.ready:
            if self._preparing is None:
                self._preparing = self._spawn(self._prepare(launcher))
            return
        starting = len(self._start_limits)
        for _ in range(min(count, MAX_STARTING - starting)):  # the rest when one of these is ready
            try:
                instance = self._make(launcher, self._instance_ready, self._instance_ended)
            except OSError as error:
                self._failed_to_start(f"no socket or pipe could be made for an instance: {error}")
                return
            self._instances[instance.id] = instance
            limit = Timer(self._clock, functools.partial(self._end_late_start, instance))
            limit.start(self._around.start_seconds)
            self._start_limits[instance.id] = limit
            launcher.start(instance)

    async def _prepare(self, launcher: Launcher) -> None:
        """Make the template anew."""
        try:
            await launcher.prepare()
        except (HandlerError, EnvironmentBuildError) as error:
            self._preparing = None
            if launcher is self._launcher and not self._removed:
                self._failed_to_start(str(error))
            return
        finally:
            self._preparing = None
        if launcher is not self._launcher or self._removed:
            launcher.rest()
        self._reconcile()

    def _failed_to_start(self, problem: str) -> None:
        now = self._clock.monotonic()
        self._backoff = self._backoff.died(now, now, None)
        self._problem = problem
        self._resting = self.desired == 0  # then only the next wake tries again
        _log.warning("%s: %s", self.key, problem)
        self._changed()
        self._reconcile()

    def _drain(self, instance: InstanceProcess) -> None:
        if instance.state is InstanceState.DRAINING:
            return
        served = instance.state is InstanceState.READY
        instance.state = InstanceState.DRAINING
        self._liveness.forget(instance.id)
        self._spawn(self._end(instance, served=served))
        self._changed()

    async def _end(self, instance: InstanceProcess, *, served: bool) -> None:
        """End ``instance`` in the order that loses no request."""
        if served:
            await happens_within(self._clock, WITHDRAW_SECONDS, self._publish())
        instance.signal(signal.SIGTERM)
        timeout_seconds = instance.launcher.revision.function.spec.timeout_seconds
        if not await happens_within(self._clock, timeout_seconds + KILL_MARGIN_SECONDS, instance.gone):
            _log.warning("%s: instance %s did not end in time and is killed", self.key, instance.id)
            instance.kill()
            await instance.gone.wait()

    # --- what happens ---------------------------------------------------------------------------------------

    def _instance_ready(self, instance: InstanceProcess) -> None:
        self._end_start_limit(instance)
        timeout_seconds = instance.launcher.revision.function.spec.timeout_seconds
        self._liveness.watch(instance.id, instance.endpoint, timeout_seconds)
        self._backoff = self._backoff.became_ready()
        self._problem = None
        self._publish()
        self._reconcile()
        self._changed()

    def _instance_ended(self, instance: InstanceProcess) -> None:
        self._end_start_limit(instance)
        self._liveness.forget(instance.id)
        self._instances.pop(instance.id, None)
        instance.launcher.instances -= 1
        if instance.state is not InstanceState.DRAINING:
            self._died(instance, instance.end_reason)
        self._publish()
        self._reconcile()
        self._changed()

    def _wedged(self, identity: str, silent_seconds: float) -> None:
        """Replace an instance that hangs like one that died: it may be long in dying, or not even do that."""
        instance = self._instances[identity]
        reason = f"did not answer for {silent_seconds:g} s and is killed"
        self._died(instance, reason)
        instance.state = InstanceState.DRAINING
        self._publish()
        instance.kill(reason)
        self._spawn(_await_end(instance))
        self._reconcile()
        self._changed()

    def _died(self, instance: InstanceProcess, reason: str | None) -> None:
        self.restarts += 1
        self._backoff = self._backoff.died(
            self._clock.monotonic(), instance.started_monotonic, instance.ready_monotonic
        )
        why = _why_it_ended(instance, reason)
        _log.warning("%s: %s", self.key, why)
        if self._backoff.failed_starts >= PROBLEM_AFTER_FAILED_STARTS:
            self._problem = why

    def _template_lost(self) -> None:
        _log.warning("%s: its template has ended", self.key)
        if self._launcher is not None:
            prepared_at = self._launcher.prepared_monotonic
            self._backoff = self._backoff.died(self._clock.monotonic(), prepared_at, prepared_at)
        asyncio.get_running_loop().call_soon(self._reconcile)  # after its instances are told to have ended

    def _end_late_start(self, instance: InstanceProcess) -> None:
        instance.kill(self._too_late())
        if instance.pid is None:
            instance.launcher.kill_wedged()

    def _end_start_limit(self, instance: InstanceProcess) -> None:
        limit = self._start_limits.pop(instance.id, None)
        if limit is not None:
            limit.stop()

    # --- rest -----------------------------------------------------------------------------------------------

    def _consider_rest(self, launcher: Launcher) -> None:
        if self.desired > 0 or launcher.instances > 0 or self._resting:
            self._rest.stop()
        elif not self._rest.running:
            scaling = launcher.revision.function.spec.scaling
            self._rest.start(scaling.parked_for_seconds if scaling.idle != "zero" else 0.0)

    def _go_to_rest(self) -> None:
        if self._launcher is not None and self.desired == 0:
            self._resting = True
            self._retry.stop()
            self._launcher.rest()

    def _retire(self) -> None:
        for launcher in [one for one in self._retired if one.instances == 0]:
            self._retired.discard(launcher)
            launcher.rest()

    # --- small things ---------------------------------------------------------------------------------------

    def _make(
        self,
        launcher: Launcher,
        on_ready: Callable[[InstanceProcess], None],
        on_ended: Callable[[InstanceProcess], None],
    ) -> InstanceProcess:
        return InstanceProcess(
            f"{launcher.revision.name}-{secrets.token_hex(3)}",
            launcher,
            self._clock,
            on_line=self._line,
            on_ready=on_ready,
            on_ended=on_ended,
        )

    def _too_late(self) -> str:
        return f"was not ready after {self._around.start_seconds:g} s"

    def _publish(self) -> asyncio.Event:
        return self._publication.want(
            [one.endpoint for one in self._instances.values() if one.state is InstanceState.READY]
        )

    def _line(self, instance: str, stream: Literal["stdout", "stderr"], text: str) -> None:
        time = datetime.fromtimestamp(self._clock.now(), UTC)
        self._around.on_line(self.key, LogLine(time=time, instance=instance, stream=stream, text=text))

    def _changed(self) -> None:
        self._around.on_change(self.key)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _await_end(instance: InstanceProcess) -> None:
    await instance.gone.wait()


def _why_it_ended(instance: InstanceProcess, reason: str | None) -> str:
    tail = "\n".join(instance.last_errors)
    return f"instance {instance.id} {reason}\n{tail}".rstrip()
