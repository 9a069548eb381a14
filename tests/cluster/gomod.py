"""The module around a program that is built from the Go module proxy alone: pure.

A program's own ``replace`` lines do not hold when it is a dependency, so they are written again here. Those
that lead into Kubernetes' staging tree lead to the modules that are published from it: of Kubernetes 1.Y.Z
they have the version 0.Y.Z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

KUBERNETES_VERSION = "1.37.2"
_VERSION = "k8s.io/component-base/version"
_VERSION_IN_CLIENT = "k8s.io/client-go/pkg/version"


@dataclass(frozen=True, slots=True)
class Program:
    """One program: the file's name, and where in which module its main package is."""

    name: str
    module: str
    version: str
    package: str
    variables: tuple[tuple[str, str], ...] = ()
    """Variables of its packages that the linker sets, such as its version."""


def _of_kubernetes(name: str) -> Program:
    major, minor, _ = KUBERNETES_VERSION.split(".")
    version = f"v{KUBERNETES_VERSION}"
    variables = (
        (f"{_VERSION}.gitVersion", version),
        (f"{_VERSION}.gitMajor", major),
        (f"{_VERSION}.gitMinor", minor),
        (f"{_VERSION}.gitTreeState", "clean"),
        (f"{_VERSION_IN_CLIENT}.gitVersion", version),
    )
    return Program(name, "k8s.io/kubernetes", version, f"k8s.io/kubernetes/cmd/{name}", variables)


NODE = (
    Program("etcd", "go.etcd.io/etcd/server/v3", "v3.7.3", "go.etcd.io/etcd/server/v3"),
    _of_kubernetes("kube-apiserver"),
    _of_kubernetes("kube-controller-manager"),
    _of_kubernetes("kube-scheduler"),
    _of_kubernetes("kubelet"),
    _of_kubernetes("kube-proxy"),
    _of_kubernetes("kubectl"),
    Program("coredns", "github.com/coredns/coredns", "v1.15.0", "github.com/coredns/coredns"),
)
"""What a node is made of."""

_ACTIONLINT, _HELM, _SKAFFOLD = "v1.7.12", "v3.22.0", "v2.16.1"
TOOLS = (
    Program(
        "actionlint",
        "github.com/rhysd/actionlint",
        _ACTIONLINT,
        "github.com/rhysd/actionlint/cmd/actionlint",
    ),
    Program("kind", "sigs.k8s.io/kind", "v0.33.0", "sigs.k8s.io/kind"),
    Program(
        "helm",
        "helm.sh/helm/v3",
        _HELM,
        "helm.sh/helm/v3/cmd/helm",
        (("helm.sh/helm/v3/internal/version.version", _HELM),),
    ),
    Program("kwok", "sigs.k8s.io/kwok", "v0.8.0", "sigs.k8s.io/kwok/cmd/kwok"),
    Program(
        "kube-network-policies",
        "sigs.k8s.io/kube-network-policies",
        "v0.8.0",
        "sigs.k8s.io/kube-network-policies/cmd",
    ),
    Program(
        "skaffold",
        "github.com/GoogleContainerTools/skaffold/v2",
        _SKAFFOLD,
        "github.com/GoogleContainerTools/skaffold/v2/cmd/skaffold",
    ),
    Program(
        "versitygw", "github.com/versity/versitygw", "v1.8.0", "github.com/versity/versitygw/cmd/versitygw"
    ),
)
"""What tests may ask for beside it."""

PROGRAMS = {program.name: program for program in (*NODE, *TOOLS)}


def wrapper(program: Program, go_mod: dict[str, Any]) -> str:
    """The ``go.mod`` of a module that requires ``program``, which has ``go_mod`` (``go mod edit -json``)."""
    lines = ["module build", f"go {go_mod['Go']}"]
    lines += [f"godebug {each['Key']}={each['Value']}" for each in go_mod.get("Godebug") or ()]
    lines.append(f"require {program.module} {program.version}")
    staging = "v0." + program.version.removeprefix("v1.")
    for replace in go_mod.get("Replace") or ():
        old, new = replace["Old"], replace["New"]
        name = " ".join(filter(None, (old["Path"], old.get("Version"))))
        if new.get("Version"):
            lines.append(f"replace {name} => {new['Path']} {new['Version']}")
        elif new["Path"].startswith("./staging/"):
            lines.append(f"replace {name} => {old['Path']} {staging}")
    return "\n".join(lines) + "\n"


def linker_flags(program: Program) -> str:
    """What ``go build -ldflags`` gets."""
    return " ".join(("-s -w", *(f"-X {name}={value}" for name, value in program.variables)))
