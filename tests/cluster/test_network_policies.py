"""Who reaches whom, by the NetworkPolicies that the platform makes: tried with real packets."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import manifests
from tests.cluster.enforcer import enforcing
from tests.cluster.platform import GATEWAY, NAMESPACE
from torpor.controller import names
from torpor.controller.manifests import Platform as Settings
from torpor.controller.manifests import network_policy
from torpor.spec.models import Function, FunctionSpec, Metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.clusters import Cluster
    from tests.cluster.platform import Platform

SERVE = """
import http.server as h
h.ThreadingHTTPServer(("", 8080), h.BaseHTTPRequestHandler).serve_forever()
"""
IDLE = "import signal; signal.pause()"
REACH = """
import socket, sys
for address in sys.argv[1:]:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=1.5).close()
        print(address, "reached")
    except OSError as error:
        print(address, "not", type(error).__name__)
"""
ASK = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=60).read().decode())
"""
# Which ports of which parts are open to a part, beside those that are open to everybody.
OPEN = ("gateway:8080", "api:8080")
PORTS = (
    *OPEN,
    "gateway:8081",
    "gateway:8082",
    "events:8080",
    "events:8081",
    "api:8082",
    "controller:8081",
    "nats:4222",
)
REACHES = {
    "controller": {"gateway:8081", "events:8081"},
    "gateway": {"events:8080"},
    "events": {"gateway:8082", "nats:4222"},
    "api": {"controller:8081", "gateway:8081", "events:8081", "nats:4222"},
    "function": {"api:8082"},
    "stranger": set(),
}
FUNCTION = {names.FUNCTION: "f", names.MANAGED: "torpor"}


def part(component: str) -> dict[str, str]:
    return {names.PART_OF: "torpor", names.COMPONENT: component}


@pytest.fixture(scope="module")
def enforced(cluster: Cluster) -> Iterator[Cluster]:
    with enforcing(cluster):
        yield cluster


@pytest.fixture
def elsewhere(cluster: Cluster) -> Iterator[str]:
    """A namespace that stands for the platform's."""
    name = f"test-platform-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


class World:
    """Pods that try to reach one another."""

    def __init__(self, cluster: Cluster, image: str) -> None:
        self._cluster = cluster
        self._image = image
        self._pods: dict[str, tuple[str, str]] = {}

    def pod(self, name: str, namespace: str, labels: dict[str, str], script: str = IDLE) -> None:
        pod = manifests.client(self._image, script)
        pod["metadata"] = {"name": name, "labels": labels}
        pod["spec"]["terminationGracePeriodSeconds"] = 0
        self._cluster.apply([pod], namespace)
        self._pods[name] = (namespace, "")

    def settle(self) -> None:
        """Return when all pods run."""
        for name, (namespace, _) in self._pods.items():
            where = ("--namespace", namespace)
            self._cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s", *where)
            address = self._cluster.get("pod", name, *where)["status"]["podIP"]
            self._pods[name] = (namespace, address)

    def reaches(self, source: str, *targets: str, port: int = 8080) -> dict[str, bool]:
        """Which of ``targets`` (pods) ``source`` can open a connection to."""
        namespace, _ = self._pods[source]
        addresses = [f"{self._pods[target][1]}:{port}" for target in targets]
        command = ("exec", source, "--namespace", namespace, "--", "python3", "-c", REACH, *addresses)
        lines = self._cluster.kubectl(*command).splitlines()
        return {target: line.endswith("reached") for target, line in zip(targets, lines, strict=True)}


@pytest.fixture
def world(enforced: Cluster, greeter_image: str) -> World:
    return World(enforced, greeter_image)


def without_owner(item: dict[str, Any]) -> dict[str, Any]:
    """``item`` for a test without its Function: an owner that is not there takes it away."""
    return {**item, "metadata": {**item["metadata"], "ownerReferences": []}}


