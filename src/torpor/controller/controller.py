"""The controller put together: mirrors, queues, reconcilers and the autoscaler, at work while it leads."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING

from torpor.controller import names
from torpor.controller.backlogs import Backlogs
from torpor.controller.events import Recorder
from torpor.controller.firings import EventsPods, Firings
from torpor.controller.fleet import ClusterFleet
from torpor.controller.functions import FunctionReconciler
from torpor.controller.instances import parked_since
from torpor.controller.loads import GatewayLoads
from torpor.controller.podstarts import PodStarts
from torpor.controller.pulls import follow_pulls
from torpor.controller.queue import WorkQueue
from torpor.controller.schedules import ScheduleReconciler
from torpor.controller.spans import PodStartSpans
from torpor.controller.status import is_ready
from torpor.controller.telemetry import ControllerMetrics, InstanceFigures, Sight
from torpor.controller.triggers import TriggerReconciler, naming, sinking
from torpor.controller.world import World, function_key
from torpor.providers.kubernetes import resources
from torpor.providers.kubernetes.leader import Leader
from torpor.scaling.backlog import BacklogLoads
from torpor.scaling.loop import Autoscaler
from torpor.transport import Client

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torpor.clock import Clock
    from torpor.controller.manifests import Platform
    from torpor.controller.podstarts import Part
    from torpor.otlp import Tracer
    from torpor.providers.kubernetes.kube import Kube
    from torpor.scaling.loop import ScalingState

_LOG = logging.getLogger("torpor.controller")
LEASE = "torpor-controller"


class Controller:
    """One of the controllers of a cluster; ``identity`` is its own, such as its pod's name.

    With a ``tracer``, which is the caller's to close, the starts of pods are in the traces of who waits.
    """

    def __init__(
        self, kube: Kube, clock: Clock, platform: Platform, identity: str, tracer: Tracer | None = None
    ) -> None:
        self._tracer = tracer
        self._kube = kube
        self._clock = clock
        self._platform = platform
        self._identity = identity
        self.metrics = ControllerMetrics(lambda: self.leading)
        self._leader = Leader(kube, clock, namespace=platform.namespace, name=LEASE, identity=identity)
        self._autoscaler: Autoscaler | None = None

    @property
    def leading(self) -> bool:
        """Whether it is at work, and not only waiting for its turn."""
        return self._leader.leading

    def scaling(self) -> dict[str, ScalingState]:
        """Why each function has as many instances as it has, by its key; nothing while another leads."""
        return {} if self._autoscaler is None else self._autoscaler.explain_all()

    async def run(self) -> None:
        """Lead whenever it is its turn, for as long as it is let."""
        await self._leader.run(self.work)

    async def work(self) -> None:
        """Reconcile everything, and go on with what changes. It leads already."""
        client = Client(clock=self._clock)
        try:
            await self._work(client)
        finally:
            self._autoscaler = None
            self.metrics.sight = None
            await client.close()

    async def _work(self, client: Client) -> None:
        clock, kube, metrics, counts = self._clock, self._kube, self.metrics, self.metrics.queues
        # The reconcilers are made below.
        functions = WorkQueue(clock, lambda key: reconciler.reconcile(key), counts["function"])  # noqa: PLW0108
        triggers = WorkQueue(clock, lambda key: telling.reconcile(key), counts["trigger"])  # noqa: PLW0108
        schedules = WorkQueue(clock, lambda key: timing.reconcile(key), counts["schedule"])  # noqa: PLW0108

        def started(function: str, pod: str, parts: Sequence[Part]) -> None:
            if spans is not None:
                spans.started(function, pod, parts)

        def changed(key: str) -> None:
            functions.add(key)
            for name in naming(key, world.triggers.items):
                triggers.add(name)
            if key not in world.functions.items:
                metrics.starts.forget(key)

        def trigger_changed(key: str) -> None:
            for name in (key, *sinking(world.triggers.items)):
                triggers.add(name)

        def is_awake(key: str) -> bool:
            return autoscaler.is_awake(key)

        pods = PodStarts(metrics.starts.observe, started)
        world = World(
            kube,
            clock,
            changed,
            trigger_changed,
            on_pod=lambda pod: pods.see(pod, clock.monotonic()),
            on_schedule=schedules.add,
        )
        events = EventsPods(kube, client, clock, self._platform.namespace)
        waiting = Backlogs(world, events, is_awake)
        loads = GatewayLoads(kube, client, clock, self._platform.namespace)
        spans = None if self._tracer is None else PodStartSpans(self._tracer, clock, loads.waiting)
        fleet = ClusterFleet(functions.add, world.ready)
        lag = BacklogLoads(clock, loads.observe, waiting.lagging, waiting.ask)
        autoscaler = Autoscaler(clock=clock, observe=lag.observe, fleet=fleet)
        recorder = Recorder(kube, clock, self._identity)
        reconciler = FunctionReconciler(
            kube, world, fleet, autoscaler, self._platform, recorder, clock, loads.active
        )
        telling = TriggerReconciler(kube, world, recorder, clock)
        timing = ScheduleReconciler(kube, world, recorder, clock, Firings(events, clock))
        queues = {"function": functions, "trigger": triggers, "schedule": schedules}
        metrics.sight = Sight(queues, lambda: _figures(world, fleet))
        async with asyncio.TaskGroup() as group:
            for mirror in (*world.mirrors, loads.mirror, events.mirror):
                group.create_task(mirror.run())
            group.create_task(follow_pulls(kube, clock, pods.pulled))
            if spans is not None:
                group.create_task(spans.run())
            # Nothing is decided from half of what there is.
            await world.synced()
            await loads.mirror.synced.wait()
            await events.mirror.synced.wait()
            declared = (world.functions, world.triggers, world.schedules)
            _LOG.info("%d functions, %d triggers, %d schedules", *(len(each.items) for each in declared))
            group.create_task(functions.run())
            group.create_task(triggers.run(workers=1))
            group.create_task(schedules.run(workers=1))
            group.create_task(autoscaler.run())
            self._autoscaler = autoscaler


def _figures(world: World, fleet: ClusterFleet) -> Iterator[InstanceFigures]:
    """Of every function, in one look at all pods."""
    ready = Counter(
        (function_key(pod), pod["metadata"]["labels"].get(names.REVISION))
        for pod in world[resources.PODS].items.values()
        if is_ready(pod)
    )
    for key in sorted(world.functions.items):
        serving = world.serving(key)
        parked = parked_since(world.deployment(key, serving)) is not None
        yield InstanceFigures(key, fleet.desired(key), ready[key, serving], parked)
