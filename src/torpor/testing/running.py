"""A real platform for tests and demonstrations: ``torpor up`` as a person starts it, in its own process."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Self

import orjson
import psutil

from torpor.api.client import Client
from torpor.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

PATIENCE_SECONDS = 60.0
"""How long anything is waited for before that counts as a failure."""


class Running:
    """A platform with the functions below ``paths``, on a free port, with its data in ``folder``.

    It leads a session of its own, so that what it leaves behind can be told from others. Entering the
    block waits until it is up, or for the first news of the kind that it ``awaits``;
    :class:`~torpor.errors.StartError` has what it said if that never comes.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        folder: Path,
        *,
        port: int = 0,
        broker: str = "nats",
        start_seconds: float = PATIENCE_SECONDS,
        environment: Mapping[str, str] | None = None,
        awaits: str = "ready",
    ) -> None:
        self._arguments = ["up", "-o", "json", "--port", str(port), "--data", str(folder / "data")]
        self._arguments += ["--broker", broker, *map(str, paths)]
        self._environment = environment
        self._start_seconds = start_seconds
        self._awaits = awaits
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._changed = threading.Condition()
        self._ended = False
        self.news: list[dict[str, str]] = []
        """What it has told so far: documents with ``news``, ``subject`` and ``text``."""
        self.census = Census(0)
        self.url = ""

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        environment = None if self._environment is None else {**_inherited(), **self._environment}
        with (self._folder / "errors.log").open("ab") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                [sys.executable, "-m", "torpor.cli", *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                env=environment,
            )
        self.census = Census(self._process.pid)
        self._reader = threading.Thread(target=self._read, name="news of the platform", daemon=True)
        self._reader.start()
        try:
            self.url = self.wait_for(self._awaits, within_seconds=self._start_seconds)["subject"]
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Of ``torpor up`` itself."""
        return self._started().pid

    def errors(self) -> str:
        """What it wrote to stderr."""
        return (self._folder / "errors.log").read_text("utf-8", "replace")

    def client(self) -> Client:
        """A new client of its REST API."""
        return Client(self.url)

    def wait_for(
        self,
        news: str,
        subject: str = ".*",
        text: str = ".*",
        *,
        after: int = 0,
        within_seconds: float = PATIENCE_SECONDS,
    ) -> dict[str, str]:
        """The first news of that kind whose subject and text match; ``after`` skips so many of the first.

        Raises :class:`~torpor.errors.StartError` when the platform ends before, or none comes in that time.
        """

        def found() -> dict[str, str] | None:
            for document in self.news[after:]:
                if (
                    document["news"] == news
                    and re.fullmatch(subject, document["subject"])
                    and re.fullmatch(text, document["text"], re.DOTALL)
                ):
                    return document
            return None

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, within_seconds)
            document = found()
        if document is None:
            told = "\n".join(f"{one['news']} {one['subject']}: {one['text']}" for one in self.news)
            raise StartError(f"no news '{news}' of '{subject}' came:\n{told}\n{self.errors()}")
        return document

    def stop(self, number: signal.Signals = signal.SIGINT) -> int | None:
        """End it, as Ctrl-C does, and wait; returns its exit code. A second time it has no further effect."""
        process = self._process
        if process is None:
            return None
        self.census.take()
        if process.poll() is None:
            process.send_signal(number)
        try:
            code = process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        if self._reader is not None:
            self._reader.join(PATIENCE_SECONDS)
        if process.stdout is not None:
            process.stdout.close()
        return code

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise StartError("the platform was not started")
        return self._process

    def _read(self) -> None:
        stdout = self._started().stdout
        if stdout is not None:
            for line in stdout:
                with self._changed:
                    self.news.append(orjson.loads(line))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def _inherited() -> dict[str, str]:
    return dict(psutil.Process().environ())


class Census:
    """The processes seen below one root process, by pid and time of creation: a pid may be used again."""

    def __init__(self, root_pid: int) -> None:
        self._root_pid = root_pid
        self._seen: dict[int, float] = {}

    def take(self) -> None:
        """Add the root process and all below it to the account."""
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._root_pid)
            for process in (root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._seen[process.pid] = process.create_time()

    def left(self) -> list[str]:
        """The processes of the account that still run, and any other in the root's session, in words."""
        left = []
        for process in psutil.process_iter(["pid", "create_time", "status", "cmdline"]):
            if process.info["status"] == psutil.STATUS_ZOMBIE:
                continue
            counted = self._seen.get(process.info["pid"]) == process.info["create_time"]
            if counted or self._in_session(process.info["pid"]):
                left.append(f"{process.info['pid']}: {' '.join(process.info['cmdline'] or [])[:120]}")
        return left

    def _in_session(self, pid: int) -> bool:
        try:
            return os.getsid(pid) == self._root_pid
        except (ProcessLookupError, PermissionError):
            return False
