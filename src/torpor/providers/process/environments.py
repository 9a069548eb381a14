"""Environments of functions with requirements of their own: folders of packages, built once and kept.

An environment is no virtual environment but a folder that pip installs into (``pip install --target``),
which the warm parent has on its path before the platform's own packages. So what a function requires wins,
Torpor and what it needs are there without being installed again, and the folder can be built aside and
renamed into place. What Torpor's runtime needs is a constraint for pip: requirements that would break it are
refused when they are installed. Requirements that the platform's own packages meet need no environment at
all.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

from torpor.children import tied
from torpor.errors import EnvironmentBuildError
from torpor.providers.process.requirements import environment_key, lines, satisfied

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_HASHED_FILES = 2_000
_TAIL_LINES = 15
_FILE_OPTIONS = ("-r", "--requirement", "-c", "--constraint")
_IGNORED = {"__pycache__", "build", "dist", ".git"}


class Environments:
    """The environments below ``cache_dir``. Several platforms may share it."""

    def __init__(self, cache_dir: Path) -> None:
        self._folder = cache_dir / "environments"
        self._locks: dict[str, asyncio.Lock] = {}
        self._running: set[asyncio.subprocess.Process] = set()

    async def packages(self, requirements: Path) -> Path | None:
        """The folder of packages that meets the file ``requirements``; ``None`` when the platform's own do.

        Raises :class:`~torpor.errors.EnvironmentBuildError` with the end of what pip said.
        """
        try:
            text = await asyncio.to_thread(requirements.read_text, "utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EnvironmentBuildError(f"{requirements}: can't be read: {error}") from error
        wanted = lines(text)
        if satisfied(wanted, _installed):
            return None
        key = await asyncio.to_thread(_key, requirements, wanted)
        folder = self._folder / key
        async with self._locks.setdefault(key, asyncio.Lock()):
            if not folder.is_dir():
                await self._build(requirements, folder)
        return folder

    def close(self) -> None:
        """End what is being built; whoever waits for it gets the error."""
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def _build(self, requirements: Path, folder: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._folder / f"{folder.name}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)  # another platform may be building it
            if not await asyncio.to_thread(folder.is_dir):
                await self._install(requirements, folder)
        finally:
            os.close(lock)

    async def _install(self, requirements: Path, folder: Path) -> None:
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        constraints = folder.with_name(f"{folder.name}.constraints")
        constraints.write_text("\n".join(_own_needs()) + "\n")
        try:
            pip = await self._pip()
            options = ["--disable-pip-version-check", "--no-input", "--quiet", "--no-warn-script-location"]
            command = [*pip, "install", *options, "--target", str(unfinished)]
            await self._run([*command, "-r", str(requirements), "-c", str(constraints)], requirements)
            unfinished.mkdir(exist_ok=True)  # pip makes none when there is nothing to install
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
            constraints.unlink(missing_ok=True)

    async def _run(self, command: list[str], requirements: Path) -> None:
        """Run pip beside the requirements file, from where its relative paths count."""
        process = await asyncio.create_subprocess_exec(
            *tied(*command),
            cwd=requirements.parent,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._running.add(process)
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        finally:
            self._running.discard(process)
        if process.returncode != 0:
            tail = "\n".join(output.decode("utf-8", "replace").strip().splitlines()[-_TAIL_LINES:])
            raise EnvironmentBuildError(f"{requirements}: pip could not install it:\n{tail}")

    async def _pip(self) -> list[str]:
        """The command of a pip for this interpreter: its own, or one made aside when it has none."""
        if importlib.util.find_spec("pip") is not None:
            return [sys.executable, "-m", "pip"]
        aside = self._folder / f"pip-{platform.python_version()}"
        python = aside / "bin" / "python"
        if not python.exists():
            await asyncio.to_thread(venv.create, aside, with_pip=True, symlinks=True)
        return [str(python), "-m", "pip"]


def _installed(name: str) -> importlib.metadata.Distribution | None:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _own_needs() -> list[str]:
    """What Torpor's runtime requires, as pip's constraints: without extras, which those can't have."""
    needs = importlib.metadata.requires("torpor") or []
    return [need for need in needs if "extra ==" not in need]


def _key(requirements: Path, wanted: list[str]) -> str:
    parts = ["\n".join(wanted).encode(), *_referenced(requirements.parent, wanted)]
    machine = f"{sys.implementation.cache_tag} {platform.python_version()} {platform.platform()}"
    return environment_key([*parts, machine.encode(), "\n".join(_own_needs()).encode()])


def _referenced(folder: Path, wanted: list[str]) -> Iterator[bytes]:
    """The content of what requirements name on this machine: other files, folders of packages."""
    for line in wanted:
        option, _, rest = line.partition(" ")
        name = rest.strip() if option in (*_FILE_OPTIONS, "-e", "--editable") else line
        path = folder / name.removeprefix("file://").partition("[")[0]
        if option in _FILE_OPTIONS and path.is_file():
            inner = lines(path.read_text("utf-8", "replace"))
            yield "\n".join(inner).encode()
            yield from _referenced(path.parent, inner)
        elif ("/" in name or "." in name) and path.exists():
            yield from _contents(path)


def _contents(path: Path) -> Iterator[bytes]:
    files = [path] if path.is_file() else sorted(_files(path))
    for number, file in enumerate(files):
        if number >= MAX_HASHED_FILES:
            raise EnvironmentBuildError(
                f"{path}: holds more than {MAX_HASHED_FILES} files, a package was expected"
            )
        yield str(file.relative_to(path)).encode()
        yield file.read_bytes()


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _IGNORED and not name.endswith(".egg-info")]
        yield from (Path(parent, name) for name in names)
