"""Kills processes in pods as the kernel does: from outside, as from within a container's first can't be."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tests.cluster import manifests

if TYPE_CHECKING:
    from tests.cluster.platform import Platform

_KILL = """
import os, pathlib, signal, sys
uid, program = sys.argv[1:]
found = 0
for process in pathlib.Path("/proc").iterdir():
    try:
        groups = (process / "cgroup").read_text()
        if (uid in groups or uid.replace("-", "_") in groups) and program in (process / "comm").read_text():
            os.kill(int(process.name), signal.SIGKILL)
            found += 1
    except (OSError, ValueError):
        pass
sys.exit(found == 0)
"""


def kill(platform: Platform, pod: dict[str, Any], program: str) -> None:
    """SIGKILL the processes of ``pod`` whose name contains ``program``; its containers are started again."""
    image = platform.parts("events")[0]["spec"]["containers"][0]["image"]
    killer = manifests.client(image, _KILL)
    killer["spec"]["hostPID"] = True
    killer["spec"]["containers"][0] |= {
        "securityContext": {"runAsUser": 0, "privileged": True},
        "command": ["/opt/platform/bin/python", "-c", _KILL, pod["metadata"]["uid"], program],
    }
    name = killer["metadata"]["name"] = f"killer-{time.monotonic_ns()}"
    platform.cluster.apply([killer], "default")
    where = (f"pod/{name}", "--namespace=default")
    platform.cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s", *where)
    platform.cluster.kubectl("delete", *where, "--wait=false")
