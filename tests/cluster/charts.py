"""The charts as Helm renders them, without a cluster."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from tests.cluster import shell
from tests.cluster.clusters import tool
from tests.cluster.settings import ROOT, ClusterError, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHARTS = ROOT / "charts"
TORPOR, FUNCTIONS = CHARTS / "torpor", CHARTS / "functions"
NAMESPACE = "torpor"
KUBERNETES = ("--kube-version", "1.37.0")
"""Helm alone supposes a Kubernetes of the time when it was built."""

Object = dict[str, Any]


@functools.cache
def _helm() -> Path:
    return tool(Settings.from_environment(), "helm")


def helm(*arguments: str | Path) -> str:
    """What ``helm ARGUMENTS`` prints, of no cluster; raises :class:`ClusterError`."""
    return shell.run(_helm(), *arguments, environment={"KUBECONFIG": "/dev/null"})


@functools.cache
def _rendered(chart: Path, values: str) -> str:
    where = ("--namespace", NAMESPACE)
    return shell.run(
        *(_helm(), "template", "release", chart, *where, *KUBERNETES, "--values=-"),
        text=values,
        environment={"KUBECONFIG": "/dev/null"},
    )


def render(chart: Path, values: Object) -> list[Object]:
    """The objects that ``chart`` makes of ``values``, in Helm's order."""
    return [item for item in YAML(typ="safe").load_all(_rendered(chart, json.dumps(values))) if item]


def refusal(chart: Path, values: Object) -> str:
    """What Helm says against ``values``; fails when it takes them."""
    try:
        _rendered(chart, json.dumps(values))
    except ClusterError as error:
        return str(error)
    raise AssertionError(f"{values} are taken")


class Rendered:
    """The platform's chart with ``values``; its definitions are left out unless they are asked for."""

    def __init__(self, values: Object | None = None) -> None:
        self.objects = render(TORPOR, {"crds": {"install": False}} | (values or {}))

    def __call__(self, kind: str, name: str) -> Object:
        """The object of this kind and name."""
        [found] = [one for one in self.of(kind) if one["metadata"]["name"] == name]
        return found

    def has(self, kind: str, name: str) -> bool:
        """Whether there is such an object."""
        return any(one["metadata"]["name"] == name for one in self.of(kind))

    def of(self, kind: str) -> list[Object]:
        """Every object of this kind."""
        return [one for one in self.objects if one["kind"] == kind]

    def pods(self) -> Iterator[tuple[str, Object, Object]]:
        """Every workload's component, and the metadata and the spec of its pods."""
        for one in (*self.of("Deployment"), *self.of("StatefulSet")):
            template = one["spec"]["template"]
            component = one["metadata"]["labels"]["app.kubernetes.io/component"]
            yield component, template["metadata"], template["spec"]

    def pod(self, component: str) -> Object:
        """The spec of a part's pods."""
        [found] = [spec for name, _, spec in self.pods() if name == component]
        return found

    def environment(self, component: str) -> dict[str, Any]:
        """The variables of a part's container: a value, or where it is from."""
        [container] = self.pod(component)["containers"]
        return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}

    def peers(self, component: str) -> dict[str, list[Object] | None]:
        """Who reaches which port of a part; ``None`` is everybody."""
        ingress = self("NetworkPolicy", f"torpor-{component}")["spec"]["ingress"]
        return {rule["ports"][0]["port"]: rule.get("from") for rule in ingress}
