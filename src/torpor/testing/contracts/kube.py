"""What holds of an API server and :class:`~torpor.providers.kubernetes.kube.Kube`, as cases: :data:`CASES`.

Each is a function of a :class:`KubeRig`, run with the server in memory and with a real one on which Torpor's
definitions are installed. None waits for a fixed time.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from torpor.clock import SystemClock
from torpor.errors import ClusterConflictError, ClusterEndingError, ClusterMissingError
from torpor.providers.kubernetes.resources import (
    CONFIG_MAPS,
    CORE_EVENTS,
    DEPLOYMENTS,
    FUNCTIONS,
    LEASES,
    NAMESPACES,
    PODS,
    key,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from torpor.providers.kubernetes.kube import Event, Kube
    from torpor.providers.kubernetes.resources import Object

    Case = Callable[["KubeRig"], Awaitable[None]]

CASES: list[Case] = []
_PATIENCE_SECONDS = 90.0  # the collector of what belongs to nothing is not the quickest
_NAMESPACE = "default"


@dataclass(slots=True)
class KubeRig:
    """A client, names that nobody else has, and waiting."""

    kube: Kube
    prefix: str = field(default_factory=lambda: f"contract-{uuid.uuid4().hex[:8]}")

    @property
    def labels(self) -> str:
        """The selector of what this case makes."""
        return f"contract={self.prefix}"

    def config(self, name: str = "a", **data: str) -> Object:
        """A ConfigMap."""
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": self.metadata(name),
            "data": data,
        }

    def function(self, **spec: object) -> Object:
        """A Function."""
        return {
            "apiVersion": "torpor.dev/v1alpha1",
            "kind": "Function",
            "metadata": self.metadata("f"),
            "spec": {"image": "registry.invalid/f:1", **spec},
        }

    def deployment(self) -> Object:
        """A Deployment that says nothing of how many pods there should be."""
        labels = {"contract": self.prefix}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": self.metadata("d"),
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "c", "image": "registry.invalid/f:1"}]},
                },
            },
        }

    def event(self, name: str, field: str, reason: str) -> Object:
        """An event about one field of a pod."""
        about = {"kind": "Pod", "namespace": _NAMESPACE, "name": self.name("p"), "fieldPath": field}
        return {"metadata": self.metadata(name), "involvedObject": about, "reason": reason, "type": "Normal"}

    def metadata(self, name: str) -> Object:
        """Metadata of an object of this case."""
        return {"name": self.name(name), "namespace": _NAMESPACE, "labels": {"contract": self.prefix}}

    def name(self, name: str) -> str:
        """The name of an object of this case."""
        return f"{self.prefix}-{name}"

    async def eventually(self, holds: Callable[[], Awaitable[bool]]) -> None:
        """Return once ``holds`` does; fail when it never does."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not await holds():
                await SystemClock().sleep(0.02)

    async def clean(self) -> None:
        """Take away all that the case has made."""
        for resource in (CONFIG_MAPS, FUNCTIONS, DEPLOYMENTS, LEASES, CORE_EVENTS):
            for item in (await self.kube.list(resource, _NAMESPACE, labels=self.labels)).items:
                if item["metadata"].get("finalizers"):
                    body = {"metadata": {"finalizers": None}}
                    await self.kube.patch(resource, _NAMESPACE, item["metadata"]["name"], body)
                await self.kube.delete(resource, _NAMESPACE, item["metadata"]["name"])


def _case(function: Case) -> Case:
    CASES.append(function)
    return function


# --- reading and writing ------------------------------------------------------------------------------------


@_case
async def an_object_is_made_read_listed_and_deleted(rig: KubeRig) -> None:
    """The simplest life."""
    made = await rig.kube.create(CONFIG_MAPS, rig.config(a="1"))
    assert await rig.kube.get(CONFIG_MAPS, _NAMESPACE, rig.name("a")) == made
    listed = await rig.kube.list(CONFIG_MAPS, _NAMESPACE, labels=rig.labels)
    assert listed.items == [made]
    assert await rig.kube.delete(CONFIG_MAPS, _NAMESPACE, rig.name("a"))
    assert not await rig.kube.delete(CONFIG_MAPS, _NAMESPACE, rig.name("a"))
    assert await rig.kube.get(CONFIG_MAPS, _NAMESPACE, rig.name("a")) is None


