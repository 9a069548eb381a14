"""Says in a Trigger whether it can deliver. The events part reads Triggers by itself, and acts on them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from torpor.controller.manifests import covers
from torpor.controller.status import refused_status, trigger_status
from torpor.errors import ClusterMissingError, DeclarationError
from torpor.providers.kubernetes import resources
from torpor.spec.objects import trigger_of

if TYPE_CHECKING:
    from torpor.clock import Clock
    from torpor.controller.events import Recorder
    from torpor.controller.world import World
    from torpor.providers.kubernetes.kube import Kube


class TriggerReconciler:
    """Looks at one trigger at a time, by its key."""

    def __init__(self, kube: Kube, world: World, recorder: Recorder, clock: Clock) -> None:
        self._kube = kube
        self._world = world
        self._recorder = recorder
        self._clock = clock

    async def reconcile(self, key: str) -> float | None:
        """Write the status of the trigger ``key``. Raises :class:`~torpor.errors.ClusterError`."""
        item = self._world.triggers.items.get(key)
        if item is None or "deletionTimestamp" in item["metadata"]:
            return None
        before, generation = item.get("status", {}), item["metadata"].get("generation", 0)
        now = datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            target = trigger_of(item).function_key
        except DeclarationError as error:
            status = refused_status(generation, "Invalid", error.faults, before, now)
        else:
            missing = None if target in self._world.functions.items else target
            status = trigger_status(generation, missing, before, now)
        if covers(before, status):
            return None
        metadata = {name: item["metadata"][name] for name in ("name", "namespace", "uid")}
        head = {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": metadata}
        try:
            written = await self._kube.apply(
                resources.TRIGGERS, {**head, "status": status}, subresource="status"
            )
        except ClusterMissingError:  # it was deleted meanwhile
            return None
        self._world.triggers.wrote(written)
        await self._recorder.changed(item, before, status)
        return None
