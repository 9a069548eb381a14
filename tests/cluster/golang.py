"""Go, which the cluster's programs are built by: this machine's own if it is new enough, else a wheel's."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster import shell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.cluster.settings import Settings

LEAST = (1, 26)
"""The oldest Go that builds every program."""
_LOCK = Path(__file__).parent / "go.lock"
# Neither a newer Go than the one that was found, nor settings of the person whose machine it is.
_ENVIRONMENT = {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GO111MODULE": "on"}


def version(said: str) -> tuple[int, ...]:
    """The version in what ``go version`` prints; empty if it is none."""
    match = re.search(r"\bgo(\d+)\.(\d+)", said)
    return tuple(int(part) for part in match.groups()) if match else ()


class Go:
    """Runs Go, and installs it first where it is missing or too old."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._home = settings.home
        self._say = say

    def path(self) -> Path:
        """The program; raises :class:`~tests.cluster.settings.ClusterError` when it can't be had."""
        own = shutil.which("go")
        if own is not None and version(shell.run(own, "version", environment=_ENVIRONMENT)) >= LEAST:
            return Path(own)
        wanted = re.search(r"==([\d.]+)", _LOCK.read_text("utf-8"))
        assert wanted is not None
        folder = self._home / f"go-{wanted[1]}"
        if not folder.exists():
            self._say(f"installing Go {wanted[1]}")
            part = folder.with_name(folder.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes")
            shell.run(
                *(sys.executable, "-m", "pip", "install", *options, "--target", part, "--requirement", _LOCK),
                timeout_seconds=600,
            )
            part.rename(folder)
        return folder / "go" / "bin" / "go"

    def run(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = 300,
    ) -> str:
        """What ``go ARGUMENTS`` prints."""
        return shell.run(
            self.path(),
            *arguments,
            cwd=cwd,
            environment={**_ENVIRONMENT, **(environment or {})},
            timeout_seconds=timeout_seconds,
        )