@_case
async def nothing_is_made_in_a_namespace_that_is_being_deleted(rig: KubeRig) -> None:
    """That is told apart from what is wrong or not allowed."""
    name = rig.name("n")
    held = {"name": name, "labels": {"contract": rig.prefix}, "finalizers": ["torpor.dev/held"]}
    await rig.kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": held})
    try:
        assert await rig.kube.delete(NAMESPACES, None, name)
        config = rig.config(a="1")
        config["metadata"]["namespace"] = name
        with pytest.raises(ClusterEndingError, match="being terminated"):
            await rig.kube.create(CONFIG_MAPS, config)
        with pytest.raises(ClusterEndingError, match="being terminated"):
            await rig.kube.apply(CONFIG_MAPS, config)
    finally:
        await rig.kube.patch(NAMESPACES, None, name, {"metadata": {"finalizers": None}})


@_case
async def what_is_there_can_not_be_made_again(rig: KubeRig) -> None:
    """A name is one object's."""
    await rig.kube.create(CONFIG_MAPS, rig.config())
    with pytest.raises(ClusterConflictError) as caught:
        await rig.kube.create(CONFIG_MAPS, rig.config())
    assert caught.value.reason == "AlreadyExists"


@_case
async def a_selector_selects(rig: KubeRig) -> None:
    """Equality, and having a label or not."""
    one, two = rig.config("one"), rig.config("two")
    two["metadata"]["labels"]["more"] = "yes"
    for item in (one, two):
        await rig.kube.create(CONFIG_MAPS, item)
    for more, names in (("more", ["two"]), ("!more", ["one"]), ("more=yes", ["two"]), ("more=no", [])):
        listed = await rig.kube.list(CONFIG_MAPS, _NAMESPACE, labels=f"{rig.labels},{more}")
        assert [item["metadata"]["name"] for item in listed.items] == [rig.name(name) for name in names], more


@_case
async def a_replacement_of_an_old_version_conflicts(rig: KubeRig) -> None:
    """Two who read the same version can't both replace it."""
    made = await rig.kube.create(CONFIG_MAPS, rig.config(a="1"))
    await rig.kube.replace(CONFIG_MAPS, {**made, "data": {"a": "2"}})
    with pytest.raises(ClusterConflictError):
        await rig.kube.replace(CONFIG_MAPS, {**made, "data": {"a": "3"}})
    after = await rig.kube.get(CONFIG_MAPS, _NAMESPACE, rig.name("a"))
    assert after is not None
    assert after["data"] == {"a": "2"}


@_case
async def a_patch_merges_and_a_null_takes_away(rig: KubeRig) -> None:
    """RFC 7396."""
    await rig.kube.create(CONFIG_MAPS, rig.config(a="1", b="2"))
    after = await rig.kube.patch(CONFIG_MAPS, _NAMESPACE, rig.name("a"), {"data": {"a": None, "c": "3"}})
    assert after["data"] == {"b": "2", "c": "3"}


@_case
async def a_patch_of_nothing_is_missing(rig: KubeRig) -> None:
    """It makes no object."""
    with pytest.raises(ClusterMissingError):
        await rig.kube.patch(CONFIG_MAPS, _NAMESPACE, rig.name("a"), {"data": {}})


@_case
async def a_deletion_can_mean_one_object_only(rig: KubeRig) -> None:
    """Another of the same name stays."""
    await rig.kube.create(CONFIG_MAPS, rig.config())
    with pytest.raises(ClusterConflictError):
        await rig.kube.delete(CONFIG_MAPS, _NAMESPACE, rig.name("a"), uid=str(uuid.uuid4()))
    assert await rig.kube.get(CONFIG_MAPS, _NAMESPACE, rig.name("a")) is not None


# --- server-side apply --------------------------------------------------------------------------------------


@_case
async def an_apply_makes_changes_and_takes_away_what_it_declared_before(rig: KubeRig) -> None:
    """One manager's declaration is whole each time; others' fields stay."""
    await rig.kube.apply(CONFIG_MAPS, rig.config(a="1", b="2"), manager="one")
    await rig.kube.apply(CONFIG_MAPS, rig.config(c="3"), manager="two")
    after = await rig.kube.apply(CONFIG_MAPS, rig.config(b="4"), manager="one")
    assert after["data"] == {"b": "4", "c": "3"}


