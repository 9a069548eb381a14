"""Hundreds of functions at rest: what the platform then takes of memory, and asks of the API server."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import manifests
from tests.cluster.platform import GATEWAY, NAMESPACE, until
from torpor.controller.status import condition
from torpor.providers.kubernetes import resources
from torpor.providers.kubernetes.connection import connect
from torpor.providers.kubernetes.kube import closing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.clusters import Cluster
    from tests.cluster.platform import Platform

FUNCTIONS = 300
MOST_MEMORY_MIB = 400
MOST_REQUESTS_A_MINUTE = 60
REST_SECONDS = 60
ROUTABLE_SECONDS = 1.0
NEW = 5
PARTS = ("controller", "gateway", "events")
SCHEMA = "torpor-test-many"
MEMORY = """
import pathlib
def resident(pid):
    for line in (pid / "smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    return 0
print(sum(resident(pid) for pid in pathlib.Path("/proc").glob("[0-9]*") if (pid / "exe").exists()))
"""
ROUTED = """
import http.client, sys, time
host, *paths = sys.argv[1:]
while paths:
    for path in list(paths):
        connection = http.client.HTTPConnection(host, timeout=5)
        connection.request("GET", path)
        if connection.getresponse().status != 404:
            print(path.rpartition("/")[2], time.time(), flush=True)
            paths.remove(path)
        connection.close()
    time.sleep(0.01)
"""


def function(number: int, image: str) -> dict[str, Any]:
    name = f"f{number:03d}"
    return {
        "apiVersion": "torpor.dev/v1alpha1",
        "kind": "Function",
        "metadata": {"name": name},
        "spec": {"image": image, "http": {"paths": [f"/many/{name}"], "methods": ["POST"]}},
    }


@pytest.fixture
def counted(platform: Platform) -> Iterator[Platform]:
    """The platform, whose requests the API server counts apart: by a flow schema for its accounts."""
    accounts = [
        {"kind": "ServiceAccount", "serviceAccount": {"name": f"torpor-{part}", "namespace": NAMESPACE}}
        for part in (*PARTS, "api")
    ]
    every: dict[str, Any] = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}
    everything = {
        "subjects": accounts,
        "resourceRules": [{**every, "clusterScope": True}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }
    schema = {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": {"name": SCHEMA},
        "spec": {
            "priorityLevelConfiguration": {"name": "workload-high"},
            "matchingPrecedence": 100,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [everything],
        },
    }
    platform.cluster.kubectl("apply", "--server-side", "--filename=-", text=json.dumps(schema))
    yield platform
    platform.cluster.kubectl("delete", "flowschema", SCHEMA)


def requests(cluster: Cluster) -> int:
    """How many requests of the platform the API server has taken; a watch is one."""
    metrics = cluster.kubectl("get", "--raw", "/metrics")
    pattern = rf'^apiserver_flowcontrol_dispatched_requests_total{{[^}}]*flow_schema="{SCHEMA}".*}} (\S+)$'
    return round(sum(float(number) for number in re.findall(pattern, metrics, re.MULTILINE)))


def memory_mib(platform: Platform, part: str) -> dict[str, float]:
    """Resident memory of all processes of each pod of a part."""
    found = {}
    for pod in platform.parts(part):
        name = pod["metadata"]["name"]
        said = platform.cluster.kubectl(
            "exec", name, f"--namespace={NAMESPACE}", f"--container={part}", "--", "python3", "-c", MEMORY
        )
        found[name] = int(said) / 1024
    return found


def ready(cluster: Cluster, namespace: str) -> int:
    """How many functions say that they rest, ready to be called."""
    path = r"jsonpath={range .items[*]}{.status.conditions[?(@.type=='Ready')].reason}{'\n'}{end}"
    return cluster.kubectl("get", "functions", "--namespace", namespace, f"--output={path}").count("AtRest")


def test_at_rest_they_take_little(counted: Platform, namespace: str, greeter_image: str) -> None:
    cluster = counted.cluster
    first, began = requests(cluster), time.monotonic()
    cluster.apply([function(number, greeter_image) for number in range(FUNCTIONS)], namespace)
    until(lambda: ready(cluster, namespace) == FUNCTIONS, "all functions are ready", 300)
    took = time.monotonic() - began
    print(f"\n{FUNCTIONS} functions were ready after {took:.1f} s and {requests(cluster) - first} requests")

    last = -1

    def quiet() -> bool:
        nonlocal last
        before, last = last, requests(cluster)
        time.sleep(2)
        return last - before < 5

    until(quiet, "the platform comes to rest")
    before, began = requests(cluster), time.monotonic()
    time.sleep(REST_SECONDS)
    a_minute = (requests(cluster) - before) / (time.monotonic() - began) * 60
    used = {part: memory_mib(counted, part) for part in PARTS}
    for part, pods in used.items():
        print(f"{part}: " + ", ".join(f"{mib:.0f} MiB" for mib in pods.values()))
    together = sum(max(pods.values()) for pods in used.values())
    print(f"one of each: {together:.0f} MiB; requests a minute at rest, of all pods: {a_minute:.1f}")
    assert together < MOST_MEMORY_MIB
    assert a_minute < MOST_REQUESTS_A_MINUTE

    waited = asyncio.run(seconds_to_route(counted, namespace, greeter_image))
    print("a new one is routed, seconds after it is ready: " + ", ".join(f"{one:.2f}" for one in waited))
    assert statistics.median(waited) < ROUTABLE_SECONDS


async def seconds_to_route(platform: Platform, namespace: str, image: str) -> list[float]:
    """How long after each of some new functions says that it is ready a gateway leads to it.

    They take POST alone: a GET that is led to one gets 405 at once, and wakes nothing. A pod asks; its clock
    is this machine's where the cluster is here.
    """
    cluster = platform.cluster
    items = [function(number, image) for number in range(FUNCTIONS, FUNCTIONS + NEW)]
    paths = [item["spec"]["http"]["paths"][0] for item in items]
    cluster.apply([manifests.client(image, ROUTED, GATEWAY, *paths)], namespace)
    where = ("--namespace", namespace)
    cluster.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=60s", *where)
    ready_at = {}
    async with closing(await connect(kubeconfig=str(cluster.kubeconfig))) as kube:
        for item in items:
            name = item["metadata"]["name"]
            item["metadata"]["namespace"] = namespace
            made = await kube.create(resources.FUNCTIONS, item)
            version = made["metadata"]["resourceVersion"]
            async for event in kube.watch(resources.FUNCTIONS, namespace, name=name, since=version):
                one = condition(event.item.get("status", {}), "Ready")
                if one is not None and one["status"] == "True":
                    ready_at[name] = time.time()
                    break
    cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/client", "--timeout=60s", *where)
    routed = dict(line.split() for line in cluster.kubectl("logs", "client", *where).splitlines())
    return [float(routed[name]) - at for name, at in ready_at.items()]
