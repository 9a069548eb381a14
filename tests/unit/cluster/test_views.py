"""What is shown of a function, a trigger and the platform's pods, by what there is of each."""

from __future__ import annotations

from typing import Any

import pytest

from torpor.cluster import views
from torpor.events.declaration import EventsState, TriggerReport
from torpor.scaling.loop import ScalingState
from torpor.spec.status import EventCounts

READY = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:03Z"}


def function(*, spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "torpor.dev/v1alpha1",
        "kind": "Function",
        "metadata": {"name": "f", "namespace": "n", "generation": 2, "labels": {"team": "blue"}},
        "spec": {"image": "registry.example/f:1", **(spec or {})},
        "status": status,
    }


def told(status: str, reason: str, message: str, *, serving: bool = False, seen: int = 2) -> dict[str, Any]:
    one = {
        "type": "Ready",
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": seen,
    }
    return {
        "conditions": [one, {"type": "Serving", "status": str(serving), "reason": "x", "message": ""}],
        "revision": "f-00001",
    }


def pod(name: str, *, ready: bool = True, revision: str = "f-00001", **metadata: Any) -> dict[str, Any]:
    labels = {"torpor.dev/function": "f", "torpor.dev/revision": revision}
    return {
        "metadata": {
            "name": name,
            "namespace": "n",
            "uid": name,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": labels,
            **metadata,
        },
        "status": {
            "podIP": "10.0.0.1",
            "conditions": [READY] if ready else [],
            "containerStatuses": [{"name": "function", "restartCount": 1}],
        },
    }


def shown(item: dict[str, Any], *pods: dict[str, Any], scaling: ScalingState | None = None) -> Any:
    facts = views.Facts(url="http://gateway/function/f.n", pods=pods, requests=7, scaling=scaling)
    return views.function_status(item, facts)


def test_a_function_is_shown_with_its_pods() -> None:
    draining = pod("b", deletionTimestamp="2026-01-01T00:01:00Z", creationTimestamp="2025-12-31T23:00:00Z")
    ended = pod("d")
    ended["status"]["phase"] = "Failed"
    status = shown(
        function(**told("True", "Serving", "1 of 2", serving=True)),
        *(pod("a"), draining, pod("c", ready=False), ended),
    )
    assert [(one.id, one.state) for one in status.instances] == [
        ("b", "draining"),
        ("a", "ready"),
        ("c", "starting"),
    ]
    instance = status.instances[1]
    assert (instance.endpoint, instance.revision) == ("10.0.0.1:8080", "f-00001")
    assert instance.ready_at is not None
    assert (instance.ready_at - instance.started_at).total_seconds() == 3
    assert status.instances[2].ready_at is None
    assert (status.desired, status.restarts, status.requests) == (2, 3, 7)
    assert (status.ready, status.reason, status.revision) == (True, "serving", "f-00001")
    assert (status.image, status.url) == ("registry.example/f:1", "http://gateway/function/f.n")
    assert status.labels == {"team": "blue"}


def test_what_the_controller_decided_is_shown_where_it_says_so() -> None:
    decided = ScalingState(desired=5, observed=23.5, panicking=True, reason="a burst")
    status = shown(function(**told("True", "Serving", "")), pod("a"), scaling=decided)
    assert (status.desired, status.scaling.observed) == (5, 23.5)
    assert (status.scaling.panicking, status.scaling.reason) == (True, "a burst")


@pytest.mark.parametrize(
    ("status", "pods", "ready", "reason"),
    [
        (told("True", "AtRest", "it rests"), [], True, "at rest"),
        (told("True", "Parked", "it rests"), [pod("a")], True, "at rest, parked"),
        (told("Unknown", "Starting", ""), [pod("a", ready=False)], True, "waking"),
        (told("False", "CrashLoop", "it ends"), [], False, "it ends"),
        (
            told("False", "CrashLoop", "f-2: it ends", serving=True),
            [pod("a")],
            True,
            "the version before goes on: f-2: it ends",
        ),
        (told("Unknown", "RollingOut", "f-2 is being started", serving=True), [pod("a")], True, None),
        ({}, [], False, "the controller has not looked at it yet"),
        (told("True", "AtRest", "it rests", seen=1), [], False, "the controller has not looked at it yet"),
    ],
)
def test_a_function_s_state_in_a_few_words(
    status: dict[str, Any], pods: list[dict[str, Any]], ready: bool, reason: str | None
) -> None:
    view = shown(function(**status), *pods)
    assert (view.ready, view.reason) == (ready, reason or "f-2 is being started")


