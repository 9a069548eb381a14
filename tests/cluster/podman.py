"""Podman on a machine without a registry: its settings, and a stand-in for Docker's official Python image."""

from __future__ import annotations

import os
import platform
import subprocess
from typing import TYPE_CHECKING

from tests.cluster import shell
from tests.cluster.settings import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PYTHON_IMAGE = "localhost/torpor-python:bookworm"
_SUITE = "bookworm"
_PACKAGES = {"podman": "podman", "runc": "runc", "mmdebstrap": "mmdebstrap"}
_CONTENT = "python3,python3-venv,python3-pip,ca-certificates"
_EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

# runc, since crun fails on some kernels; limits that a machine may refuse to raise; and the machine's own
# certificates, by which pip in a build reaches the index where a proxy stands before it.
_CONF = f"""[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
netns = "host"
volumes = ["{_CERTIFICATES}:{_CERTIFICATES}:ro"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
"""


# Images of tests apart from those that a person has.
_STORAGE = """[storage]
driver = "overlay"
graphroot = "{home}/podman/images"
runroot = "/run/torpor-podman"
"""


class Podman:
    """Podman with its settings and images below ``home``."""

    def __init__(self, home: Path, say: Callable[[str], None]) -> None:
        self._home = home
        self._say = say

    def environment(self) -> dict[str, str]:
        """The variables with which podman, and who calls it, is to run; installs what is missing."""
        shell.require(_PACKAGES)
        folder = self._home / "podman"
        folder.mkdir(parents=True, exist_ok=True)
        texts = {"containers.conf": _CONF, "storage.conf": _STORAGE.format(home=self._home)}
        for name, text in texts.items():
            conf = folder / name
            if not conf.exists() or conf.read_text() != text:
                conf.write_text(text)
        variables = {"CONTAINERS_CONF": "containers.conf", "CONTAINERS_STORAGE_CONF": "storage.conf"}
        return {variable: str(folder / name) for variable, name in variables.items()}

    def run(self, *arguments: str | Path, timeout_seconds: float = 600) -> str:
        """What ``podman ARGUMENTS`` prints."""
        return shell.run(
            "podman", *arguments, environment=self.environment(), timeout_seconds=timeout_seconds
        )

    def base_image(self) -> str:
        """An image with Python that stands in for ``python:3-slim``; made from Debian's packages."""
        environment = self.environment()
        if PYTHON_IMAGE in self.run("images", "--format", "{{.Repository}}:{{.Tag}}").split():
            return PYTHON_IMAGE
        root = self._home / "images" / f"python-{_SUITE}-{platform.machine()}.tar"
        if not root.exists():
            self._say("making a base image with Python (a minute)")
            root.parent.mkdir(parents=True, exist_ok=True)
            part = root.with_name("part-" + root.name)
            leave_out = [f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED]
            options = ("--variant=minbase", f"--include={_CONTENT}", *leave_out)
            shell.run("mmdebstrap", *options, _SUITE, part, timeout_seconds=900)
            part.rename(root)
        shell.run("podman", "import", "--quiet", root, PYTHON_IMAGE, environment=environment)
        return PYTHON_IMAGE

    def save_to(self, reference: str, command: tuple[str, ...], timeout_seconds: float = 300) -> None:
        """Give the archive of the image ``reference`` to ``command``'s stdin."""
        environment = {**os.environ, **self.environment()}
        save = ("podman", "save", "--quiet", reference)
        with (
            subprocess.Popen(save, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as source,
            subprocess.Popen(
                command, stdin=source.stdout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            ) as sink,
        ):
            assert source.stdout is not None
            source.stdout.close()  # so that the source is told when the sink ends early
            said, _ = sink.communicate(timeout=timeout_seconds)
            _, complaint = source.communicate(timeout=timeout_seconds)
        if source.returncode or sink.returncode:
            text = (complaint + said).decode(errors="replace").strip()[-2000:]
            raise ClusterError(f"the image {reference} can't be imported: {text}")
