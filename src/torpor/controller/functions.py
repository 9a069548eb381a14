"""Brings what runs of a Function to what it declares, one step after another, from whatever there is.

Every step looks at what holds and writes only what differs, so that one that failed in the middle is simply
done again. Nothing is remembered that could not be read anew, but what the last lines of a crashed pod were.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from torpor.controller import manifests, names
from torpor.controller.instances import Instances, parked_since
from torpor.controller.parking import Rest
from torpor.controller.rollout import Known, plan
from torpor.controller.status import Facts, crashed, function_status, is_ready, refused_status, trouble
from torpor.errors import (
    ClusterConflictError,
    ClusterEndingError,
    ClusterError,
    ClusterMissingError,
    ClusterRefusedError,
    DeclarationError,
)
from torpor.providers.kubernetes import resources
from torpor.spec.consistency import routes_of
from torpor.spec.objects import function_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from torpor.clock import Clock
    from torpor.controller.events import Recorder
    from torpor.controller.fleet import ClusterFleet
    from torpor.controller.instances import Kept
    from torpor.controller.manifests import Platform
    from torpor.controller.rollout import Plan
    from torpor.controller.world import World
    from torpor.providers.kubernetes.kube import Kube
    from torpor.providers.kubernetes.resources import Object, Resource
    from torpor.scaling.loop import Autoscaler
    from torpor.spec.models import Function

_LOG = logging.getLogger("torpor.controller")
_LOG_LINES = 10
# What the server says of an object of the same name that is not ours.
_TAKEN = "Apply failed with"


class FunctionReconciler:
    """Looks at one function at a time, by its key."""

    def __init__(
        self,
        kube: Kube,
        world: World,
        fleet: ClusterFleet,
        autoscaler: Autoscaler,
        platform: Platform,
        recorder: Recorder,
        clock: Clock,
        active: Callable[[str], Awaitable[Mapping[str, int]]],
    ) -> None:
        self._instances = Instances(kube, world, fleet, autoscaler, recorder, clock, active)
        self._kube = kube
        self._world = world
        self._fleet = fleet
        self._autoscaler = autoscaler
        self._platform = platform
        self._recorder = recorder
        self._clock = clock
        self._scaled: dict[str, object] = {}
        self._lines: dict[tuple[str, int], tuple[str, ...]] = {}

    async def reconcile(self, key: str) -> float | None:
        """Do what the function ``key`` needs. On a :class:`~torpor.errors.ClusterError`, do it again."""
        item = self._world.functions.items.get(key)
        if item is None or "deletionTimestamp" in item["metadata"]:
            # What was made for it goes with it, by its owner references.
            self._autoscaler.forget(key)
            self._fleet.forget(key)
            self._world.claims.forget(key)
            self._instances.forget(key)
            self._scaled.pop(key, None)
            return None
        try:
            function = _runnable(item)
        except DeclarationError as error:
            self._world.claims.forget(key)
            await self._complain(item, "Invalid", error.faults)
            return None
        self._world.claims.set(key, (route for route, _ in routes_of(function)))
        self._follow(function)
        steps = self._plan(function)
        try:
            await self._make(function, item, steps)
        except ClusterEndingError:  # it will be deleted as well, which is no fault of anybody's
            return None
        except ClusterError as error:
            if isinstance(error, ClusterRefusedError) or _TAKEN in str(error):
                await self._complain(item, "Refused", [str(error)])
            raise
        kept = await self._instances.keep(function, steps)
        await self._drop(key, steps)
        await self._tell(function, item, steps, kept)
        return kept.again_seconds

    # --- deciding ---------------------------------------------------------------------------------------

    def _follow(self, function: Function) -> None:
        """Have the autoscaler scale by what is declared now."""
        key, spec = function.key, function.spec
        rules = (spec.scaling, spec.target)
        if self._scaled.get(key) != rules:
            serving = self._world.deployment(key, self._world.serving(key))
            parked = parked_since(serving) is not None
            running = serving["spec"].get("replicas", 0) if serving and not parked else 0
            self._scaled[key] = rules
            self._autoscaler.set(key, spec, running=running)

    def _plan(self, function: Function) -> Plan:
        key, scaling = function.key, function.spec.scaling
        known = [self._known(key, record) for record in self._world.of(resources.REVISIONS, key)]
        number = 1 + max((one.number for one in known), default=0)
        return plan(
            manifests.digest(function.spec),
            known,
            self._world.serving(key),
            desired=self._fleet.desired(key),
            least=max(scaling.min_scale, scaling.initial_scale),
            kept=self._platform.kept_revisions,
            name=names.revision(function.metadata.name, number),
        )

    def _known(self, key: str, record: Object) -> Known:
        name = record["metadata"]["name"]
        deployment = self._world.deployment(key, name)
        return Known(
            name=name,
            number=record["revision"],
            digest=record["metadata"]["labels"].get(names.HASH, ""),
            replicas=None if deployment is None else deployment["spec"].get("replicas", 0),
            ready=sum(is_ready(pod) for pod in self._world.pods(key, name)),
        )

    # --- doing ------------------------------------------------------------------------------------------

    async def _make(self, function: Function, item: Object, steps: Plan) -> None:
        platform = self._platform
        await self._ensure(resources.SERVICE_ACCOUNTS, manifests.service_account(function, item))
        await self._ensure(resources.NETWORK_POLICIES, manifests.network_policy(function, item, platform))
        if steps.create is not None:
            record = manifests.controller_revision(function, steps.create, item)
            await self._create(resources.REVISIONS, record)
        wanted = manifests.deployment(function, steps.latest, item, platform)
        if self._world.deployment(function.key, steps.latest) is None:
            # Made with a number that is the autoscaler's from the start: without any, it would be 1, and one
            # that was declared and then no more would become 1 again.
            first = {**wanted, "spec": {**wanted["spec"], "replicas": 0}}
            await self._create(resources.DEPLOYMENTS, first, manager=names.SCALE_MANAGER)
        await self._ensure(resources.DEPLOYMENTS, wanted)
        await self._ensure(resources.SERVICES, manifests.service(function, steps.serving, item))
        await self._budget(function, item)

    async def _budget(self, function: Function, item: Object) -> None:
        wanted = manifests.disruption_budget(function, item)
        if wanted is not None:
            await self._ensure(resources.DISRUPTION_BUDGETS, wanted)
            return
        for budget in self._world.of(resources.DISRUPTION_BUDGETS, function.key):
            await self._delete(resources.DISRUPTION_BUDGETS, budget)

    async def _ensure(self, resource: Resource, wanted: Object) -> None:
        """Apply ``wanted`` unless what is mirrored has all of it."""
        mirror = self._world[resource]
        live = mirror.items.get(resources.key(wanted))
        if live is None or not manifests.covers(live, wanted):
            # What is there by that name and not ours is not taken over: that is a conflict.
            try:
                mirror.wrote(await self._kube.apply(resource, wanted, force=live is not None))
            except (ClusterConflictError, ClusterRefusedError) as error:
                text = f"{resource.kind} {wanted['metadata']['name']}: {error}"
                raise type(error)(text, status=error.status, reason=error.reason) from error

    async def _create(self, resource: Resource, item: Object, *, manager: str = "torpor") -> None:
        self._world[resource].wrote(await self._kube.create(resource, item, manager=manager))

    async def _delete(self, resource: Resource, item: Object) -> None:
        metadata = item["metadata"]
        await self._kube.delete(resource, metadata["namespace"], metadata["name"], uid=metadata["uid"])

    async def _drop(self, key: str, steps: Plan) -> None:
        for revision in steps.drop:
            for resource in (resources.DEPLOYMENTS, resources.REVISIONS):
                item = self._world[resource].items.get(f"{key.partition('/')[0]}/{revision}")
                if item is not None:
                    await self._delete(resource, item)

    # --- telling ----------------------------------------------------------------------------------------

    async def _tell(self, function: Function, item: Object, steps: Plan, kept: Kept) -> None:
        key = function.key
        pods = self._world.pods(key, steps.latest)
        serving = self._world.deployment(key, steps.serving)
        facts = Facts(
            generation=item["metadata"].get("generation", 0),
            latest=steps.latest,
            serving=steps.serving,
            replicas=serving["spec"].get("replicas", 0) if serving else 0,
            ready=sum(is_ready(pod) for pod in self._world.pods(key, steps.serving)),
            trouble=trouble(pods, self._world.deployment(key, steps.latest), await self._logs(pods)),
            url=f"{self._platform.url}/function/{function.metadata.name}.{function.metadata.namespace}",
            parked=kept.rest is Rest.PARKED,
            hindrance=kept.hindrance,
            selector=f"{names.FUNCTION}={function.metadata.name},{names.REVISION}={steps.serving}",
            taken=self._taken(key),
        )
        await self._write_status(item, function_status(facts, item.get("status", {}), self._now()))

    def _taken(self, key: str) -> str:
        told = [
            f"{path!r} on {host or 'any host'} leads to function {owner!r}"
            for (host, path), owner in self._world.claims.taken(key)
        ]
        return f"{'; '.join(told)}; another was expected" if told else ""

    async def _complain(self, item: Object, reason: str, faults: list[str]) -> None:
        generation, before = item["metadata"].get("generation", 0), item.get("status", {})
        await self._write_status(item, refused_status(generation, reason, faults, before, self._now()))

    async def _write_status(self, item: Object, status: Object) -> None:
        before = item.get("status", {})
        status = {**before, **status}  # what runs goes on, and is shown
        if before.keys() == status.keys() and manifests.covers(before, status):
            return
        metadata = {name: item["metadata"][name] for name in ("name", "namespace", "uid")}
        head = {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": metadata}
        try:
            written = await self._kube.apply(
                resources.FUNCTIONS, {**head, "status": status}, subresource="status"
            )
        except ClusterMissingError:  # it was deleted meanwhile
            return
        self._world.functions.wrote(written)
        await self._recorder.changed(item, before, status)

    async def _logs(self, pods: list[Object]) -> Mapping[str, tuple[str, ...]]:
        """The last lines of the pods that crashed; each crash is asked for once."""
        found = {}
        for pod in pods[:3]:
            if not crashed(pod):
                continue
            metadata = pod["metadata"]
            [container] = [
                one for one in pod["status"]["containerStatuses"] if one["name"] == names.CONTAINER
            ]
            crash = (metadata["uid"], container.get("restartCount", 0))
            if crash not in self._lines:
                previous = "terminated" not in container.get("state", {})
                try:
                    lines = await self._kube.logs(
                        metadata["namespace"],
                        metadata["name"],
                        container=names.CONTAINER,
                        lines=_LOG_LINES,
                        previous=previous,
                    )
                except ClusterError as error:  # a status without them is better than none
                    _LOG.debug("no logs of %s: %s", metadata["name"], error)
                    continue
                while len(self._lines) >= 256:
                    del self._lines[next(iter(self._lines))]
                self._lines[crash] = lines
            found[metadata["name"]] = self._lines[crash]
        return found

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _runnable(item: Object) -> Function:
    function = function_of(item)
    if function.spec.image is None:
        raise DeclarationError(["spec.image: is missing, it has to be given"])
    return function
