"""The platform under demonstration: ``torpor up`` in a process of its own, as anyone would start it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Self

import orjson

from demo.errors import DemoError
from demo.processes import Census
from torpor.api.client import Client

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

_START_SECONDS = 120.0
_STOP_SECONDS = 60.0


class Platform:
    """Runs while its block is entered, on a free port, with its data in ``folder`` and its log beside it.

    It leads a session of its own, so that whatever it leaves behind can be told from other processes.
    """

    def __init__(self, functions: Sequence[Path], folder: Path) -> None:
        self._functions = functions
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._drain: asyncio.Task[None] | None = None
        self.census = Census(0)
        self.url = ""

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True)
        arguments = ["up", "-o", "json", "--port", "0", "--data", str(self._folder / "data")]
        with (self._folder / "errors.log").open("wb") as errors:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "torpor.cli",
                *arguments,
                *map(str, self._functions),
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        self.census = Census(self._process.pid)
        try:
            async with asyncio.timeout(_START_SECONDS):
                self.url = await self._ready(self._process)
        except BaseException:
            await self.stop()
            raise
        self._drain = asyncio.create_task(self._read_on(self._process))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> int | None:
        """End it as Ctrl-C does and wait; returns its exit code. Stopping it twice has no further effect."""
        process = self._process
        if process is None:
            return None
        self.census.take()
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if self._drain is not None:
            await self._drain
        return process.returncode

    def client(self) -> Client:
        """A new client of its REST API."""
        return Client(self.url)

    async def _ready(self, process: asyncio.subprocess.Process) -> str:
        """Wait until it is up; returns its URL. Raises :class:`DemoError` with what it said instead."""
        said: list[str] = []
        if process.stdout is None:
            raise AssertionError("stdout was piped")
        async for line in process.stdout:
            news = orjson.loads(line)
            if news["news"] == "ready":
                if said:
                    raise DemoError("the functions don't run:\n" + "\n".join(said))
                return str(news["subject"])
            if news["news"] in ("broken", "fault"):
                said.append(f"{news['subject']}: {news['text']}")
        log = (self._folder / "errors.log").read_text("utf-8", "replace").strip()
        raise DemoError("the platform did not start:\n" + "\n".join([*said, log]))

    async def _read_on(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is not None:
            async for _ in process.stdout:
                pass