def test_only_gateway_and_events_reach_a_function(
    enforced: Cluster, namespace: str, elsewhere: str, world: World
) -> None:
    function = Function(metadata=Metadata(name="f", namespace=namespace), spec=FunctionSpec(image="f"))
    owner = {"apiVersion": "torpor.dev/v1alpha1", "kind": "Function", "metadata": {"name": "f", "uid": "u"}}
    policy = network_policy(function, owner, Settings(namespace=elsewhere, url=""))
    world.pod("f", namespace, FUNCTION, SERVE)
    world.pod("other", namespace, {names.FUNCTION: "g", names.MANAGED: "torpor"}, SERVE)
    for component in ("gateway", "events", "api"):
        world.pod(component, elsewhere, part(component))
    world.pod("bare", elsewhere, {})
    world.pod("pretender", namespace, part("gateway"))
    world.settle()
    everyone = ("gateway", "events", "api", "bare", "pretender", "other")
    before = {one: world.reaches(one, "f", "other") for one in everyone}
    assert all(reached for found in before.values() for reached in found.values()), before
    enforced.apply([without_owner(policy)], namespace)
    after = {one: world.reaches(one, "f", "other") for one in everyone}
    print(json.dumps(after, indent=1))
    assert {one: found["f"] for one, found in after.items()} == {
        "gateway": True,
        "events": True,
        "api": False,
        "bare": False,
        "pretender": False,
        "other": False,
    }
    # Another function's pods are its own policy's matter.
    assert all(found["other"] for found in after.values())
    # A function itself may go anywhere: what goes out of it is not the platform's to say.
    assert world.reaches("f", "other") == {"other": True}


def test_each_part_of_the_platform_is_reached_by_those_who_need_it(
    platform: Platform, enforced: Cluster, namespace: str, world: World
) -> None:
    world.pod("function", namespace, FUNCTION)
    world.pod("stranger", namespace, {})
    world.settle()
    pods = {one: platform.parts(one) for one in ("controller", "gateway", "events", "api", "nats")}
    found = {}
    for source, more in REACHES.items():
        own = pods[source][0]["metadata"]["name"] if source in pods else source
        where = (
            (f"--namespace={NAMESPACE}", f"--container={source}")
            if source in pods
            else ("--namespace", namespace)
        )
        addresses = {}
        for port in PORTS:
            component, _, number = port.partition(":")
            target = pods[component][-1]
            if target["metadata"]["name"] != own:
                addresses[f"{target['status']['podIP']}:{number}"] = port
        lines = enforced.kubectl("exec", own, *where, "--", "python3", "-c", REACH, *addresses).splitlines()
        found[source] = {
            port for line, port in zip(lines, addresses.values(), strict=True) if line.endswith("reached")
        }
        assert found[source] == (more | set(OPEN)) & set(addresses.values()), source


def test_a_function_is_woken_and_called_through_all_of_them(
    platform: Platform, enforced: Cluster, namespace: str, world: World, greeter_image: str
) -> None:
    platform.declare(namespace, "greeter", greeter_image)
    enforced.kubectl(
        "wait", "function/greeter", "--for=condition=Ready", "--timeout=60s", "--namespace", namespace
    )
    world.pod("stranger", namespace, {})
    world.settle()
    url = f"http://{GATEWAY}/function/greeter.{namespace}/?name=Ada"
    where = ("--namespace", namespace)
    said = enforced.kubectl("exec", "stranger", *where, "--", "python3", "-c", ASK, url)
    assert json.loads(said)["greeting"] == "Hello, Ada!"
    [pod] = platform.instances(namespace, "greeter")
    assert stranger_reaches(enforced, namespace, f"{pod['status']['podIP']}:8080") is False


def stranger_reaches(cluster: Cluster, namespace: str, address: str) -> bool:
    """Whether the stranger opens a connection to ``address``."""
    command = ("exec", "stranger", "--namespace", namespace, "--", "python3", "-c", REACH, address)
    return cluster.kubectl(*command).strip().endswith("reached")