@_case
async def an_apply_that_changes_nothing_is_no_change(rig: KubeRig) -> None:
    """The version stays."""
    first = await rig.kube.apply(CONFIG_MAPS, rig.config(a="1"))
    again = await rig.kube.apply(CONFIG_MAPS, rig.config(a="1"))
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


@_case
async def a_dry_run_shows_what_would_be_and_changes_nothing(rig: KubeRig) -> None:
    """Of an object that is there, and of one that is not."""
    item = rig.config(x="1")
    shown = await rig.kube.apply(CONFIG_MAPS, item, dry_run=True)
    assert shown["data"] == {"x": "1"}
    assert await rig.kube.get(CONFIG_MAPS, _NAMESPACE, item["metadata"]["name"]) is None
    before = await rig.kube.apply(CONFIG_MAPS, item)
    shown = await rig.kube.apply(CONFIG_MAPS, rig.config(x="2"), dry_run=True)
    assert shown["data"] == {"x": "2"}
    assert await rig.kube.get(CONFIG_MAPS, _NAMESPACE, item["metadata"]["name"]) == before


@_case
async def a_field_of_another_is_a_conflict_unless_forced(rig: KubeRig) -> None:
    """Who forces owns it from then on."""
    await rig.kube.apply(CONFIG_MAPS, rig.config(a="1"), manager="one")
    with pytest.raises(ClusterConflictError):
        await rig.kube.apply(CONFIG_MAPS, rig.config(a="2"), manager="two", force=False)
    await rig.kube.apply(CONFIG_MAPS, rig.config(a="2"), manager="two")
    with pytest.raises(ClusterConflictError):
        await rig.kube.apply(CONFIG_MAPS, rig.config(a="1"), manager="one", force=False)


@_case
async def an_apply_leaves_replicas_to_who_scales(rig: KubeRig) -> None:
    """What was made with a number keeps it, and what was scaled keeps that."""
    first = {**rig.deployment(), "spec": {**rig.deployment()["spec"], "replicas": 0}}
    await rig.kube.create(DEPLOYMENTS, first, manager="torpor-scale")
    after = await rig.kube.apply(DEPLOYMENTS, rig.deployment())
    assert after["spec"]["replicas"] == 0
    await rig.kube.scale(DEPLOYMENTS, _NAMESPACE, rig.name("d"), 2)
    after = await rig.kube.apply(DEPLOYMENTS, rig.deployment())
    assert after["spec"]["replicas"] == 2
    await rig.kube.scale(DEPLOYMENTS, _NAMESPACE, rig.name("d"), 0)


