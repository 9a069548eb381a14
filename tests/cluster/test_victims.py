"""When there are to be fewer pods, one that works on a request is not among those that go."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cluster import manifests
from tests.cluster.platform import GATEWAY, Platform, is_ready, names, until
from tests.cluster.settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.clusters import Cluster

QUICK = {"window": "1s", "scaleToZeroGracePeriod": "0s", "maxScale": 3}
LONG_SECONDS = 25
ASK = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=90).read().decode())
"""


@pytest.fixture(scope="module")
def slow_image(cluster: Cluster) -> str:
    return cluster.build(ROOT / "tests" / "cluster" / "slow")["slow"]


@pytest.fixture
def caller(cluster: Cluster, namespace: str, greeter_image: str) -> Iterator[str]:
    """A pod to call from."""
    command = ["python3", "-c", "import signal; signal.sigwait([signal.SIGTERM])"]
    spec = manifests.pod_spec(greeter_image, command=command)
    cluster.apply(
        [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "caller"}, "spec": spec}], namespace
    )
    cluster.kubectl("wait", "pod/caller", "--for=condition=Ready", "--timeout=120s", "-n", namespace)
    yield "caller"
    cluster.kubectl("delete", "pod", "caller", "-n", namespace, "--wait=false", "--grace-period=1")


def test_idle_pods_go_first(platform: Platform, namespace: str, slow_image: str, caller: str) -> None:
    platform.declare(namespace, "slow", slow_image, scaling={**QUICK, "minScale": 3})
    until(lambda: sum(map(is_ready, platform.instances(namespace, "slow"))) == 3, "three instances")
    url = f"http://{GATEWAY}/function/slow.{namespace}/?seconds={LONG_SECONDS}"
    command = platform.cluster.command("exec", caller, "-n", namespace, "--", "python3", "-c", ASK, url)

    def at_work() -> bool:
        pods = names(platform.instances(namespace, "slow"))
        return any("waits for" in platform.cluster.kubectl("logs", pod, "-n", namespace) for pod in pods)

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as asking:
        until(at_work, "the request's arrival")
        platform.declare(namespace, "slow", slow_image, scaling={**QUICK, "minScale": 0})
        until(lambda: len(platform.instances(namespace, "slow")) == 1, "one instance")
        assert asking.poll() is None, "it took longer than the request"
        left = names(platform.instances(namespace, "slow"))
        answer, errors = asking.communicate(timeout=120)
    assert asking.returncode == 0, errors
    assert {json.loads(answer)} == left
