# ruff: noqa: E501 - tables are read by the line
"""Reconciling functions: what there is, and what is written, told and left alone then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.controller.bench import (
    KEY,
    REVISION_1,
    REVISION_2,
    REVISION_3,
    Bench,
    function,
    nth_write_fails,
    run,
    waiting,
)
from torpor.controller import names
from torpor.controller.status import Trouble, trouble
from torpor.errors import ClusterConflictError, ClusterError
from torpor.providers.kubernetes import resources

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from torpor.providers.kubernetes.kube import Call

_AT_FIRST = [
    "PATCH /api/v1/namespaces/default/serviceaccounts/fn-f",
    "PATCH /apis/networking.k8s.io/v1/namespaces/default/networkpolicies/fn-f",
    "POST /apis/apps/v1/namespaces/default/controllerrevisions",
    "POST /apis/apps/v1/namespaces/default/deployments",
    "PATCH /api/v1/namespaces/default/services/fn-f",
    "PATCH /apis/torpor.dev/v1alpha1/namespaces/default/functions/f/status",
    "POST /apis/events.k8s.io/v1/namespaces/default/events",
    "POST /apis/events.k8s.io/v1/namespaces/default/events",
]


def test_a_new_function_is_made_at_rest_and_then_left_alone() -> None:
    async def case(bench: Bench) -> None:
        bench.declare(function())
        assert await bench.step() == _AT_FIRST
        assert await bench.step() == []
        assert bench.replicas(REVISION_1) == 0
        assert bench.ready() == ("True", "AtRest")
        status = bench.status()
        assert (status["revision"], status["latestRevision"]) == (REVISION_1, REVISION_1)
        assert (status["url"], status["instances"]) == ("http://gateway/function/f.default", 0)
        assert bench.reasons() == ["AtRest", "RevisionServes"]

    run(case)


def test_the_first_instances_are_those_declared() -> None:
    async def case(bench: Bench) -> None:
        bench.declare(function(scaling={"minScale": 2}))
        await bench.until_quiet()
        assert bench.replicas(REVISION_1) == 2
        assert bench.ready() == ("Unknown", "Starting")
        assert bench.server.read(resources.DISRUPTION_BUDGETS, "default/fn-f") is not None
        bench.pods(REVISION_1, 2)
        await bench.until_quiet()
        assert bench.ready() == ("True", "Serving")
        assert bench.status()["instances"] == 2
        bench.declare(function(scaling={"minScale": 1}))
        await bench.until_quiet()
        assert bench.server.read(resources.DISRUPTION_BUDGETS, "default/fn-f") is None

    run(case)


def test_what_the_autoscaler_decides_is_written_through_the_scale() -> None:
    async def case(bench: Bench) -> None:
        bench.declare(function())
        await bench.until_quiet()
        bench.fleet.scale(KEY, 3)
        assert (await bench.step())[0] == "PATCH /apis/apps/v1/namespaces/default/deployments/f-00001/scale"
        assert bench.replicas(REVISION_1) == 3
        await bench.until_quiet()
        assert bench.ready() == ("Unknown", "Starting")

    run(case)


def test_what_a_gateway_woke_stays_awake() -> None:
    async def case(bench: Bench) -> None:
        bench.declare(function())
        await bench.until_quiet()
        await bench.server.kube().scale(resources.DEPLOYMENTS, "default", REVISION_1, 1, manager="gateway")
        await bench.until_quiet()
        assert bench.replicas(REVISION_1) == 1
        assert bench.fleet.desired(KEY) == 1

    run(case)


def test_what_has_just_been_written_is_not_taken_for_a_gateways() -> None:
    async def case(bench: Bench) -> None:
        bench.declare(function(scaling={"idle": "zero"}))
        await bench.until_quiet()
        bench.fleet.scale(KEY, 1)
        await bench.until_quiet()
        bench.fleet.scale(KEY, 0)
        for _ in range(2):  # the watch has not told of the first when the second looks
            await bench.functions.reconcile(KEY)
        assert bench.fleet.desired(KEY) == 0
        assert bench.replicas(REVISION_1) == 0

    run(case)


def test_another_leader_takes_over_what_runs() -> None:
    async def case(bench: Bench) -> None:
        bench.declare(function())
        await bench.until_quiet()
        bench.fleet.scale(KEY, 4)
        await bench.until_quiet()
        bench.pods(REVISION_1, 4)
        await bench.until_quiet()
        await bench.restart()
        assert await bench.step() == []
        assert bench.replicas(REVISION_1) == 4

    run(case)


def test_a_changed_deployment_is_put_right() -> None:
    async def case(bench: Bench) -> None:
        bench.declare(function())
        await bench.until_quiet()
        container = {"name": "function", "image": "registry.example/other:1"}
        body = {"spec": {"template": {"spec": {"containers": [container]}}}}
        await bench.server.kube().patch(resources.DEPLOYMENTS, "default", REVISION_1, body, manager="person")
        await bench.until_quiet()
        item = bench.server.read(resources.DEPLOYMENTS, f"default/{REVISION_1}")
        assert item is not None
        assert item["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/f:1"

    run(case)


# --- rollouts -----------------------------------------------------------------------------------------------


async def _serving_two(bench: Bench) -> None:
    bench.declare(function())
    await bench.until_quiet()
    bench.fleet.scale(KEY, 2)
    await bench.until_quiet()
    bench.pods(REVISION_1, 2)
    await bench.until_quiet()


def test_a_new_revision_serves_once_it_has_as_many_ready_as_the_one_before() -> None:
    async def case(bench: Bench) -> None:
        await _serving_two(bench)
        bench.declare(function(image="registry.example/f:2"))
        await bench.until_quiet()
        assert (bench.serving(), bench.replicas(REVISION_2)) == (REVISION_1, 2)
        assert bench.ready() == ("Unknown", "RollingOut")
        bench.pods(REVISION_2, 1)
        await bench.until_quiet()
        assert bench.serving() == REVISION_1
        bench.pods(REVISION_2, 2)
        await bench.until_quiet()
        assert (bench.serving(), bench.replicas(REVISION_1), bench.replicas(REVISION_2)) == (REVISION_2, 0, 2)
        assert bench.ready() == ("True", "Serving")

    run(case)


def test_the_one_before_serves_on_when_a_revision_can_not_start() -> None:
    async def case(bench: Bench) -> None:
        await _serving_two(bench)
        bench.declare(function(image="registry.example/f:2"))
        await bench.until_quiet()
        statuses = [waiting("ImagePullBackOff", "not found")]
        bench.pods(REVISION_2, 2, ready=False, containerStatuses=statuses)
        await bench.until_quiet()
        assert (bench.serving(), bench.replicas(REVISION_1)) == (REVISION_1, 2)
        assert bench.ready() == ("False", "ImageNotPulled")
        [ready] = [one for one in bench.status()["conditions"] if one["type"] == "Ready"]
        assert ready["message"] == (
            "f-00002: the image registry.example/f:1 is not pulled: not found; f-00001 serves on"
        )
        assert "ImageNotPulled" in bench.reasons()

    run(case)


def test_a_return_to_the_former_spec_is_a_return_to_its_revision() -> None:
    async def case(bench: Bench) -> None:
        await _serving_two(bench)
        bench.declare(function(image="registry.example/f:2"))
        await bench.until_quiet()
        bench.pods(REVISION_2, 2)
        await bench.until_quiet()
        bench.pods(REVISION_1, 0)
        bench.declare(function())
        await bench.until_quiet()
        assert (bench.serving(), bench.replicas(REVISION_1)) == (REVISION_2, 2)
        bench.pods(REVISION_1, 2)
        await bench.until_quiet()
        assert (bench.serving(), bench.replicas(REVISION_2)) == (REVISION_1, 0)
        assert len(bench.server.all(resources.REVISIONS)) == 2

    run(case)


def test_old_revisions_are_dropped() -> None:
    async def case(bench: Bench) -> None:
        await _serving_two(bench)
        for number, revision in ((2, REVISION_2), (3, REVISION_3)):
            bench.declare(function(image=f"registry.example/f:{number}"))
            await bench.until_quiet()
            bench.pods(revision, 2)
            await bench.until_quiet()
            bench.pods(f"f-{number - 1:05d}", 0)
            await bench.until_quiet()
        names = [item["metadata"]["name"] for item in bench.server.all(resources.REVISIONS)]
        assert names == [REVISION_2, REVISION_3]
        assert bench.replicas(REVISION_1) is None

    run(case)


def test_what_belongs_to_others_is_not_taken_over() -> None:
    async def case(bench: Bench) -> None:
        theirs = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "fn-f", "namespace": "default"},
            "spec": {"selector": {"app": "theirs"}, "clusterIP": "10.0.0.1"},
        }
        await bench.server.kube().apply(resources.SERVICES, theirs, manager="person")
        bench.declare(function())
        with pytest.raises(ClusterConflictError):
            await bench.step()
        found = bench.server.read(resources.SERVICES, "default/fn-f")
        assert found is not None
        assert found["spec"] == theirs["spec"]
        assert bench.ready() == ("False", "Refused")
        assert bench.status()["conditions"][0]["message"].startswith("Service fn-f: Apply failed")

    run(case)


def test_a_function_in_a_namespace_that_is_being_deleted_has_no_fault() -> None:
    async def case(bench: Bench) -> None:
        metadata = {"name": "default", "deletionTimestamp": "2026-01-01T00:00:00Z"}
        bench.server.put(resources.NAMESPACES, {"metadata": metadata})
        bench.declare(function())
        await bench.step()
        assert bench.server.all(resources.SERVICE_ACCOUNTS) == []
        assert "status" not in bench.server.all(resources.FUNCTIONS)[0]

    run(case)


def test_scaling_and_routes_make_no_revision() -> None:
    async def case(bench: Bench) -> None:
        bench.declare(function())
        await bench.until_quiet()
        bench.declare(function(scaling={"maxScale": 3}, http={"paths": ["/a"]}))
        await bench.until_quiet()
        assert len(bench.server.all(resources.REVISIONS)) == 1

    run(case)


# --- what is wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason", "message"),
    [
        ({"containerStatuses": [waiting("CrashLoopBackOff", restarts=2, exitCode=1)]}, "CrashLoop",
         "f-00001: the container ended with exit code 1; it last wrote: Traceback | ValueError: no"),
        ({"containerStatuses": [waiting("CrashLoopBackOff", restarts=1, exitCode=137, reason="OOMKilled")]}, "OutOfMemory",
         "f-00001: the container was ended for using more memory than its limit"),
        ({"containerStatuses": [waiting("CreateContainerConfigError", 'secret "s" not found')]}, "ConfigurationMissing",
         'f-00001: the container can\'t be made: secret "s" not found'),
        ({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]},
         "Unschedulable", "f-00001: no node takes the pod: 0/1 nodes"),
    ],
)  # fmt: skip
def test_what_keeps_it_from_running_is_told(status: dict[str, Any], reason: str, message: str) -> None:
    async def case(bench: Bench) -> None:
        bench.declare(function(scaling={"minScale": 1}))
        await bench.until_quiet()
        bench.server.write_logs("default/f-00001-0", ["Traceback", "ValueError: no"], previous=True)
        bench.pods(REVISION_1, 1, ready=False, **status)
        await bench.until_quiet()
        assert bench.ready() == ("False", reason)
        [ready] = [one for one in bench.status()["conditions"] if one["type"] == "Ready"]
        assert ready["message"] == message

    run(case)


def test_how_a_pod_ends_that_was_told_to_says_nothing() -> None:
    ended = {"name": names.CONTAINER, "state": {"terminated": {"exitCode": 1}}, "restartCount": 0}
    pod: dict[str, Any] = {"metadata": {"name": "p"}, "status": {"containerStatuses": [ended]}}
    assert trouble([pod], None, {}) == Trouble("CrashLoop", "the container ended with exit code 1")
    pod["metadata"]["deletionTimestamp"] = "2026-01-31T12:00:00Z"
    assert trouble([pod], None, {}) is None


def test_a_quota_is_told() -> None:
    async def case(bench: Bench) -> None:
        bench.declare(function(scaling={"minScale": 1}))
        await bench.until_quiet()
        item = bench.server.read(resources.DEPLOYMENTS, f"default/{REVISION_1}")
        assert item is not None
        condition = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: q"}
        bench.server.put(resources.DEPLOYMENTS, {**item, "status": {"conditions": [condition]}})
        await bench.until_quiet()
        assert bench.ready() == ("False", "QuotaExceeded")

    run(case)


def test_a_failure_is_not_forgotten_with_its_pods() -> None:
    async def case(bench: Bench) -> None:
        bench.declare(function())
        await bench.until_quiet()
        bench.fleet.scale(KEY, 1)
        await bench.until_quiet()
        bench.pods(REVISION_1, 1, ready=False, containerStatuses=[waiting("ErrImagePull", "no")])
        await bench.until_quiet()
        bench.fleet.scale(KEY, 0)
        bench.pods(REVISION_1, 0)
        await bench.until_quiet()
        assert bench.ready() == ("False", "ImageNotPulled")
        bench.declare(function(image="registry.example/f:2"))
        await bench.until_quiet()
        assert bench.ready()[1] == "RollingOut"

    run(case)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"image": None}, "spec.image: is missing, it has to be given"),
        ({"timeoutSeconds": 0}, "spec.timeoutSeconds: is 0, more than 0 was expected"),
    ],
)
def test_what_the_schema_let_through_is_told(spec: dict[str, Any], message: str) -> None:
    async def case(bench: Bench) -> None:
        item = function(**spec)
        item["spec"] = {name: value for name, value in item["spec"].items() if value is not None}
        bench.declare(item)
        await bench.until_quiet()
        assert bench.ready() == ("False", "Invalid")
        assert bench.status()["conditions"][0]["message"] == message
        assert bench.server.all(resources.DEPLOYMENTS) == []

    run(case)


def test_a_function_that_goes_takes_all_with_it() -> None:
    async def case(bench: Bench) -> None:
        await _serving_two(bench)
        bench.server.remove(resources.FUNCTIONS, KEY)
        await bench.until_quiet()
        for resource in (
            resources.DEPLOYMENTS,
            resources.REVISIONS,
            resources.SERVICES,
            resources.SERVICE_ACCOUNTS,
        ):
            assert bench.server.all(resource) == []
        assert bench.autoscaler.explain(KEY) is None

    run(case)


# --- a failure at every write -------------------------------------------------------------------------------


async def _rollout(bench: Bench, step: Callable[[], Awaitable[None]]) -> None:
    """From nothing to the third revision, ``step`` bringing it to rest each time."""
    bench.declare(function(scaling={"minScale": 2}))
    await step()
    bench.pods(REVISION_1, 2)
    await step()
    for number, revision in ((2, REVISION_2), (3, REVISION_3)):
        bench.declare(function(image=f"registry.example/f:{number}", scaling={"minScale": 2}))
        await step()
        bench.pods(revision, 2)
        await step()
        bench.pods(f"f-{number - 1:05d}", 0)
        await step()


def _end_state(bench: Bench) -> dict[str, Any]:
    kinds = (resources.DEPLOYMENTS, resources.REVISIONS, resources.SERVICES, resources.NETWORK_POLICIES)
    found: dict[str, Any] = {}
    for resource in kinds:
        for item in bench.server.all(resource):
            item["metadata"] = {"labels": item["metadata"]["labels"], "name": item["metadata"]["name"]}
            found[f"{resource.plural}/{item['metadata']['name']}"] = item
    status = bench.status()
    return {
        **found,
        "status": {name: status[name] for name in ("revision", "instances")},
        "ready": bench.ready(),
    }


async def _disturbed(
    disturb: Callable[[Bench], None], *, restart: bool = False
) -> tuple[dict[str, Any], int]:
    async with Bench() as bench:
        disturb(bench)

        async def step() -> None:
            for _ in range(30):
                try:
                    if not await bench.step():
                        return
                except ClusterError:
                    if restart:
                        await bench.restart()
            raise AssertionError("it never comes to rest")

        await _rollout(bench, step)
        return _end_state(bench), len(bench.server.writes)


@pytest.mark.parametrize("restart", [False, True], ids=["same", "another-leader"])
def test_it_comes_to_the_same_end_whichever_write_fails(*, restart: bool) -> None:
    async def case() -> None:
        wanted, writes = await _disturbed(lambda _: None)
        assert writes > 30
        for number in range(writes):

            def refuse(bench: Bench, number: int = number) -> None:
                bench.server.fail = nth_write_fails(number)

            def lose(bench: Bench, number: int = number) -> None:
                fails = nth_write_fails(number)
                bench.server.lose = lambda call: fails(call) is not None

            for disturb in (refuse, lose):
                found, _ = await _disturbed(disturb, restart=restart)
                assert found == wanted, f"write {number}, {disturb.__name__}"

    asyncio.run(case())


def test_nothing_is_read_from_the_server_when_nothing_has_changed() -> None:
    async def case(bench: Bench) -> None:
        await _serving_two(bench)
        before: list[Call] = list(bench.server.calls)
        assert await bench.step() == []
        assert bench.server.calls == before

    run(case)


def test_a_route_that_another_function_has_is_told() -> None:
    async def case(bench: Bench) -> None:
        bench.declare(function(http={"paths": ["/a", "/b"]}))
        await bench.until_quiet()
        assert bench.ready() == ("True", "AtRest")
        rival = function(http={"paths": ["/b"]})
        rival["metadata"]["name"] = "a"
        bench.server.put(resources.FUNCTIONS, rival)
        await bench.settle()
        bench.changed.clear()
        await bench.functions.reconcile("default/a")
        assert KEY in bench.changed
        await bench.until_quiet()
        assert bench.ready() == ("False", "RouteTaken")
        [one] = [one for one in bench.status()["conditions"] if one["type"] == "Ready"]
        assert one["message"] == "'/b' on any host leads to function 'default/a'; another was expected"
        bench.server.remove(resources.FUNCTIONS, "default/a")
        await bench.settle()
        bench.changed.clear()
        await bench.functions.reconcile("default/a")
        assert KEY in bench.changed
        await bench.until_quiet()
        assert bench.ready() == ("True", "AtRest")

    run(case)
