"""Constant load from a pod in the cluster, driven from a test."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tests.cluster import manifests
from tests.cluster.platform import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.clusters import Cluster

CONCURRENCY = 32
_SCRIPT = Path(__file__).with_name("traffic_pod.py")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the requests so far."""

    sent: int
    answered: int
    lost: int
    causes: list[str]
    slowest: float


class Traffic:
    """Requests to one function, constant while they are on."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def go(self) -> Outcome:
        """Begin, or go on."""
        return self._tell("go")

    def pause(self) -> Outcome:
        """Begin no more, and return once nothing is under way."""
        return self._tell("pause")

    def more(self, requests: int) -> None:
        """Let it go on until so many more have been answered."""
        enough = self._tell("look").answered + requests
        until(lambda: self._tell("look").answered >= enough, f"{requests} more answers")

    def _tell(self, command: str) -> Outcome:
        sending, saying = _pipes(self._process)
        sending.write(f"{command}\n")
        sending.flush()
        line = saying.readline()
        assert line, f"the traffic ended: {self._process.stderr and self._process.stderr.read()}"
        document: dict[str, Any] = json.loads(line)
        return Outcome(**document)

    def check(self) -> Outcome:
        """Pause; every request so far has been answered."""
        outcome = self.pause()
        assert outcome.lost == 0, f"{outcome.lost} of {outcome.sent} were lost: {outcome.causes}"
        assert outcome.answered == outcome.sent > 0
        return outcome


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


@contextmanager
def traffic(
    cluster: Cluster, namespace: str, image: str, path: str, *, host: str, connections: int = CONCURRENCY
) -> Iterator[Traffic]:
    """Load on ``http://host:80/path`` from a pod of ``image``, which has to have Python; one a host."""
    name = f"traffic.{host}"
    waits = ["python3", "-c", "import signal; signal.sigwait([signal.SIGTERM])"]
    spec = manifests.pod_spec(image, command=waits)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    cluster.apply([pod], namespace)
    cluster.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=120s", "-n", namespace)
    command = cluster.command("exec", "-i", name, "-n", namespace, "--", "python3", "-c", _SCRIPT.read_text())
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [*command, host, "80", path, str(connections)], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
    try:
        yield Traffic(process)
    finally:
        process.kill()
        process.communicate()  # closes the pipes too
        cluster.kubectl("delete", "pod", name, "-n", namespace, "--wait=false", "--grace-period=1")
