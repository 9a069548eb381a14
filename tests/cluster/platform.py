"""Torpor itself on the cluster, installed by its chart as a person would."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.cluster import shell
from tests.cluster.settings import ROOT, ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.cluster.clusters import Cluster

NAMESPACE = "torpor"
GATEWAY = "torpor-gateway.torpor"
"""Where pods reach functions."""
_STEP_SECONDS = 0.1
_LIMIT_SECONDS = 120.0


class Platform:
    """What tests ask of it, and do to it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    # --- installing ---------------------------------------------------------------------------------------

    def helm(self, *arguments: str, timeout_seconds: float = 300) -> str:
        """What ``helm ARGUMENTS`` prints."""
        config = ("--kubeconfig", str(self.cluster.kubeconfig))
        return shell.run(self.cluster.tool("helm"), *config, *arguments, timeout_seconds=timeout_seconds)

    def install(self, image: str, *options: str) -> None:
        """Install or upgrade it with the platform's image, and wait until all of it is ready."""
        repository, _, tag = image.rpartition(":")
        chart = str(ROOT / "charts" / "torpor")
        # There is no storage by claim on a node that was started here; what is kept ends with NATS' pod.
        given = (f"image.repository={repository}", f"image.tag={tag}", "nats.storage.persistent=false")
        values = (*given, *options)
        sets = [word for value in values for word in ("--set", value)]
        where = ("--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", "180s")
        self.helm("upgrade", "--install", "torpor", chart, *where, *sets)

    def uninstall(self) -> None:
        """Take it away."""
        self.helm("uninstall", "torpor", "--namespace", NAMESPACE, "--wait", "--ignore-not-found")

    @contextmanager
    def reachable(self) -> Iterator[str]:
        """The URL of the gateway from this machine, while the block is entered."""
        service = self.cluster.get("service", "torpor-gateway", "--namespace", NAMESPACE)
        address = service["spec"]["clusterIP"]
        if _connects(address, 80):
            yield f"http://{address}"
            return
        command = self.cluster.command("port-forward", "service/torpor-gateway", ":80", "-n", NAMESPACE)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                line = process.stdout.readline() if process.stdout is not None else ""
                found = re.search(r"127\.0\.0\.1:(\d+)", line)
                if found is None:
                    raise ClusterError(f"the gateway can't be reached: {line}")
                yield f"http://127.0.0.1:{found[1]}"
            finally:
                process.kill()

    # --- looking ------------------------------------------------------------------------------------------

    def pods(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        """Pods that are not about to end."""
        found = self.cluster.get("pods", "--namespace", namespace, "--selector", selector)["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def instances(self, namespace: str, name: str) -> list[dict[str, Any]]:
        """The pods of a function."""
        return self.pods(namespace, f"torpor.dev/function={name}")

    def parts(self, component: str) -> list[dict[str, Any]]:
        """The pods of one part of the platform."""
        return self.pods(
            NAMESPACE, f"app.kubernetes.io/part-of=torpor,app.kubernetes.io/component={component}"
        )

    def triggers(self, pod: str) -> dict[str, Any]:
        """What an events pod says of the triggers that it knows, by their keys."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8081/proxy/state"
        states: dict[str, Any] = json.loads(self.cluster.kubectl("get", "--raw", path))["triggers"]
        return states

    def states(self, trigger: str) -> list[dict[str, Any]]:
        """What every events pod says of a trigger; empty until all have heard of it, and of its broker."""
        pods = [pod["metadata"]["name"] for pod in self.parts("events")]
        found = [known[trigger] for pod in pods if trigger in (known := self.triggers(pod))]
        return found if len(found) == len(pods) else []

    def address(self, service: str) -> str:
        """The address of one of the platform's services, within the cluster."""
        return str(self.cluster.get("service", service, "--namespace", NAMESPACE)["spec"]["clusterIP"])

    def leader(self, component: str) -> str:
        """The pod that leads those of a part; empty while none does."""
        lease = self.cluster.get("lease", f"torpor-{component}", "--namespace", NAMESPACE)
        return str(lease["spec"].get("holderIdentity") or "")

    def condition(self, namespace: str, name: str, kind: str = "Ready") -> tuple[str, str, str]:
        """Status, reason and message of a function's condition."""
        function = self.cluster.get("function", name, "--namespace", namespace)
        for one in function.get("status", {}).get("conditions", ()):
            if one["type"] == kind:
                return one["status"], one["reason"], one["message"]
        return "", "", ""

    def status(self, namespace: str, name: str) -> dict[str, Any]:
        """What a function says of itself."""
        found: dict[str, Any] = self.cluster.get("function", name, "--namespace", namespace).get("status", {})
        return found

    def answers(self, path: str) -> bool:
        """Whether the API server gets an answer of success from ``path``, such as that of a proxied pod."""
        try:
            self.cluster.kubectl("get", "--raw", path)
        except ClusterError:
            return False
        return True

    # --- doing --------------------------------------------------------------------------------------------

    def declare(self, namespace: str, name: str, image: str, **spec: Any) -> None:
        """Apply a function."""
        head = {"apiVersion": "torpor.dev/v1alpha1", "kind": "Function", "metadata": {"name": name}}
        self.cluster.apply([{**head, "spec": {"image": image, **spec}}], namespace)

    def serve(self, namespace: str, name: str, image: str, path: str = "", **spec: Any) -> None:
        """Apply a function, and wait until every gateway gets an answer from ``path`` of it."""
        self.declare(namespace, name, image, **spec)
        for pod in self.parts("gateway"):
            gateway = pod["metadata"]["name"]
            proxy = f"/api/v1/namespaces/{NAMESPACE}/pods/{gateway}:8080/proxy"
            until(
                lambda: self.answers(f"{proxy}/function/{name}.{namespace}/{path}"),  # noqa: B023
                f"an answer by {gateway}",
            )

    def kill_pod(self, name: str) -> None:
        """As when its node is gone: nothing is ended in order, and the API server forgets the pod."""
        self.cluster.kubectl("delete", "pod", name, "-n", NAMESPACE, "--force", "--grace-period=0")

    def kill_leader(self, component: str) -> None:
        """Kill the pod that leads a part."""
        self.kill_pod(self.leader(component))

    def delete(self, pod: dict[str, Any]) -> None:
        """Have a pod end in order; returns at once."""
        metadata = pod["metadata"]
        self.cluster.kubectl("delete", "pod", metadata["name"], "-n", metadata["namespace"], "--wait=false")

    def evict(self, pod: dict[str, Any]) -> None:
        """What ``kubectl drain`` does to each pod of a node: ask until a disruption budget allows it."""
        until(lambda: self._evicted(pod), f"the eviction of {pod['metadata']['name']}")

    def _evicted(self, pod: dict[str, Any]) -> bool:
        metadata = {name: pod["metadata"][name] for name in ("name", "namespace")}
        document = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/eviction"
        try:
            self.cluster.kubectl("create", "--raw", path, "--filename=-", text=json.dumps(document))
        except ClusterError as error:
            if "TooManyRequests" in str(error):
                return False
            raise
        return True


def _connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether the kubelet finds a pod ready."""
    conditions = pod.get("status", {}).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def until(holds: Callable[[], bool], what: str, limit_seconds: float = _LIMIT_SECONDS) -> None:
    """Return once ``holds`` does; fails with ``what`` was waited for."""
    deadline = time.monotonic() + limit_seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {limit_seconds:g} s: {what}"
        time.sleep(_STEP_SECONDS)


def names(pods: Sequence[dict[str, Any]]) -> set[str]:
    """What pods are called."""
    return {pod["metadata"]["name"] for pod in pods}
