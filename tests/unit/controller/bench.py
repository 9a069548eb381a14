"""A cluster in memory, a controller's reconcilers on it, and what Kubernetes' own controllers would do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from torpor.controller import names
from torpor.controller.events import Recorder
from torpor.controller.fleet import ClusterFleet
from torpor.controller.functions import FunctionReconciler
from torpor.controller.manifests import Platform
from torpor.controller.triggers import TriggerReconciler
from torpor.controller.world import World
from torpor.providers.kubernetes import resources
from torpor.scaling.load import Load
from torpor.scaling.loop import Autoscaler
from torpor.testing.clock import MovableClock
from torpor.testing.kube import ApiServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from torpor.providers.kubernetes.kube import Call
    from torpor.providers.kubernetes.resources import Object

KEY = "default/f"
PLATFORM = Platform(namespace="torpor", url="http://gateway", kept_revisions=1)
REQUESTS = {"cpu": "50m", "memory": "64Mi"}
REVISION_1, REVISION_2, REVISION_3 = "f-00001", "f-00002", "f-00003"


def function(**spec: Any) -> Object:
    return {
        "apiVersion": "torpor.dev/v1alpha1",
        "kind": "Function",
        "metadata": {"name": "f", "namespace": "default"},
        "spec": {"image": "registry.example/f:1", **spec},
    }


class Bench:
    """Mirrors run; reconciling is done by hand, so that a test sees each step."""

    def __init__(self) -> None:
        self.server = ApiServer()
        self.clock = MovableClock()
        self.loads: dict[str, Load] = {}
        self.active: dict[str, int] = {}
        self.changed: set[str] = set()
        self._start()
        self._tasks: list[asyncio.Task[None]] = []

    def _start(self) -> None:
        kube = self.server.kube()
        self.world = World(kube, self.clock, self.changed.add, lambda _: None)
        self.fleet = ClusterFleet(self.changed.add, self.world.ready)
        self.autoscaler = Autoscaler(self.clock, self._observe, self.fleet)
        recorder = Recorder(kube, self.clock, "controller-0")
        self.functions = FunctionReconciler(
            kube, self.world, self.fleet, self.autoscaler, PLATFORM, recorder, self.clock, self._active
        )
        self.triggers = TriggerReconciler(kube, self.world, recorder, self.clock)

    async def _observe(self) -> Mapping[str, Load]:
        return self.loads

    async def _active(self, key: str) -> Mapping[str, int]:
        return self.active

    async def __aenter__(self) -> Self:
        await self._run()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def _run(self) -> None:
        self._tasks = [asyncio.create_task(mirror.run()) for mirror in self.world.mirrors]
        await self.world.synced()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def restart(self) -> None:
        """Another controller takes over, and knows nothing but what the cluster says."""
        await self._end()
        self._start()
        await self._run()

    async def settle(self) -> None:
        """Let the mirrors see all that was written."""
        for _ in range(10):
            await asyncio.sleep(0)

    async def step(self) -> list[str]:
        """Reconcile once, and say what was written."""
        await self.settle()
        before = len(self.server.writes)
        await self.functions.reconcile(KEY)
        await self.settle()
        return [str(write) for write in self.server.writes[before:]]

    async def until_quiet(self) -> None:
        """Reconcile until there is nothing to write."""
        for _ in range(20):
            if not await self.step():
                return
        raise AssertionError("it never comes to rest")

    def served(self, key: str, requests: int) -> None:
        """So many requests have been and gone."""
        before = self.loads.get(key, Load(0.0, 0))
        self.loads[key] = Load(0.0, before.requests_total + requests)

    def declare(self, item: Object) -> None:
        """What a person applies: the spec, and nothing of the status."""
        there = self.server.read(resources.FUNCTIONS, KEY)
        if there is not None:
            generation = there["metadata"]["generation"]
            there |= {"spec": item["spec"]}
            assert generation
            item = there
        self.server.put(resources.FUNCTIONS, item)

    def pods(self, revision: str, number: int, *, ready: bool = True, **status: Any) -> None:
        """Kubernetes has made ``number`` pods of ``revision``, and no others are left of it."""
        for pod in self.server.all(resources.PODS):
            if pod["metadata"]["labels"][names.REVISION] == revision:
                self.server.remove(resources.PODS, resources.key(pod))
        for index in range(number):
            self.server.put(resources.PODS, pod_of(revision, index, ready=ready, **status))

    def replicas(self, revision: str) -> int | None:
        item = self.server.read(resources.DEPLOYMENTS, f"default/{revision}")
        return None if item is None else int(item["spec"]["replicas"])

    def status(self) -> Object:
        item = self.server.read(resources.FUNCTIONS, KEY)
        assert item is not None
        return dict(item.get("status", {}))

    def ready(self) -> tuple[str, str]:
        """Status and reason of the condition Ready."""
        [one] = [one for one in self.status()["conditions"] if one["type"] == "Ready"]
        return one["status"], one["reason"]

    def reasons(self) -> list[str]:
        """Reasons of the events, in no order."""
        return sorted(event["reason"] for event in self.server.all(resources.EVENTS))

    def serving(self) -> str:
        service = self.server.read(resources.SERVICES, "default/fn-f")
        assert service is not None
        return str(service["spec"]["selector"][names.REVISION])


def pod_of(revision: str, index: int, *, ready: bool = True, **status: Any) -> Object:
    labels = {names.FUNCTION: "f", names.REVISION: revision, names.MANAGED: "torpor"}
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": {"name": f"{revision}-{index}", "namespace": "default", "labels": labels},
        "spec": {"containers": [{"name": names.CONTAINER, "resources": {"requests": dict(REQUESTS)}}]},
        "status": {"conditions": conditions, **status},
    }


def waiting(why: str, message: str = "", restarts: int = 0, **last: Any) -> Object:
    """Status of a container that waits, and how the one before it ended."""
    return {
        "name": names.CONTAINER,
        "image": "registry.example/f:1",
        "restartCount": restarts,
        "state": {"waiting": {"reason": why, "message": message}},
        "lastState": {"terminated": last} if last else {},
    }


def run(test: Callable[[Bench], Awaitable[None]]) -> None:
    async def inner() -> None:
        async with Bench() as bench:
            await test(bench)

    asyncio.run(inner())


def nth_write_fails(number: int) -> Callable[[Call], int | None]:
    """A hook that lets the write ``number`` (from 0) fail, once."""
    seen = -1

    def fail(call: Call) -> int | None:
        nonlocal seen
        if call.method == "GET":
            return None
        seen += 1
        return 500 if seen == number else None

    return fail
