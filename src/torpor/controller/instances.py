"""Writes how many instances there are, how they rest, and which of them go first.

It does what :mod:`torpor.controller.parking` and :mod:`torpor.controller.victims` decide. Each write can
fail, and all is then decided anew from what holds.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torpor.controller import names, parking
from torpor.controller.parking import Pod, Rest, Size
from torpor.controller.status import has_ended, is_ready
from torpor.controller.victims import Candidate, marks
from torpor.errors import ClusterError, ClusterMissingError, ClusterRefusedError
from torpor.providers.kubernetes import resources

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from torpor.clock import Clock
    from torpor.controller.events import Recorder
    from torpor.controller.fleet import ClusterFleet
    from torpor.controller.rollout import Plan
    from torpor.controller.world import World
    from torpor.providers.kubernetes.kube import Kube
    from torpor.providers.kubernetes.resources import Object
    from torpor.scaling.loop import Autoscaler
    from torpor.spec.models import Function

_LOG = logging.getLogger("torpor.controller")
# What was refused by a quota or a limit range is tried again after this time.
_REFUSED_SECONDS = 600.0
_NOT_GROWN_SECONDS = 30.0
_MARKED = "-1"


@dataclass(frozen=True, slots=True)
class Kept:
    """How the function rests now, when time alone changes that, and what keeps it from resting parked."""

    rest: Rest
    again_seconds: float | None = None
    hindrance: tuple[str, str] | None = None


class Instances:
    """Looks at one function at a time. ``active`` tells requests under way by instance, ``host:port``."""

    def __init__(
        self,
        kube: Kube,
        world: World,
        fleet: ClusterFleet,
        autoscaler: Autoscaler,
        recorder: Recorder,
        clock: Clock,
        active: Callable[[str], Awaitable[Mapping[str, int]]],
    ) -> None:
        self._kube = kube
        self._world = world
        self._fleet = fleet
        self._autoscaler = autoscaler
        self._recorder = recorder
        self._clock = clock
        self._active = active
        self._resizable: bool | None = None
        self._refused: dict[str, tuple[float, str]] = {}

    async def keep(self, function: Function, steps: Plan) -> Kept:
        """Write what the number of instances of each revision should be. Raises ``ClusterError``."""
        key = function.key
        for revision, replicas in steps.scale.items():
            await self._write(key, revision, replicas, None)
        deployment = self._world.deployment(key, steps.serving)
        if deployment is None:  # taken away by somebody: the mirror will say so
            return Kept(Rest.ZERO)
        replicas, since = deployment["spec"].get("replicas", 0), parked_since(deployment)
        desired = self._fleet.desired(key)
        if self._fleet.pending(key) is None and replicas > desired == 0 and since is None:
            # A gateway has woken it, or a revision has just been proved: the autoscaler goes on from there.
            self._autoscaler.poke(key)
            return Kept(Rest.ACTIVE)
        hindrance = await self._hindrance(function, deployment)
        pods = [pod for pod in self._world.pods(key, steps.serving) if _lives(pod)]
        full = parking.requests(deployment)
        decision = parking.decide(
            parking.Facts(
                desired=desired,
                replicas=replicas,
                since=since,
                may_park=function.spec.scaling.idle == "parked" and hindrance is None,
                parked_for_seconds=function.spec.scaling.parked_for_seconds,
                now=self._clock.now(),
                pods=[_pod(pod, full) for pod in pods],
            )
        )
        by_name = {pod["metadata"]["name"]: pod for pod in pods}
        again_seconds = decision.again_seconds
        for name, size in decision.resize.items():
            if size is Size.FULL and not await self._grow(by_name[name], full):
                again_seconds = _NOT_GROWN_SECONDS
        if 0 < decision.replicas < replicas:
            await self._choose(key, pods, full, len(pods) - decision.replicas)
        await self._write(key, steps.serving, decision.replicas, decision.since)
        for name, size in decision.resize.items():
            if size is Size.SMALL:
                await self._shrink(steps.serving, by_name[name], full)
        self._fleet.written(key, desired)
        if decision.rest is Rest.PARKED:
            self._autoscaler.look(key)  # a request finds its pod without anybody being asked
        return Kept(decision.rest, again_seconds, hindrance)

    def forget(self, key: str) -> None:
        """The function is gone."""
        for name in [name for name in self._refused if name.rpartition("-")[0] == key]:
            del self._refused[name]

    # --- how many -----------------------------------------------------------------------------------------

    async def _write(self, key: str, revision: str, replicas: int, since: float | None) -> None:
        """The number of replicas and the mark, in one write."""
        deployment = self._world.deployment(key, revision)
        if deployment is None:
            return
        namespace = key.partition("/")[0]
        before = parked_since(deployment)
        if before != since:
            mark = None if since is None else f"{since:.3f}"
            body = {"metadata": {"annotations": {names.PARKED_SINCE: mark}}, "spec": {"replicas": replicas}}
            written = await self._kube.patch(
                resources.DEPLOYMENTS, namespace, revision, body, manager=names.SCALE_MANAGER
            )
            self._world[resources.DEPLOYMENTS].wrote(written)
            return
        if deployment["spec"].get("replicas", 0) == replicas:
            return
        scale = await self._kube.scale(resources.DEPLOYMENTS, namespace, revision, replicas)
        # Else the number from before, still mirrored, would look like one that a gateway has raised.
        version = scale["metadata"]["resourceVersion"]
        self._world[resources.DEPLOYMENTS].wrote(
            {
                **deployment,
                "metadata": {**deployment["metadata"], "resourceVersion": version},
                "spec": {**deployment["spec"], "replicas": replicas},
            }
        )

    async def _choose(self, key: str, pods: Sequence[Object], full: Mapping[str, str], excess: int) -> None:
        """Have those go first that have the least to do, before fewer are asked for."""
        active = await self._active(key)
        candidates = [
            Candidate(
                name=pod["metadata"]["name"],
                ready=is_ready(pod),
                stuck=parking.size_of(pod, full) is Size.STUCK,
                active=active.get(f"{pod.get('status', {}).get('podIP')}:{names.PORT}", 0),
                born=pod["metadata"].get("creationTimestamp", ""),
                marked=names.DELETION_COST in pod["metadata"].get("annotations", {}),
            )
            for pod in pods
        ]
        namespace = key.partition("/")[0]
        for name, marked in marks(candidates, excess).items():
            cost = _MARKED if marked else None
            body = {"metadata": {"annotations": {names.DELETION_COST: cost}}}
            try:
                written = await self._kube.patch(resources.PODS, namespace, name, body)
            except ClusterMissingError:  # it went by itself
                continue
            self._world[resources.PODS].wrote(written)

    # --- how large ----------------------------------------------------------------------------------------

    async def _hindrance(self, function: Function, deployment: Object) -> tuple[str, str] | None:
        scaling = function.spec.scaling
        if scaling.idle != "parked" or scaling.min_scale > 0:
            return None
        if self._resizable is None:
            self._resizable = "resize" in await self._kube.subresources(resources.PODS)
        at, refused = self._refused.get(resources.key(deployment), (0.0, ""))
        fresh = refused and self._clock.monotonic() - at < _REFUSED_SECONDS
        return parking.hindrance(deployment, resizable=self._resizable, refused=refused if fresh else None)

    async def _grow(self, pod: Object, full: Mapping[str, str]) -> bool:
        try:
            await self._resize(pod, full)
        except ClusterRefusedError as error:  # a quota is used up: it serves on as it is
            note = f"{pod['metadata']['name']} can't ask for what it needs: {error}"
            _LOG.warning("%s", note)
            return False
        return True

    async def _shrink(self, revision: str, pod: Object, full: Mapping[str, str]) -> None:
        metadata = pod["metadata"]
        parked = parking.parked_requests(full, await self._held(metadata["namespace"], metadata["name"]))
        if parked == full:
            return
        try:
            await self._resize(pod, parked)
        except ClusterRefusedError as error:
            self._refused[f"{metadata['namespace']}/{revision}"] = (self._clock.monotonic(), str(error))
            raise  # looked at again, with this known

    async def _resize(self, pod: Object, requests: Mapping[str, str]) -> None:
        metadata = pod["metadata"]
        try:
            written = await self._kube.resize(
                metadata["namespace"], metadata["name"], names.CONTAINER, requests
            )
        except ClusterMissingError:  # it is gone, and the mirror will say so
            return
        self._world[resources.PODS].wrote(written)

    async def _held(self, namespace: str, pod: str) -> int | None:
        """What the pod holds, where the cluster has the metrics API."""
        try:
            return parking.held_bytes(await self._kube.get(resources.POD_METRICS, namespace, pod))
        except ClusterError as error:
            _LOG.debug("what %s holds is not known: %s", pod, error)
            return None


def parked_since(deployment: Object | None) -> float | None:
    """Since when the revision rests parked, by the mark on its Deployment."""
    text = ((deployment or {"metadata": {}})["metadata"].get("annotations") or {}).get(names.PARKED_SINCE)
    try:
        return None if text is None else float(text)
    except ValueError:  # somebody else's; it is parked long enough
        return 0.0


def _lives(pod: Object) -> bool:
    return not has_ended(pod) and "deletionTimestamp" not in pod["metadata"]


def _pod(pod: Object, full: Mapping[str, str]) -> Pod:
    return Pod(pod["metadata"]["name"], is_ready(pod), parking.size_of(pod, full))
