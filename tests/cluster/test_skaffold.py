"""``skaffold dev`` on the cluster: it builds all, installs both charts, and answers by changed code."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

from tests.cluster import shell, skaffold
from tests.cluster.own_node import OwnNode
from tests.cluster.platform import Platform, until
from tests.cluster.settings import ROOT, ClusterError, Settings
from tests.cluster.test_install import Empty, put_aside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.clusters import Cluster

NEEDED = (
    *("charts", "functions", "src", "tests", "skaffold.yaml", "Dockerfile", "pyproject.toml"),
    *("requirements-image.lock", "README.md", "LICENSE"),
)
FUNCTIONS = ("greeter", "split", "resize", "stitch")
BUILD_SECONDS = 900.0
WATCHING = "Watching for changes"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the repository, to be changed."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


@pytest.fixture
def node(cluster: Cluster) -> OwnNode:
    if not isinstance(cluster.source, OwnNode):
        pytest.fail("the profile 'node' is for a node that is started here: TORPOR_CLUSTER=node")
    return cluster.source


@pytest.fixture
def variables(node: OwnNode) -> Iterator[dict[str, str]]:
    with skaffold.environment(node, Settings.from_environment()) as made:
        yield {**os.environ, **made}


def test_both_profiles_are_what_skaffold_reads(node: OwnNode, cluster: Cluster) -> None:
    program = cluster.tool("skaffold")
    config = {"KUBECONFIG": str(cluster.kubeconfig)}
    for profile in ((), ("--profile=node",)):
        said = shell.run(program, "diagnose", "--yaml-only", *profile, cwd=ROOT, environment=config)
        read = YAML(typ="safe").load(said)
        images = [one["image"].rpartition("/")[2] for one in read["build"]["artifacts"]]
        assert images == ["torpor", *FUNCTIONS]
        first = read["build"]["artifacts"][0]
        assert ("custom" in first) == bool(profile)


def test_a_change_of_code_is_soon_in_the_answer(
    cluster: Cluster,
    node: OwnNode,
    nats_image: str,
    repository: Path,
    variables: dict[str, str],
    tmp_path: Path,
) -> None:
    with put_aside(cluster):
        empty = Empty(cluster, "localhost/torpor:none")
        empty.clear()
        log = tmp_path / "skaffold.log"
        command = skaffold.command(node, "dev", "--cleanup=true", "--trigger=polling", "--tail=true")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=repository, env=variables, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            follow(empty.platform, process, log, repository)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=300)
            print(log.read_text(errors="replace")[-3000:])
            assert json.loads(empty.platform.helm("list", "--all-namespaces", "--output=json")) == []
            empty.clear()
            cluster.kubectl("delete", "namespace", "functions", "--ignore-not-found", "--wait=false")


def follow(platform: Platform, process: subprocess.Popen[bytes], log: Path, repository: Path) -> None:
    """Wait for the greeter, change it, and wait for the change."""

    def greets(word: str) -> bool:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        return word in greeting(platform)

    until(lambda: greets("Hello, Ada!"), "the first answer", BUILD_SECONDS)
    # Skaffold reads the files anew when all that it deployed is well, blind to what changed until then.
    until(lambda: WATCHING in log.read_text(errors="replace"), "Skaffold's watch of the files", BUILD_SECONDS)
    code = repository / "functions" / "greeter" / "main.py"
    before = code.read_text()
    assert "Hello" in before
    code.write_text(before.replace("Hello", "Good day"))
    until(lambda: greets("Good day, Ada!"), "the changed answer", BUILD_SECONDS)


def greeting(platform: Platform) -> str:
    """What the greeter answers; nothing where it is not there yet."""
    try:
        with platform.reachable() as url:
            path = f"{url}/function/greeter.functions/?name=Ada"
            with urllib.request.urlopen(path, timeout=60) as response:
                found: str = response.read().decode()
    except (ClusterError, urllib.error.URLError, OSError):
        return ""
    return found
