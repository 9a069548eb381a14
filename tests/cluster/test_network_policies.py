"""Who reaches whom, by the NetworkPolicies that the platform makes: tried with real packets."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import manifests
from tests.cluster.enforcer import enforcing
from torpor.controller import names
from torpor.controller.manifests import Platform, network_policy
from torpor.spec.models import Function, FunctionSpec, Metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.clusters import Cluster

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
FUNCTION = {names.FUNCTION: "f", names.MANAGED: "torpor"}


def part(component: str) -> dict[str, str]:
    return {names.PART_OF: "torpor", names.COMPONENT: component}


@pytest.fixture(scope="module")
def enforced(cluster: Cluster) -> Iterator[Cluster]:
    with enforcing(cluster):
        yield cluster


@pytest.fixture
def platform(cluster: Cluster) -> Iterator[str]:
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
    enforced: Cluster, namespace: str, platform: str, world: World
) -> None:
    function = Function(metadata=Metadata(name="f", namespace=namespace), spec=FunctionSpec(image="f"))
    owner = {"apiVersion": "torpor.dev/v1alpha1", "kind": "Function", "metadata": {"name": "f", "uid": "u"}}
    policy = network_policy(function, owner, Platform(namespace=platform, url=""))
    world.pod("f", namespace, FUNCTION, SERVE)
    world.pod("other", namespace, {names.FUNCTION: "g", names.MANAGED: "torpor"}, SERVE)
    for component in ("gateway", "events", "api"):
        world.pod(component, platform, part(component))
    world.pod("bare", platform, {})
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
