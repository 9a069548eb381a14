"""A function's image on a real Kubernetes: locked in, reached, woken, and ended without a lost request."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import load, manifests
from tests.cluster.settings import ROOT

if TYPE_CHECKING:
    from tests.cluster.clusters import Cluster

CONNECTIONS = 16
LAST_REQUESTS = 50

CONFINED = """
import json, os, pathlib
def refused(path):
    try:
        open(path, "w")
    except OSError as error:
        return error.strerror
status = dict(line.split(":", 1) for line in open("/proc/1/status"))
print(json.dumps({
    "user": os.getuid(), "group": os.getgid(), "code": refused("/app/main.py"), "root": refused("/tmp/x"),
    "token": pathlib.Path("/var/run/secrets/kubernetes.io").exists(), "seccomp": status["Seccomp"].strip(),
    "new privileges": status["NoNewPrivs"].strip(), "capabilities": status["CapEff"].strip(),
    "rss MiB": round(int(status["VmRSS"].split()[0]) / 1024, 1),
    "code compiled": any(pathlib.Path("/app/__pycache__").iterdir()),
}))
"""
ASK = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
"""


@pytest.fixture
def greeter(cluster: Cluster, namespace: str, greeter_image: str) -> str:
    """The greeter, with one ready pod; returns the namespace."""
    cluster.apply(manifests.function("greeter", greeter_image), namespace)
    rollout(cluster, namespace)
    return namespace


def rollout(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("rollout", "status", "deployment/greeter", "--timeout=120s", "--namespace", namespace)


def in_pod(cluster: Cluster, namespace: str, script: str, *arguments: str) -> str:
    """What the Python ``script`` prints in the greeter's pod."""
    command = ("--namespace", namespace, "deployment/greeter", "--", "python3", "-c", script, *arguments)
    return cluster.kubectl("exec", *command)


def pods(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    """The greeter's pods that are not on their way out."""
    found: list[dict[str, Any]] = cluster.get("pods", "--namespace", namespace, "--selector=app=greeter")[
        "items"
    ]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def test_it_is_locked_in(cluster: Cluster, greeter: str) -> None:
    found = json.loads(in_pod(cluster, greeter, CONFINED))
    print(f"\nmemory of the greeter at rest: {found.pop('rss MiB')} MiB")
    assert found == {
        "user": 65532,
        "group": 65532,
        "code": "Read-only file system",
        "root": "Read-only file system",
        "token": False,
        "seccomp": "2",  # a filter
        "new privileges": "1",
        "capabilities": "0000000000000000",
        "code compiled": True,
    }


def test_it_answers_by_its_service(cluster: Cluster, greeter: str) -> None:
    service = cluster.get("service", "greeter", "--namespace", greeter)
    for host in (service["spec"]["clusterIP"], f"greeter.{greeter}.svc.cluster.local"):
        answer = in_pod(cluster, greeter, ASK, f"http://{host}/?name=Ada&language=fr")
        assert json.loads(answer) == {"greeting": "Bonjour, Ada!", "language": "fr"}


def test_it_wakes(cluster: Cluster, greeter: str) -> None:
    """From no pod to a ready one; what is printed is bound by the kubelet's probes, a second apart."""
    where = ("--namespace", greeter)
    cluster.kubectl("scale", "deployment/greeter", "--replicas=0", *where)
    cluster.kubectl("wait", "--for=delete", "pod", "--selector=app=greeter", "--timeout=60s", *where)
    began = time.monotonic()
    cluster.kubectl("scale", "deployment/greeter", "--replicas=1", *where)
    rollout(cluster, greeter)
    print(f"\nfrom 'kubectl scale' to a ready pod: {time.monotonic() - began:.2f} s")
    metrics = in_pod(cluster, greeter, ASK, "http://127.0.0.1:8080/metrics")
    for line in metrics.splitlines():
        if "start_seconds" in line and not line.startswith("#"):
            print(f"  {line}")


def test_each_function_of_a_folder_has_its_image(cluster: Cluster, namespace: str) -> None:
    images = cluster.build(ROOT / "functions" / "images")
    script = "import os, PIL; print(os.environ['TORPOR_HANDLER'])"
    where = ("--namespace", namespace)
    for name, image in images.items():
        pod = manifests.client(image, script)
        pod["metadata"]["name"] = name
        cluster.apply([pod], namespace)
    for name in images:
        cluster.kubectl(
            "wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", "--timeout=90s", *where
        )
    handlers = {name: cluster.kubectl("logs", name, *where).strip() for name in images}
    assert handlers == {"split": "main:split", "resize": "main:resize", "stitch": "main:stitch"}


def test_a_pod_ends_under_load_without_a_lost_request(
    cluster: Cluster, greeter: str, greeter_image: str
) -> None:
    where = ("--namespace", greeter)
    cluster.kubectl("scale", "deployment/greeter", "--replicas=2", *where)
    rollout(cluster, greeter)
    first, second = pods(cluster, greeter)
    script = Path(load.__file__).read_text("utf-8")
    addresses = (first["status"]["podIP"], second["status"]["podIP"])
    client = manifests.client(greeter_image, script, str(CONNECTIONS), str(LAST_REQUESTS), *addresses)
    cluster.apply([client], greeter)
    await_log(cluster, greeter, "warm")
    began = time.monotonic()
    cluster.kubectl("delete", "pod", first["metadata"]["name"], "--timeout=60s", *where)
    took = time.monotonic() - began
    cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/client", "--timeout=60s", *where)
    counts = json.loads(cluster.kubectl("logs", "client", *where).splitlines()[-1])
    print(f"\n{counts['sent']} requests, {counts['lost']} lost; the pod was gone after {took:.1f} s")
    assert counts["lost"] == 0
    assert counts["answered"] == counts["sent"]
    assert counts["moved"] == CONNECTIONS
    assert counts["sent"] > 500 + CONNECTIONS * LAST_REQUESTS


def await_log(cluster: Cluster, namespace: str, text: str, limit_seconds: float = 60) -> None:
    """Return when the client has printed ``text``."""
    where = ("--namespace", namespace)
    cluster.kubectl("wait", "--for=condition=Ready", "pod/client", f"--timeout={limit_seconds:.0f}s", *where)
    end = time.monotonic() + limit_seconds
    while text not in (said := cluster.kubectl("logs", "client", *where)):
        assert time.monotonic() < end, said
        time.sleep(0.05)
