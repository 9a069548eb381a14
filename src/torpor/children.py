"""Programs that a part of the platform starts, keeps running, and takes with it when it ends.

On Linux the kernel kills them with the process that started them, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from torpor.clock import cancel
from torpor.errors import StartError

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Awaitable, Callable

    from torpor.clock import Clock

_LOG = logging.getLogger("torpor.children")
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_STEADY_SECONDS = 30.0  # who ran this long starts again without a pause
_TIED = str(Path(__file__).with_name("tied.py"))


def locate(program: str, distribution: str) -> Path | None:
    """The path of ``program`` that the wheel ``distribution`` brought; ``None`` without it."""
    try:
        files = metadata.distribution(distribution).files or []
    except metadata.PackageNotFoundError:
        return None
    # A wheel may have the program itself in a package, and a script of the same name that starts it.
    found = sorted((file for file in files if file.name == program), key=lambda file: ".." in file.parts)
    return Path(str(found[0].locate())).resolve() if found else None


def tied(*command: str) -> list[str]:
    """``command`` so that the kernel ends it with this process (Linux), with as many open files as may be.

    See :mod:`torpor.tied`. It keeps the process id that it is started with.
    """
    return [sys.executable, "-I", "-S", _TIED, str(os.getpid()), *command]


async def end(process: Process, patience_seconds: float) -> None:
    """Ask ``process`` to end, wait, and kill it when ``patience_seconds`` pass in vain."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(patience_seconds):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def describe_exit(code: int) -> str:
    """An exit code as ``subprocess`` has it, in words."""
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


@dataclass(frozen=True, slots=True)
class Health:
    """How a program is that is kept running; ``problem`` is empty while nothing is wrong."""

    running: bool
    pid: int | None
    restarts: int
    problem: str


class Supervised:
    """One program, started again with a growing pause whenever it ends by itself.

    ``launch`` starts it and returns when it is of use; it raises :class:`~torpor.errors.StartError` when it
    never is, and leaves no process behind when it raises or is cancelled. ``on_change`` is told each time it
    has ended (what is wrong) or is back (``None``).
    """

    def __init__(
        self,
        name: str,
        launch: Callable[[], Awaitable[Process]],
        clock: Clock,
        on_change: Callable[[str | None], None],
    ) -> None:
        self._name = name
        self._launch = launch
        self._clock = clock
        self._on_change = on_change
        self._process: Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.restarts = 0
        self.problem: str | None = None

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def health(self) -> Health:
        """How it is."""
        pid = self.pid
        return Health(pid is not None, pid, self.restarts, self.problem or "")

    async def start(self) -> None:
        """Start it, and keep it running from then on. Raises :class:`~torpor.errors.StartError`."""
        self._process = await self._launch()
        self._keeper = asyncio.create_task(self._keep(self._process))

    async def close(self, patience_seconds: float = 10.0) -> None:
        """End it, and start it no more."""
        if self._keeper is not None:
            await cancel(self._keeper)
            self._keeper = None
        if self._process is not None:
            await end(self._process, patience_seconds)
            self._process = None

    async def _keep(self, process: Process) -> None:
        pause_seconds = 0.0
        while True:
            started = self._clock.monotonic()
            code = await process.wait()
            if self._clock.monotonic() - started > _STEADY_SECONDS:
                pause_seconds = 0.0
            self._say(f"it {describe_exit(code)} and is started again")
            while True:
                await self._clock.sleep(pause_seconds)
                pause_seconds = min(max(pause_seconds * 2, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
                self.restarts += 1
                try:
                    self._process = process = await self._launch()
                except (StartError, OSError) as error:
                    self._say(f"it could not be started again, which is tried once more: {error}")
                else:
                    self._say(None)
                    break

    def _say(self, problem: str | None) -> None:
        self.problem = problem
        if problem is None:
            _LOG.info("%s is back", self._name)
        else:
            _LOG.warning("%s: %s", self._name, problem)
        self._on_change(problem)