@_case
async def conditions_of_two_managers_stand_side_by_side(rig: KubeRig) -> None:
    """They are a map by type."""
    await rig.kube.create(FUNCTIONS, rig.function())
    condition = {"status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    for manager in ("one", "two"):
        item = rig.function()
        item["status"] = {"conditions": [{"type": manager.title(), **condition}]}
        after = await rig.kube.apply(FUNCTIONS, item, manager=manager, subresource="status")
    assert sorted(each["type"] for each in after["status"]["conditions"]) == ["One", "Two"]


# --- status, scale, generations -----------------------------------------------------------------------------


@_case
async def status_and_spec_are_written_apart(rig: KubeRig) -> None:
    """Only a change of the spec makes a new generation."""
    item = rig.function()
    item["status"] = {"url": "http://nowhere"}
    made = await rig.kube.create(FUNCTIONS, item)
    assert "url" not in made.get("status", {})
    status = {**rig.function(image="registry.invalid/f:2"), "status": {"url": "http://here"}}
    after = await rig.kube.apply(FUNCTIONS, status, subresource="status")
    assert after["status"] == {"url": "http://here"}
    assert after["spec"]["image"] == "registry.invalid/f:1"
    assert after["metadata"]["generation"] == 1
    after = await rig.kube.apply(FUNCTIONS, rig.function(image="registry.invalid/f:2"), manager="person")
    assert after["metadata"]["generation"] == 2
    assert after["status"] == {"url": "http://here"}


@_case
async def a_label_makes_no_generation(rig: KubeRig) -> None:
    """Metadata is no spec."""
    await rig.kube.create(FUNCTIONS, rig.function())
    body = {"metadata": {"labels": {"more": "yes"}}}
    after = await rig.kube.patch(FUNCTIONS, _NAMESPACE, rig.name("f"), body)
    assert after["metadata"]["generation"] == 1


@_case
async def scaling_changes_one_number(rig: KubeRig) -> None:
    """Of a Deployment its replicas."""
    await rig.kube.create(
        DEPLOYMENTS, {**rig.deployment(), "spec": rig.deployment()["spec"] | {"replicas": 0}}
    )
    scale = await rig.kube.scale(DEPLOYMENTS, _NAMESPACE, rig.name("d"), 3)
    assert scale["spec"] == {"replicas": 3}
    item = await rig.kube.get(DEPLOYMENTS, _NAMESPACE, rig.name("d"))
    assert item is not None
    assert item["spec"]["replicas"] == 3
    seen = await rig.kube.get(DEPLOYMENTS, _NAMESPACE, rig.name("d"), subresource="scale")
    assert seen is not None
    assert seen["spec"] == {"replicas": 3}
    await rig.kube.scale(DEPLOYMENTS, _NAMESPACE, rig.name("d"), 0)


@_case
async def a_number_is_set_only_where_it_was_seen(rig: KubeRig) -> None:
    """With a version: who scaled in the meantime is not overruled."""
    await rig.kube.create(
        DEPLOYMENTS, {**rig.deployment(), "spec": rig.deployment()["spec"] | {"replicas": 0}}
    )
    seen = await rig.kube.get(DEPLOYMENTS, _NAMESPACE, rig.name("d"), subresource="scale")
    assert seen is not None
    assert not seen["spec"].get("replicas")
    version = seen["metadata"]["resourceVersion"]
    await rig.kube.patch(DEPLOYMENTS, _NAMESPACE, rig.name("d"), {"metadata": {"labels": {"a": "b"}}})
    with pytest.raises(ClusterConflictError):
        await rig.kube.scale(DEPLOYMENTS, _NAMESPACE, rig.name("d"), 1, version=version)
    assert await rig.kube.get(DEPLOYMENTS, _NAMESPACE, "missing", subresource="scale") is None


@_case
async def what_is_not_there_can_not_be_scaled(rig: KubeRig) -> None:
    """Nor has it a status."""
    with pytest.raises(ClusterMissingError):
        await rig.kube.scale(DEPLOYMENTS, _NAMESPACE, rig.name("d"), 1)
    with pytest.raises(ClusterMissingError):
        await rig.kube.apply(FUNCTIONS, {**rig.function(), "status": {}}, subresource="status")


# --- watches ------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _watching(
    rig: KubeRig, since: str, labels: str | None = None
) -> AsyncIterator[asyncio.Queue[Event]]:
    seen: asyncio.Queue[Event] = asyncio.Queue()

    async def read() -> None:
        selector = rig.labels if labels is None else labels
        async for event in rig.kube.watch(CONFIG_MAPS, _NAMESPACE, labels=selector, since=since):
            if event.change != "BOOKMARK":
                await seen.put(event)

    task = asyncio.create_task(read())
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            yield seen
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@_case
async def a_watch_sees_every_change_after_its_version(rig: KubeRig) -> None:
    """In order, and what happened before the watch began."""
    since = (await rig.kube.list(CONFIG_MAPS, _NAMESPACE, labels=rig.labels)).version
    await rig.kube.create(CONFIG_MAPS, rig.config(a="1"))
    async with _watching(rig, since) as seen:
        await rig.kube.patch(CONFIG_MAPS, _NAMESPACE, rig.name("a"), {"data": {"a": "2"}})
        await rig.kube.delete(CONFIG_MAPS, _NAMESPACE, rig.name("a"))
        events = [await seen.get() for _ in range(3)]
    assert [event.change for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert {key(event.item) for event in events} == {f"{_NAMESPACE}/{rig.name('a')}"}
    async with _watching(rig, events[0].version) as seen:
        assert (await seen.get()).change == "MODIFIED"


@_case
async def a_watch_of_one_object_sees_no_other(rig: KubeRig) -> None:
    """As those may who may watch nothing else."""
    since = (await rig.kube.list(CONFIG_MAPS, _NAMESPACE, labels=rig.labels)).version
    for name in ("a", "b"):
        await rig.kube.create(CONFIG_MAPS, rig.config(name))
    await rig.kube.delete(CONFIG_MAPS, _NAMESPACE, rig.name("b"))
    async with asyncio.timeout(_PATIENCE_SECONDS):
        found = []
        async for event in rig.kube.watch(CONFIG_MAPS, _NAMESPACE, name=rig.name("b"), since=since):
            found.append((event.change, event.item["metadata"]["name"]))
            if len(found) == 2:
                break
    assert found == [("ADDED", rig.name("b")), ("DELETED", rig.name("b"))]


@_case
async def fields_select_events_by_what_they_are_about(rig: KubeRig) -> None:
    """Of a reason, and of one container's: that is how a pull of an image is found among all events."""
    fields = "reason=Pulled,involvedObject.kind=Pod,involvedObject.fieldPath=spec.containers{c}"
    since = (await rig.kube.list(CORE_EVENTS, _NAMESPACE, fields=fields)).version
    await rig.kube.create(CORE_EVENTS, rig.event("other", "spec.containers{d}", "Pulled"))
    await rig.kube.create(CORE_EVENTS, rig.event("early", "spec.containers{c}", "Pulling"))
    await rig.kube.create(CORE_EVENTS, rig.event("right", "spec.containers{c}", "Pulled"))
    listed = await rig.kube.list(CORE_EVENTS, _NAMESPACE, labels=rig.labels, fields=fields)
    assert [item["metadata"]["name"] for item in listed.items] == [rig.name("right")]
    async with asyncio.timeout(_PATIENCE_SECONDS):
        async for event in rig.kube.watch(CORE_EVENTS, _NAMESPACE, fields=fields, since=since):
            if event.item["metadata"].get("labels") == {"contract": rig.prefix}:
                assert event.item["metadata"]["name"] == rig.name("right")
                return


@_case
async def what_is_selected_no_more_is_deleted_to_a_watch(rig: KubeRig) -> None:
    """And added when it is selected again."""
    since = (await rig.kube.list(CONFIG_MAPS, _NAMESPACE, labels=rig.labels)).version
    async with _watching(rig, since, f"{rig.labels},more") as seen:
        await rig.kube.create(CONFIG_MAPS, rig.config())
        for value in ("yes", None, "yes"):
            body = {"metadata": {"labels": {"more": value}}}
            await rig.kube.patch(CONFIG_MAPS, _NAMESPACE, rig.name("a"), body)
        assert [(await seen.get()).change for _ in range(3)] == ["ADDED", "DELETED", "ADDED"]


# --- ends ---------------------------------------------------------------------------------------------------


@_case
async def what_has_a_finalizer_waits_for_it(rig: KubeRig) -> None:
    """It is marked, and goes with its last finalizer."""
    item = rig.config()
    item["metadata"]["finalizers"] = ["torpor.dev/test"]
    await rig.kube.create(CONFIG_MAPS, item)
    await rig.kube.delete(CONFIG_MAPS, _NAMESPACE, rig.name("a"))
    marked = await rig.kube.get(CONFIG_MAPS, _NAMESPACE, rig.name("a"))
    assert marked is not None
    assert marked["metadata"]["deletionTimestamp"]
    await rig.kube.patch(CONFIG_MAPS, _NAMESPACE, rig.name("a"), {"metadata": {"finalizers": None}})
    assert await rig.kube.get(CONFIG_MAPS, _NAMESPACE, rig.name("a")) is None


@_case
async def it_says_which_subresources_there_are(rig: KubeRig) -> None:
    """Not every version has all."""
    found = await rig.kube.subresources(PODS)
    assert "status" in found
    assert "" not in found
    assert "pods" not in found


@_case
async def what_belongs_to_what_is_gone_goes_too(rig: KubeRig) -> None:
    """Owner references."""
    owner = await rig.kube.create(FUNCTIONS, rig.function())
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
    item = rig.config()
    item["metadata"]["ownerReferences"] = [reference]
    await rig.kube.create(CONFIG_MAPS, item)
    await rig.kube.delete(FUNCTIONS, _NAMESPACE, rig.name("f"))

    async def gone() -> bool:
        return await rig.kube.get(CONFIG_MAPS, _NAMESPACE, rig.name("a")) is None

    await rig.eventually(gone)