def test_a_function_that_is_wrong_is_shown_all_the_same() -> None:
    view = shown(function(spec={"scaling": {"minScale": 5, "maxScale": 1}}, **told("True", "AtRest", "")))
    assert not view.ready
    assert view.reason == "spec.scaling.minScale: is 5, at most maxScale (1) was expected"


def test_events_pods_add_up_but_for_what_waits() -> None:
    one = EventsState(
        published_by_broker={"n/default": 3},
        triggers={"n/t": TriggerReport(delivered=1, redelivered=1, failed=2, dead_lettered=1, pending=9)},
        refused={"x": 1},
    )
    two = EventsState(
        published_by_broker={"n/default": 4, "n/other": 1},
        triggers={"n/t": TriggerReport(delivered=10, pending=8, problem="no"), "n/u": TriggerReport()},
    )
    both = views.events_sum([one, two])
    assert both.published_by_broker == {"n/default": 7, "n/other": 1}
    counts = both.counts("n/t")
    assert counts is not None
    assert (counts.delivered, counts.redelivered, counts.failed, counts.dead_lettered) == (11, 1, 2, 1)
    assert counts.pending == 9
    assert (both.problem("n/t"), both.refused) == ("no", {"x": 1})
    assert both.problem("n/u") == "not at work in every events pod yet"
    assert views.events_sum([two, two]).problem("n/u") == ""
    assert views.events_sum([]) == EventsState()


def trigger(spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "torpor.dev/v1alpha1",
        "kind": "Trigger",
        "metadata": {"name": "t", "namespace": "n"},
        "spec": spec or {"subscriber": {"function": "f"}},
        "status": status,
    }


def test_a_trigger_is_shown_with_what_is_wrong() -> None:
    counts = EventCounts(delivered=2)
    fine = views.trigger_status(trigger(), counts, "")
    assert (fine.ready, fine.reason, fine.delivered, fine.function) == (True, "", 2, "f")
    assert views.trigger_status(trigger(), None, "").reason == "not at work yet"
    missing = told("False", "SubscriberMissing", "there is no function")
    assert views.trigger_status(trigger(**missing), counts, "").reason == "there is no function"
    wrong = views.trigger_status(trigger({"subscriber": {"function": "f"}, "parallelism": 0}), counts, "")
    assert not wrong.ready
    assert "spec.parallelism" in wrong.reason


def test_what_the_api_server_let_through_and_is_wrong_is_a_fault() -> None:
    wrong = function(**told("False", "Invalid", "spec.x: is y"))
    crashed = function(**told("False", "CrashLoop", "it ends"))
    assert views.faults([wrong, crashed]) == ("Function n/f: spec.x: is y",)


def part(component: str, name: str, **status: Any) -> dict[str, Any]:
    labels = {"app.kubernetes.io/component": component}
    return {
        "metadata": {"name": name, "namespace": "torpor", "uid": name, "labels": labels},
        "spec": {"containers": [{"image": "registry.example:5000/torpor:1.2@sha256:ab"}]},
        "status": {"podIP": "10.0.0.9", **status},
    }


def test_every_pod_of_the_platform_is_a_part_and_a_part_without_a_pod_is_missed() -> None:
    waiting = {
        "name": "c",
        "restartCount": 2,
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no"}},
    }
    unplaced = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}
    ended = {"name": "c", "state": {"terminated": {"exitCode": 3}}}
    pods = [
        part("gateway", "gateway-1", conditions=[READY]),
        part("gateway", "gateway-2", conditions=[unplaced]),
        part("api", "api-1", containerStatuses=[waiting]),
        part("api", "api-2", containerStatuses=[ended]),
        part("api", "api-3"),
        part("controller", "old", phase="Failed"),
        part("nats", "nats-0", conditions=[READY]),
    ]
    parts = {one.name: one for one in views.parts(pods, {"gateway-1": 1000})}
    assert list(parts) == [
        "api-1",
        "api-2",
        "api-3",
        "gateway-1",
        "gateway-2",
        "nats-0",
        "controller",
        "events",
    ]
    good = parts["gateway-1"]
    assert (good.healthy, good.version, good.address) == (True, "1.2", "10.0.0.9")
    assert (good.memory_bytes, parts["nats-0"].memory_bytes) == (1000, None)
    assert {name: one.detail for name, one in parts.items() if not one.healthy} == {
        "api-1": "ImagePullBackOff: no",
        "api-2": "c ended with 3",
        "api-3": "is not ready",
        "gateway-2": "no node takes it: 0/1 nodes",
        "controller": "it has no pod",
        "events": "it has no pod",
    }
    assert parts["api-1"].restarts == 2
