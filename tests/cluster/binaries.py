"""The cluster's programs: kept, unpacked from a ready cache, or built out of Go modules."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from typing import TYPE_CHECKING

from tests.cluster import shell
from tests.cluster.golang import Go
from tests.cluster.gomod import KUBERNETES_VERSION, PROGRAMS, linker_flags, wrapper
from tests.cluster.settings import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tests.cluster.gomod import Program
    from tests.cluster.settings import Settings

_BUILD_SECONDS = 3600


class Binaries:
    """Programs in a folder that is shared by every cluster of this machine and version."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self.folder = settings.home / "bin" / KUBERNETES_VERSION
        self._cache = settings.cache
        self._work = settings.home / "build"
        self._lock = settings.home / "programs.lock"
        self._go = Go(settings, say)
        self._say = say

    def path(self, name: str) -> Path:
        """The program ``name``, made first if need be."""
        self.require((name,))
        return self.folder / name

    def require(self, names: Iterable[str]) -> None:
        """Have each of ``names``; raises :class:`ClusterError` when one can't be had."""
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = list(names)
        if not self._missing(wanted):
            return
        with self._lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # several clusters share the folder
            if self._missing(wanted):
                self._unpack(wanted)
            for name in self._missing(wanted):
                self._build(PROGRAMS[name])

    def _missing(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if not os.access(self.folder / name, os.X_OK)]

    def _unpack(self, wanted: list[str]) -> None:
        """Take what the cache has: an archive with several programs, or one compressed program a file."""
        if self._cache is None or not self._cache.is_dir():
            return
        shell.require({"zstd": "zstd"})
        for name in self._missing(wanted):
            single = self._cache / f"{name}.zst"
            if single.is_file():
                part = self.folder / f".{name}.part"
                shell.run("zstd", "-dqf", "--long=27", single, "-o", part)
                part.chmod(0o755)
                part.rename(self.folder / name)
        for archive in sorted(self._cache.glob("*.tar.zst")):
            if self._missing(wanted):
                self._say(f"unpacking {archive.name}")
                self._unpack_archive(archive)

    def _unpack_archive(self, archive: Path) -> None:
        aside = self.folder / ".unpacked"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        shell.run("tar", "-C", aside, "-I", "zstd --long=27", "-xf", archive)
        for unpacked in aside.iterdir():
            if unpacked.name in PROGRAMS and not (self.folder / unpacked.name).exists():
                unpacked.rename(self.folder / unpacked.name)
        shutil.rmtree(aside)
        server = self.folder / "kube-apiserver"
        if server.exists() and KUBERNETES_VERSION not in (said := shell.run(server, "--version")):
            server.unlink()
            raise ClusterError(f"{archive} has {said.strip()}, {KUBERNETES_VERSION} was expected")

    def _build(self, program: Program) -> None:
        self._say(f"building {program.name} {program.version} (minutes)")
        work = self._work / program.name
        work.mkdir(parents=True, exist_ok=True)
        module = f"{program.module}@{program.version}"
        downloaded = json.loads(self._go.run("mod", "download", "-json", module, cwd=work))
        go_mod = json.loads(self._go.run("mod", "edit", "-json", downloaded["GoMod"], cwd=work))
        (work / "go.mod").write_text(wrapper(program, go_mod))
        (work / "tools.go").write_text(f'//go:build tools\n\npackage tools\n\nimport _ "{program.package}"\n')
        built = self.folder / f".{program.name}.part"
        environment = {"GOFLAGS": "-buildvcs=false -mod=mod"}
        options = ("-trimpath", "-ldflags", linker_flags(program), "-o", built)
        self._go.run(
            "build", *options, program.package,
            cwd=work, environment=environment, timeout_seconds=_BUILD_SECONDS,
        )  # fmt: skip
        built.rename(self.folder / program.name)


def static_program(go: Go, source: Path, target: Path) -> None:
    """Build the one Go file ``source``, which needs nothing but the standard library."""
    environment = {"GOFLAGS": "-buildvcs=false", "GO111MODULE": "off"}
    go.run("build", "-trimpath", "-ldflags", "-s -w", "-o", target, source, environment=environment)
