"""Functions that rest parked: what is written and told, and that each write may fail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.controller.bench import (
    KEY,
    REQUESTS,
    REVISION_1,
    REVISION_2,
    Bench,
    function,
    nth_write_fails,
    pod_of,
    run,
)
from torpor.controller import names
from torpor.errors import ClusterError, ClusterRefusedError
from torpor.providers.kubernetes import resources

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from torpor.providers.kubernetes.kube import Call
    from torpor.providers.kubernetes.resources import Object

POD = f"default/{REVISION_1}-0"
OTHER = f"default/{REVISION_1}-1"
SMALL = {"cpu": "1m", "memory": "64Mi"}
DEPLOYMENT = f"PATCH /apis/apps/v1/namespaces/default/deployments/{REVISION_1}"
RESIZE = f"PATCH /api/v1/namespaces/default/pods/{REVISION_1}-0/resize"


def requests(bench: Bench, pod: str = POD) -> dict[str, str]:
    found = bench.server.read(resources.PODS, pod)
    assert found is not None
    asked: dict[str, str] = found["spec"]["containers"][0]["resources"]["requests"]
    return asked


def mark(bench: Bench, revision: str = REVISION_1) -> str | None:
    found = bench.server.read(resources.DEPLOYMENTS, f"default/{revision}")
    assert found is not None
    since: str | None = found["metadata"].get("annotations", {}).get(names.PARKED_SINCE)
    return since


def cost(bench: Bench, pod: str) -> str | None:
    found = bench.server.read(resources.PODS, pod)
    assert found is not None
    told: str | None = found["metadata"].get("annotations", {}).get(names.DELETION_COST)
    return told


def resting(**spec: Any) -> Object:
    """A function that rests parked."""
    return function(**{"scaling": {"idle": "parked"}, **spec})


async def active(bench: Bench, number: int = 1, **spec: Any) -> None:
    bench.declare(resting(**spec))
    await bench.until_quiet()
    bench.fleet.scale(KEY, number)
    await bench.until_quiet()
    bench.pods(REVISION_1, number)
    await bench.until_quiet()


async def parked(bench: Bench) -> None:
    await active(bench)
    bench.fleet.scale(KEY, 0)
    await bench.until_quiet()
    assert requests(bench) == SMALL


def stick(bench: Bench) -> None:
    """The pod's node can't grow it."""
    item = bench.server.read(resources.PODS, POD)
    assert item is not None
    pending = {"type": "PodResizePending", "status": "True", "reason": "Deferred"}
    status = {**item["status"], "conditions": [*item["status"]["conditions"], pending]}
    bench.server.put(resources.PODS, {**item, "status": status})


def told(bench: Bench) -> tuple[str, str] | None:
    """Reason and message of what keeps it from being parked."""
    for one in bench.status()["conditions"]:
        if one["type"] == "Parking":
            assert one["status"] == "False"
            return one["reason"], one["message"]
    return None


def test_it_is_parked_woken_and_taken_to_zero() -> None:
    async def case(bench: Bench) -> None:
        await active(bench)
        bench.fleet.scale(KEY, 0)
        assert (await bench.step())[:2] == [DEPLOYMENT, RESIZE]
        await bench.until_quiet()
        assert (bench.replicas(REVISION_1), requests(bench)) == (1, SMALL)
        assert mark(bench) == f"{bench.clock.now():.3f}"
        assert bench.ready() == ("True", "Parked")

        bench.fleet.scale(KEY, 1)
        assert (await bench.step())[:2] == [RESIZE, DEPLOYMENT]
        await bench.until_quiet()
        assert (bench.replicas(REVISION_1), requests(bench), mark(bench)) == (1, REQUESTS, None)
        assert bench.ready() == ("True", "Serving")

        bench.fleet.scale(KEY, 0)
        await bench.until_quiet()
        await bench.clock.advance(599.0)
        assert await bench.step() == []
        assert await bench.functions.reconcile(KEY) == pytest.approx(1.0)
        await bench.clock.advance(1.0)
        assert (await bench.step())[0] == DEPLOYMENT
        bench.pods(REVISION_1, 0)
        await bench.until_quiet()
        assert (bench.replicas(REVISION_1), mark(bench)) == (0, None)
        assert bench.ready() == ("True", "AtRest")

    run(case)


def test_what_it_holds_is_what_it_asks_for_where_that_is_known() -> None:
    async def case(bench: Bench) -> None:
        usage = [{"name": names.CONTAINER, "usage": {"memory": "30Mi"}}]
        metadata = {"name": f"{REVISION_1}-0", "namespace": "default"}
        bench.server.put(resources.POD_METRICS, {"metadata": metadata, "containers": usage})
        await active(bench)
        bench.fleet.scale(KEY, 0)
        await bench.until_quiet()
        assert requests(bench) == {"cpu": "1m", "memory": "33Mi"}

    run(case)


def test_another_leader_lets_it_rest() -> None:
    async def case(bench: Bench) -> None:
        await parked(bench)
        since = mark(bench)
        await bench.clock.advance(100.0)
        await bench.restart()
        assert await bench.step() == []
        assert (bench.replicas(REVISION_1), mark(bench)) == (1, since)
        assert bench.fleet.desired(KEY) == 0

    run(case)


def test_a_request_wakes_it_without_anybody_asking() -> None:
    """What Envoy sends to a parked pod is seen in the loads alone."""

    async def case(bench: Bench) -> None:
        await parked(bench)
        ticking = asyncio.create_task(bench.autoscaler.run())
        await bench.clock.advance(5.0, bench.settle)
        assert bench.fleet.desired(KEY) == 0
        bench.served(KEY, 1)
        await bench.clock.advance(1.0, bench.settle)
        assert bench.fleet.desired(KEY) == 1
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        await bench.until_quiet()
        assert requests(bench) == REQUESTS

    run(case)


def test_a_pod_that_takes_its_place_is_shrunk_too() -> None:
    async def case(bench: Bench) -> None:
        await parked(bench)
        since = mark(bench)
        bench.pods(REVISION_1, 1, ready=False)
        await bench.until_quiet()
        assert requests(bench) == REQUESTS
        bench.pods(REVISION_1, 1)
        await bench.until_quiet()
        assert (requests(bench), mark(bench)) == (SMALL, since)

    run(case)


def test_another_pod_is_started_where_the_node_can_not_grow_it() -> None:
    async def case(bench: Bench) -> None:
        await parked(bench)
        bench.fleet.scale(KEY, 1)
        await bench.until_quiet()
        stick(bench)
        await bench.until_quiet()
        assert bench.replicas(REVISION_1) == 2
        bench.server.put(resources.PODS, pod_of(REVISION_1, 1, ready=False))
        await bench.until_quiet()
        assert bench.replicas(REVISION_1) == 2
        bench.server.put(resources.PODS, pod_of(REVISION_1, 1))
        writes = await bench.step()
        assert writes[0] == "PATCH /api/v1/namespaces/default/pods/f-00001-0"
        assert writes[1] == f"{DEPLOYMENT}/scale"
        assert (cost(bench, POD), cost(bench, OTHER)) == ("-1", None)
        await bench.until_quiet()
        assert bench.replicas(REVISION_1) == 1

    run(case)


def test_a_rollout_goes_by_what_is_parked() -> None:
    async def case(bench: Bench) -> None:
        await parked(bench)
        bench.declare(resting(image="registry.example/f:2"))
        await bench.until_quiet()
        assert (bench.serving(), bench.replicas(REVISION_1), bench.replicas(REVISION_2)) == (REVISION_1, 1, 1)
        bench.pods(REVISION_2, 1)
        await bench.until_quiet()
        assert (bench.serving(), bench.replicas(REVISION_1), mark(bench)) == (REVISION_2, 0, None)
        bench.fleet.scale(KEY, 0)
        await bench.until_quiet()
        assert mark(bench, REVISION_2) is not None

    run(case)


# --- where it can't be --------------------------------------------------------------------------------------


def test_without_resize_it_rests_at_zero_and_says_so() -> None:
    async def case(bench: Bench) -> None:
        bench.server.extra = ()
        await active(bench)
        bench.fleet.scale(KEY, 0)
        await bench.until_quiet()
        assert (bench.replicas(REVISION_1), mark(bench)) == (0, None)
        assert told(bench) == (
            "NoResize",
            "this cluster can't resize pods in place (Kubernetes 1.33 can); it rests at zero",
        )
        bench.declare(function(scaling={"idle": "zero"}))
        await bench.until_quiet()
        assert told(bench) is None

    run(case)


def test_what_is_guaranteed_rests_at_zero() -> None:
    async def case(bench: Bench) -> None:
        await active(bench, resources={"limits": {"cpu": "50m", "memory": "64Mi"}})
        bench.fleet.scale(KEY, 0)
        await bench.until_quiet()
        assert bench.replicas(REVISION_1) == 0
        found = told(bench)
        assert found is not None
        assert found[0] == "Guaranteed"

    run(case)


def test_a_limit_range_that_forbids_it_is_told_and_tried_again_later() -> None:
    async def case(bench: Bench) -> None:
        await active(bench)
        bench.server.fail = lambda call: 403 if call.path.endswith("/resize") else None
        bench.fleet.scale(KEY, 0)
        with pytest.raises(ClusterRefusedError):
            await bench.step()
        await bench.until_quiet()
        assert bench.replicas(REVISION_1) == 0
        assert told(bench) == ("ResizeRefused", "it was to fail; it rests at zero")
        await bench.clock.advance(600.0)
        await bench.until_quiet()
        assert told(bench) is None

    run(case)


def test_a_quota_that_forbids_growing_keeps_nobody_from_being_served() -> None:
    async def case(bench: Bench) -> None:
        await parked(bench)
        bench.server.fail = lambda call: 403 if call.path.endswith("/resize") else None
        bench.fleet.scale(KEY, 2)
        assert DEPLOYMENT in await bench.step()
        assert (bench.replicas(REVISION_1), requests(bench)) == (2, SMALL)
        assert await bench.functions.reconcile(KEY) == 30.0  # then it is tried again
        bench.server.fail = lambda _: None
        await bench.until_quiet()
        assert requests(bench) == REQUESTS

    run(case)


# --- which go first -----------------------------------------------------------------------------------------


def test_those_without_requests_go_first() -> None:
    async def case(bench: Bench) -> None:
        await active(bench, 3)
        for index in range(3):
            item = bench.server.read(resources.PODS, f"default/{REVISION_1}-{index}")
            assert item is not None
            item["status"]["podIP"] = f"10.0.0.{index}"
            bench.server.put(resources.PODS, item)
        bench.active = {"10.0.0.0:8080": 4, "10.0.0.1:8080": 0, "10.0.0.2:8080": 2}
        bench.fleet.scale(KEY, 2)
        assert (await bench.step())[:2] == [
            "PATCH /api/v1/namespaces/default/pods/f-00001-1",
            f"{DEPLOYMENT}/scale",
        ]
        assert [cost(bench, f"default/{REVISION_1}-{index}") for index in range(3)] == [None, "-1", None]

    run(case)


# --- what fails ---------------------------------------------------------------------------------------------


async def _cycle(bench: Bench, to: Callable[[int], Awaitable[None]]) -> None:
    """Active, parked, active, stuck and replaced, parked, and at zero."""
    bench.declare(resting())
    await to(1)
    bench.pods(REVISION_1, 1)
    await to(1)
    await to(0)
    await to(1)
    stick(bench)
    await to(1)
    bench.server.put(resources.PODS, pod_of(REVISION_1, 1))
    await to(1)
    bench.server.remove(resources.PODS, POD)
    await to(1)
    await to(0)
    assert requests(bench, OTHER) == SMALL
    await bench.clock.advance(600.0)
    await to(0)
    bench.server.remove(resources.PODS, OTHER)
    await to(0)


async def _disturbed(disturb: Callable[[Bench], None], *, restart: bool) -> tuple[object, int]:
    async with Bench() as bench:
        disturb(bench)

        async def to(desired: int) -> None:
            first = True
            for _ in range(30):
                try:
                    written = await bench.step()
                    if first or bench.fleet.desired(KEY) != desired:
                        bench.fleet.scale(KEY, desired)
                    elif not written:
                        return
                    first = False
                except ClusterError:
                    if restart:
                        await bench.restart()
            raise AssertionError("it never comes to rest")

        await _cycle(bench, to)
        found = (bench.replicas(REVISION_1), mark(bench), bench.ready(), bench.status()["instances"])
        return found, len(bench.server.writes)


@pytest.mark.parametrize("restart", [False, True], ids=["same", "another-leader"])
def test_it_comes_to_the_same_end_whichever_write_fails(*, restart: bool) -> None:
    async def case() -> None:
        wanted, writes = await _disturbed(lambda _: None, restart=False)
        assert wanted == (0, None, ("True", "AtRest"), 0)
        assert writes > 20
        for number in range(writes):

            def refuse(bench: Bench, number: int = number) -> None:
                bench.server.fail = nth_write_fails(number)

            def lose(bench: Bench, number: int = number) -> None:
                fails: Callable[[Call], int | None] = nth_write_fails(number)
                bench.server.lose = lambda call: fails(call) is not None

            for disturb in (refuse, lose):
                found, _ = await _disturbed(disturb, restart=restart)
                assert found == wanted, f"write {number}, {disturb.__name__}"

    asyncio.run(case())
