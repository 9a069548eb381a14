"""Runs other programs, and packages that bring them: every failure says what was run and what it said."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.cluster.settings import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TAIL_CHARACTERS = 2_000


def run(
    *command: str | Path,
    text: str | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = 300,
) -> str:
    """What ``command`` prints on stdout; its stdin is ``text``, or nothing.

    Raises :class:`ClusterError` with the end of its stderr when it fails or does not end.
    """
    arguments = [str(part) for part in command]
    shown = " ".join(arguments[:4])
    try:
        done = subprocess.run(
            arguments,
            input=text if text is not None else "",
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
    except FileNotFoundError:
        raise ClusterError(f"there is no program '{arguments[0]}' on this machine") from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"'{shown} ...' did not end within {timeout_seconds:.0f} s") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-_TAIL_CHARACTERS:]
        raise ClusterError(f"'{shown} ...' ended with {done.returncode}: {said}")
    return done.stdout


def works(*command: str) -> bool:
    """Whether ``command`` is here and ends well."""
    try:
        run(*command, timeout_seconds=20)
    except ClusterError:
        return False
    return True


def require(programs: Mapping[str, str]) -> None:
    """Install Debian's packages of those ``programs`` (program -> package) that are not here.

    A program is a name on the path or the absolute path of a file. Raises :class:`ClusterError` when they
    can't be installed.
    """
    missing = sorted({package for program, package in programs.items() if not _is_here(program)})
    if not missing:
        return
    wanted = " ".join(missing)
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise ClusterError(f"the packages {wanted} are needed: install them, or run this as root on Debian")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    install = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)
    try:
        run(*install, environment=quiet, timeout_seconds=600)
    except ClusterError:  # the lists of packages may be old, or not be there yet
        run("apt-get", "update", "-qq", timeout_seconds=300)
        run(*install, environment=quiet, timeout_seconds=600)


def _is_here(program: str) -> bool:
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    return shutil.which(program, path=path) is not None
