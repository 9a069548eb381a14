"""Skaffold on the node that is started here: podman stands in for Docker, and images go to its containerd."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.cluster import shell
from tests.cluster.settings import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.own_node import OwnNode
    from tests.cluster.settings import Settings

_PATIENCE_SECONDS = 20.0


@contextlib.contextmanager
def environment(node: OwnNode, settings: Settings) -> Iterator[dict[str, str]]:
    """The variables to run Skaffold with; podman's Docker API is served within the block."""
    for name in ("helm", "kubectl", "skaffold"):
        node.binaries.path(name)
    socket = settings.state / "podman.sock"
    config = settings.state / "skaffold.yaml"
    config.write_text("global: {collect-metrics: false, survey: {disable-prompt: true}}\n")
    variables = node.podman.environment()
    service = subprocess.Popen(
        ["podman", "system", "service", "--time=0", f"unix://{socket}"],
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await(socket, service)
        yield {
            **variables,
            "DOCKER_HOST": f"unix://{socket}",
            "SKAFFOLD_CONFIG": str(config),
            # What podman has the node need not have: building is quick then, and brings it there.
            "SKAFFOLD_CACHE_ARTIFACTS": "false",
            "SKAFFOLD_INTERACTIVE": "false",
            "SKAFFOLD_UPDATE_CHECK": "false",
            "KUBECONFIG": str(node.kubeconfig),
            "PATH": f"{node.binaries.folder}{os.pathsep}{os.environ.get('PATH', '')}",
            # What Skaffold calls builds for this very cluster, wherever it is called.
            "TORPOR_CLUSTER": "node",
            "TORPOR_CLUSTER_NAME": settings.name,
        }
    finally:
        service.terminate()
        service.wait()
        socket.unlink(missing_ok=True)


def _await(socket: Path, service: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not socket.exists():
        if service.poll() is not None or time.monotonic() > end:
            raise ClusterError("podman does not serve Docker's API (podman system service)")
        time.sleep(0.05)


def command(node: OwnNode, *arguments: str) -> list[str]:
    """The command line of ``skaffold ARGUMENTS`` with the profile for this node."""
    verb, *more = arguments or ("dev",)
    return [str(node.binaries.path("skaffold")), verb, "--profile=node", *more]


def run(node: OwnNode, settings: Settings, *arguments: str) -> int:
    """Run it in this terminal until it ends; its exit code."""
    with environment(node, settings) as variables:
        try:
            return subprocess.run(
                command(node, *arguments), env={**os.environ, **variables}, check=False
            ).returncode
        except KeyboardInterrupt:
            return 0


def build(node: OwnNode, reference: str, path: Path | None, function: str | None) -> None:
    """Build ``reference`` as Skaffold asks for it, and bring it to the node.

    Without ``path`` it is the platform's image, else that of the only function below it or of ``function``.
    What Skaffold deploys is ``NAME:ID``, after the image's id, so it is brought by that name too.
    """
    if path is None:
        node.build_platform(reference)
    else:
        options, variables = node.build_options()
        one = ("--function", function) if function else ()
        shell.run(
            *(sys.executable, "-m", "torpor.cli", "build", path, *one, "--tag", reference, *options),
            environment=variables,
            timeout_seconds=900,
        )
    image_id = node.podman.run("image", "inspect", "--format", "{{.Id}}", reference).strip()
    deployed = f"{reference.rpartition(':')[0]}:{image_id.removeprefix('sha256:')}"
    node.podman.run("tag", reference, deployed)
    node.import_image(deployed)
