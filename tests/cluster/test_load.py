"""Constant load on a function while all that can happen to it does: no request is lost.

Each test goes on sending, with 32 requests under way at any time, and fails on the first that gets no answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.killer import kill
from tests.cluster.platform import GATEWAY, NAMESPACE, Platform, is_ready, names, until
from tests.cluster.traffic import CONCURRENCY, Traffic, traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

CYCLES = 20
FAST = {
    "window": "2s",
    "scaleDownDelay": "0s",
    "scaleToZeroGracePeriod": "0s",
    "idle": "zero",
    "maxScale": 4,
    "target": 2,  # the load itself is slow: few of the 32 are with an instance at any moment
}
STEADY = {**FAST, "minScale": 2}
FIXED = {**FAST, "minScale": 3, "maxScale": 3}
"""For who waits for one instance to start anew: one that isn't ready is the first to go with fewer wanted."""
MORE = 10 * CONCURRENCY
"""How many requests have to go well before the load is taken off: by the clock they could be few."""


@pytest.fixture
def load(platform: Platform, namespace: str, greeter_image: str) -> Iterator[Traffic]:
    """Load on the function ``greeter``, which each test declares."""
    path = f"/function/greeter.{namespace}/?name=Ada"
    with traffic(platform.cluster, namespace, greeter_image, path, host=GATEWAY) as load:
        yield load


def declare(platform: Platform, namespace: str, image: str, **spec: Any) -> None:
    """Declare the function anew, and wait until every gateway knows it."""
    platform.serve(namespace, "greeter", image, "?name=Ada", **spec)


def warm(platform: Platform, load: Traffic, namespace: str) -> None:
    """Have load on the function, and all the instances that it needs."""
    load.go()
    until(lambda: sum(map(is_ready, platform.instances(namespace, "greeter"))) >= 3, "instances under load")


def test_cycles_from_zero_to_many_and_back(
    platform: Platform, namespace: str, greeter_image: str, load: Traffic
) -> None:
    declare(platform, namespace, greeter_image, scaling=FAST)
    for _ in range(CYCLES):
        load.go()
        until(lambda: len(platform.instances(namespace, "greeter")) > 1, "many instances")
        load.more(MORE)
        load.check()
        until(lambda: not platform.instances(namespace, "greeter"), "no instance at rest")
    outcome = load.check()
    print(f"\n{outcome.sent} requests in {CYCLES} cycles, the slowest took {outcome.slowest:.1f} s")
    assert outcome.answered >= CYCLES * MORE


def test_rollouts(platform: Platform, namespace: str, greeter_image: str, load: Traffic) -> None:
    """A new revision, one that can't become ready, and back to the first."""
    declare(platform, namespace, greeter_image, scaling=FAST)
    warm(platform, load, namespace)

    newer = [{"name": "GREETING", "value": "new"}]
    platform.declare(namespace, "greeter", greeter_image, scaling=FAST, env=newer)
    until(lambda: platform.status(namespace, "greeter").get("revision") == "greeter-00002", "the new one")
    until(
        lambda: all(pod["metadata"]["labels"]["torpor.dev/revision"] == "greeter-00002"
                    for pod in platform.instances(namespace, "greeter")),
        "the old one's end",
    )  # fmt: skip

    platform.declare(namespace, "greeter", "localhost/there-is-none:1", scaling=FAST, env=newer)
    until(lambda: platform.condition(namespace, "greeter")[0] == "False", "a condition that says why")
    status, reason, message = platform.condition(namespace, "greeter")
    assert (status, reason) == ("False", "ImageNotPulled")
    assert "localhost/there-is-none:1" in message
    assert "greeter-00002 serves on" in message
    assert platform.condition(namespace, "greeter", "Serving")[0] == "True"
    load.more(MORE)

    platform.declare(namespace, "greeter", greeter_image, scaling=FAST)
    until(lambda: platform.status(namespace, "greeter").get("revision") == "greeter-00001", "the first again")
    until(lambda: platform.condition(namespace, "greeter")[0] == "True", "all well again")
    load.more(MORE)
    load.check()


def test_instances_go(platform: Platform, namespace: str, greeter_image: str, load: Traffic) -> None:
    """One is deleted, and another evicted."""
    declare(platform, namespace, greeter_image, scaling=STEADY)
    warm(platform, load, namespace)
    first, second, *_ = platform.instances(namespace, "greeter")
    for pod, end in ((first, platform.delete), (second, platform.evict)):
        end(pod)
        name = pod["metadata"]["name"]
        until(lambda: name not in names(platform.instances(namespace, "greeter")), "an instance's end")  # noqa: B023
        until(lambda: sum(map(is_ready, platform.instances(namespace, "greeter"))) >= 2, "another one")
    load.more(MORE)
    load.check()


def restarts(platform: Platform, namespace: str, name: str) -> int:
    """How often the container of an instance was started again."""
    pods = platform.instances(namespace, "greeter")
    return sum(
        container["restartCount"]
        for pod in pods
        if pod["metadata"]["name"] == name
        for container in pod["status"]["containerStatuses"]
    )


def test_what_a_kill_costs(platform: Platform, namespace: str, greeter_image: str, load: Traffic) -> None:
    """An instance that is killed takes with it what it was at, and nothing that comes after."""
    declare(platform, namespace, greeter_image, scaling=FIXED)
    warm(platform, load, namespace)
    pod = platform.instances(namespace, "greeter")[0]
    name = pod["metadata"]["name"]
    kill(platform, pod, "torpor")
    until(lambda: restarts(platform, namespace, name) > 0, "its start anew")
    load.more(MORE)
    outcome = load.pause()
    print(f"\n{outcome.lost} of {outcome.sent} requests were lost with an instance that was killed")
    assert outcome.lost <= CONCURRENCY
    load.go()
    load.more(MORE)
    assert load.pause().lost == outcome.lost


def test_gateways_go(platform: Platform, namespace: str, greeter_image: str, load: Traffic) -> None:
    """One is deleted, and the other evicted."""
    declare(platform, namespace, greeter_image, scaling=FAST)
    warm(platform, load, namespace)
    first, second = before = platform.parts("gateway")
    for pod, end in ((first, platform.delete), (second, platform.evict)):
        end(pod)
        gone = pod["metadata"]["name"]
        until(lambda: sum(map(is_ready, platform.parts("gateway"))) == 2, "two gateways again")
        until(lambda: not _is_there(platform, gone), "its end")  # noqa: B023
    assert not names(before) & names(platform.parts("gateway"))
    load.check()


def test_the_controllers_leader_dies(
    platform: Platform, namespace: str, greeter_image: str, load: Traffic
) -> None:
    """At rest and under load: the gateways wake functions, and another leader scales them on."""
    declare(platform, namespace, greeter_image, scaling=FAST)
    before = platform.leader("controller")
    platform.kill_pod(before)
    load.go()
    until(lambda: platform.leader("controller") not in ("", before), "another leader")
    until(lambda: sum(map(is_ready, platform.instances(namespace, "greeter"))) >= 3, "scaling goes on")
    load.check()
    until(lambda: not platform.instances(namespace, "greeter"), "no instance at rest")


def _is_there(platform: Platform, name: str) -> bool:
    pods = platform.cluster.get("pods", "--namespace", NAMESPACE)["items"]
    return name in names(pods)
