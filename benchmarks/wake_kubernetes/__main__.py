"""``python -m benchmarks.wake_kubernetes``: a function's wake on Kubernetes, beside a bare Deployment's.

Three in one run, on the cluster that tests use (see docs/testing.md): a bare Deployment from being scaled to
its pod's first answer, and requests through the gateway to a function at zero and to a parked one. All have
the same pod, ``functions/greeter``. Written to ``build/bench/wake-kubernetes.json``; the exit status is 1
when a wake from zero takes more than 1.3 times the bare one (median), or a parked one 100 ms (p99).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from tests.cluster import manifests
from tests.cluster.clusters import Cluster, find
from tests.cluster.platform import GATEWAY, Platform
from tests.cluster.settings import ROOT, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULT = ROOT / "build" / "bench" / "wake-kubernetes.json"
SCRIPT = Path(__file__).with_name("in_pod.py")
MOST_FACTOR = 1.3
MOST_PARKED_MS = 100.0
QUICK = {"window": "1s", "scaleToZeroGracePeriod": "0s"}
RULES = [
    {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "create"]},
    {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["patch"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
]
NAMES = {
    "bare": "bare Deployment: scaled -> answer",
    "zero": "function at zero: request -> answer",
    "parked": "parked function: request -> answer",
}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _objects(image: str) -> list[dict[str, Any]]:
    """The pod that measures, and what it may do."""
    kind = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{kind}/v1", "kind": "Role", "metadata": {"name": "bench"}, "rules": RULES}
    binding = {
        "apiVersion": f"{kind}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "bench"},
        "roleRef": {"apiGroup": kind, "kind": "Role", "name": "bench"},
        "subjects": [{"kind": "ServiceAccount", "name": "default"}],
    }
    command = ["python3", "-c", "import signal; signal.sigwait([signal.SIGTERM])"]
    spec = manifests.pod_spec(image, command=command) | {"automountServiceAccountToken": True}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bench"}, "spec": spec}
    return [role, binding, pod]


def _measure(platform: Platform, image: str, greeter: str, rounds: int, parked: int) -> list[dict[str, Any]]:
    cluster = platform.cluster
    namespace = f"bench-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", namespace)
    try:
        for name in ("zero", "parked"):
            platform.declare(namespace, name, greeter, scaling={**QUICK, "idle": name})
        cluster.apply(_objects(image), namespace)
        cluster.kubectl("wait", "pod/bench", "--for=condition=Ready", "--timeout=120s", "-n", namespace)
        arguments = (namespace, GATEWAY, str(rounds), str(parked))
        command = cluster.command(
            *("exec", "bench", "-n", namespace, "--"),
            *("python3", "-c", SCRIPT.read_text("utf-8"), *arguments),
        )
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        found = []
        with process:
            for line in process.stdout or ():
                found.append(json.loads(line))
                _say(line.strip())
        if process.returncode:
            raise SystemExit("the measuring pod failed")
        return found
    finally:
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")


def _percentile(ordered: Sequence[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def _figures(found: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    figures = {}
    for what in NAMES:
        ordered = sorted(1000 * one["answer"] for one in found if one["what"] == what)
        figures[what] = {
            "count": len(ordered),
            "p50": statistics.median(ordered),
            "p90": _percentile(ordered, 0.9),
            "p99": _percentile(ordered, 0.99),
        }
    return figures


def _bare_parts(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What the bare time is made of: medians of when each thing is seen."""
    bare = [one for one in found if one["what"] == "bare"]
    return {
        name: 1000 * statistics.median(one[name] for one in bare if name in one)
        for name in ("scaled", "made", "scheduled", "address", "answer")
    }


def main() -> int:
    """Measure, show and write; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wake_kubernetes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="wakes from zero, and bare ones")
    parser.add_argument("--parked", type=int, default=100, help="wakes of the parked function")
    parser.add_argument("--installed", action="store_true", help="use the platform that is installed already")
    given = parser.parse_args()
    settings = Settings.from_environment()
    source = find(settings, _say)
    stays = source.is_up()
    source.up()
    cluster = Cluster(source, settings)
    platform = Platform(cluster)
    try:
        image = settings.platform_image if given.installed else cluster.build_platform()
        greeter = cluster.build(ROOT / "functions" / "greeter")["greeter"]
        if not given.installed:
            cluster.import_nats()
            platform.install(image)
        load_before = os.getloadavg()[0]
        found = _measure(platform, image, greeter, given.rounds, given.parked)
        if not given.installed:
            platform.uninstall()
    finally:
        if not stays:
            source.down()
    return _report(found, load_before)


def _report(found: Sequence[dict[str, Any]], load_before: float) -> int:
    figures, parts = _figures(found), _bare_parts(found)
    table = Table("what", "wakes", "p50 ms", "p90 ms", "p99 ms", title="Waking on Kubernetes")
    for what, name in NAMES.items():
        one = figures[what]
        table.add_row(name, f"{one['count']:.0f}", *(f"{one[key]:.1f}" for key in ("p50", "p90", "p99")))
    factor = figures["zero"]["p50"] / figures["bare"]["p50"]
    loads = {"before": load_before, "after": os.getloadavg()[0]}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    document = {"milliseconds": figures, "bare": parts, "factor": factor, "load": loads}
    RESULT.write_text(json.dumps(document, indent=2) + "\n")
    console = Console()
    console.print(table)
    console.print("a bare one, median ms: " + ", ".join(f"{name} {ms:.0f}" for name, ms in parts.items()))
    console.print(f"load of this machine: {loads['before']:.1f} before, {loads['after']:.1f} after")
    quick, parked = factor <= MOST_FACTOR, figures["parked"]["p99"] < MOST_PARKED_MS
    words = {True: "holds", False: "FAILS"}
    console.print(f"from zero / bare: {factor:.2f}, at most {MOST_FACTOR:g}: {words[quick]}")
    console.print(
        f"parked, p99: {figures['parked']['p99']:.1f} ms, under {MOST_PARKED_MS:g}: {words[parked]}"
    )
    return 0 if quick and parked else 1


if __name__ == "__main__":
    sys.exit(main())
