"""Pods that rest parked: small in the scheduler's eyes, awake at once, grown again, and gone in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import manifests
from tests.cluster.platform import GATEWAY, Platform, is_ready, until
from tests.cluster.traffic import traffic
from torpor.spec.values import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.traffic import Traffic

CYCLES = 50
CONNECTIONS = 4
MORE = 10 * CONNECTIONS
PARKED = {"window": "1s", "scaleToZeroGracePeriod": "0s", "idle": "parked", "parkedFor": "10m"}
CPU = "200m"


@pytest.fixture
def load(platform: Platform, namespace: str, greeter_image: str) -> Iterator[Traffic]:
    """A little load on the function ``greeter``, which each test declares."""
    path = f"/function/greeter.{namespace}/?name=Ada"
    image = greeter_image
    with traffic(platform.cluster, namespace, image, path, host=GATEWAY, connections=CONNECTIONS) as load:
        yield load


def cpu(pod: dict[str, Any], part: str = "spec") -> float:
    """The CPU that a function's pod asks for; by its ``status``, what it has been given."""
    if part == "spec":
        [container] = pod["spec"]["containers"]
    else:
        [container] = pod["status"].get("containerStatuses") or [{}]
    return float(parse_quantity(container.get("resources", {}).get("requests", {}).get("cpu", "0")))


def sizes(platform: Platform, namespace: str, part: str = "spec") -> list[float]:
    """The CPU of each pod of the greeter."""
    return [cpu(pod, part) for pod in platform.instances(namespace, "greeter")]


def parked(platform: Platform, namespace: str) -> bool:
    """Whether the greeter rests in one pod whose node has taken in that it is small."""
    return sizes(platform, namespace, "status") == [0.001]


def test_cycles_from_active_to_parked_and_back(
    platform: Platform, namespace: str, greeter_image: str, load: Traffic
) -> None:
    resources = {"requests": {"cpu": CPU}}
    platform.serve(namespace, "greeter", greeter_image, scaling=PARKED, resources=resources)
    load.go()
    load.more(MORE)
    load.check()
    until(lambda: parked(platform, namespace), "a parked pod")
    [first] = platform.instances(namespace, "greeter")
    for _ in range(CYCLES):
        load.go()
        until(lambda: sizes(platform, namespace) == [0.2], "its size at work")
        load.more(MORE)
        load.check()
        until(lambda: parked(platform, namespace), "a parked pod")
    outcome = load.check()
    print(f"\n{outcome.sent} requests in {CYCLES} cycles, none lost")
    [last] = platform.instances(namespace, "greeter")
    assert last["metadata"]["uid"] == first["metadata"]["uid"]
    [status] = last["status"]["containerStatuses"]
    assert status["restartCount"] == 0
    assert (first["status"]["qosClass"], last["status"]["qosClass"]) == ("Burstable", "Burstable")
    assert platform.condition(namespace, "greeter")[1] == "Parked"


def test_after_a_while_it_goes(platform: Platform, namespace: str, greeter_image: str, load: Traffic) -> None:
    scaling = {**PARKED, "parkedFor": "3s"}
    platform.serve(namespace, "greeter", greeter_image, scaling=scaling)
    for _ in range(2):
        load.go()
        until(lambda: sum(map(is_ready, platform.instances(namespace, "greeter"))) == 1, "a pod at work")
        load.check()
        until(lambda: not platform.instances(namespace, "greeter"), "no pod after parkedFor")
    assert platform.condition(namespace, "greeter")[1] == "AtRest"


def test_the_scheduler_gives_its_room_away_and_it_waits_to_grow(
    platform: Platform, namespace: str, greeter_image: str, load: Traffic
) -> None:
    """While it is parked another pod takes its room; it serves on small, and grows once there is room."""
    node = platform.cluster.get("nodes")["items"][0]
    name = node["metadata"]["labels"]["kubernetes.io/hostname"]
    amount = f"{round(600 * free_cpu(platform, node))}m"
    resources = {"requests": {"cpu": amount}}
    platform.serve(namespace, "greeter", greeter_image, scaling=PARKED, resources=resources)
    load.go()
    load.more(MORE)
    load.check()
    filler = waiting_pod(greeter_image, name, amount)
    platform.cluster.apply([filler], namespace)
    # It fits in only once the other has been made small.
    until(lambda: parked(platform, namespace), "a parked pod")
    wait(platform, namespace, "--for=condition=PodScheduled")

    load.go()
    until(lambda: "Deferred" in pending(platform, namespace), "that the pod can't grow")
    until(lambda: len(platform.instances(namespace, "greeter")) == 2, "another pod, wherever it may run")
    assert load.check().answered > 0

    load.go()
    platform.cluster.kubectl("delete", "pod", "filler", "-n", namespace, "--grace-period=1")
    wanted = float(parse_quantity(amount))
    until(lambda: sizes(platform, namespace, "status") == [wanted], "one pod of its full size")
    load.check()
    until(lambda: parked(platform, namespace), "a parked pod")


def free_cpu(platform: Platform, node: dict[str, Any]) -> float:
    """The CPU of a node that no pod asks for."""
    asked = 0.0
    for pod in platform.cluster.get("pods", "--all-namespaces")["items"]:
        if (
            pod["spec"].get("nodeName") == node["metadata"]["name"]
            and "deletionTimestamp" not in pod["metadata"]
        ):
            for container in pod["spec"]["containers"]:
                asked += float(parse_quantity(container["resources"].get("requests", {}).get("cpu", "0")))
    return float(parse_quantity(node["status"]["allocatable"]["cpu"])) - asked


def waiting_pod(image: str, node: str, amount: str) -> dict[str, Any]:
    """A pod that does nothing on a node, and asks for much CPU."""
    command = ["python3", "-c", "import signal; signal.sigwait([signal.SIGTERM])"]
    spec = manifests.pod_spec(image, command=command, resources={"requests": {"cpu": amount}})
    spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "filler"}, "spec": spec}


def wait(platform: Platform, namespace: str, what: str) -> None:
    platform.cluster.kubectl("wait", "pod/filler", what, "--timeout=60s", "-n", namespace)


def pending(platform: Platform, namespace: str) -> list[str]:
    """Why pods of the greeter are not resized yet."""
    return [
        condition.get("reason", "")
        for pod in platform.instances(namespace, "greeter")
        for condition in pod["status"].get("conditions", ())
        if condition["type"] == "PodResizePending" and condition["status"] == "True"
    ]
