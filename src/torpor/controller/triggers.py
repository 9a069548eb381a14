"""Says in a Trigger whether it can deliver. The events part reads Triggers by itself, and acts on them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from torpor.controller.manifests import covers
from torpor.controller.status import Trouble, refused_status, trigger_status
from torpor.errors import ClusterMissingError, DeclarationError
from torpor.providers.kubernetes import resources
from torpor.spec.objects import trigger_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torpor.clock import Clock
    from torpor.controller.events import Recorder
    from torpor.controller.world import World
    from torpor.providers.kubernetes.kube import Kube
    from torpor.providers.kubernetes.mirror import Mirror
    from torpor.providers.kubernetes.resources import Object, Resource
    from torpor.spec.models import Trigger


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
            trigger = trigger_of(item)
        except DeclarationError as error:
            status = refused_status(generation, "Invalid", error.faults, before, now)
        else:
            status = trigger_status(generation, self._trouble(trigger), before, now)
        await write_status(self._kube, self._world.triggers, resources.TRIGGERS, self._recorder, item, status)
        return None

    def _trouble(self, trigger: Trigger) -> Trouble | None:
        """What keeps its events, or dead letters, from going anywhere."""
        functions, sink = self._world.functions.items, trigger.sink_function_key
        if trigger.function_key not in functions:
            text = f"there is no function {trigger.function_key!r} to deliver to"
            return Trouble("SubscriberMissing", text)
        if sink is not None and sink not in functions:
            return Trouble("SinkMissing", f"there is no function {sink!r} for its dead letters")
        broker = trigger.sink_broker_key
        if broker is not None and broker not in map(_broker_of, self._world.triggers.items.values()):
            return Trouble("SinkMissing", f"no trigger reads the broker {broker!r} of its dead letters")
        return None


def naming(function: str, triggers: Mapping[str, Object]) -> list[str]:
    """The keys of those of ``triggers`` that name the function of that key."""
    return [name for name, item in triggers.items() if function in _functions_of(item)]


def sinking(triggers: Mapping[str, Object]) -> list[str]:
    """The keys of those of ``triggers`` that put dead letters into a broker.

    It comes and goes with the triggers that read it.
    """
    return [name for name, item in triggers.items() if "broker" in _sink_of(item)]


def _functions_of(item: Object) -> Iterator[str]:
    """Keys of the functions that a Trigger, however wrong, names."""
    subscriber = (item.get("spec") or {}).get("subscriber") or {}
    namespace = item["metadata"]["namespace"]
    for name in (subscriber.get("function"), _sink_of(item).get("function")):
        if name is not None:
            yield f"{namespace}/{name}"


def _sink_of(item: Object) -> Object:
    sink: Object = ((item.get("spec") or {}).get("delivery") or {}).get("deadLetterSink") or {}
    return sink


def _broker_of(item: Object) -> str:
    return f"{item['metadata']['namespace']}/{(item.get('spec') or {}).get('broker', 'default')}"


async def write_status(
    kube: Kube, mirror: Mirror, resource: Resource, recorder: Recorder, item: Object, status: dict[str, Any]
) -> None:
    """Have ``status`` be all that ``item`` says of itself, and tell of it where that is news.

    Raises :class:`~torpor.errors.ClusterError`.
    """
    before = item.get("status", {})
    if covers(before, status) and before.keys() <= status.keys():
        return
    metadata = {name: item["metadata"][name] for name in ("name", "namespace", "uid")}
    head = {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": metadata}
    try:
        written = await kube.apply(resource, {**head, "status": status}, subresource="status")
    except ClusterMissingError:  # it was deleted meanwhile
        return
    mirror.wrote(written)
    await recorder.changed(item, before, status)
