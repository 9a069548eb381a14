"""The broker and the events process of a platform on this machine: started, kept running, told what is
declared.

The sockets of ingress and control are bound here and inherited, so that while the process is started again
requests wait instead of being refused.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
from typing import TYPE_CHECKING

from torpor.children import Supervised, describe_exit, end, tied
from torpor.clock import cancel
from torpor.endpoint import socket_folder
from torpor.errors import EventLogError, StartError
from torpor.events.control import ControlClient
from torpor.events.declaration import Declaration, ServiceConfig
from torpor.local import ports
from torpor.local.brokers import choose
from torpor.local.reports import News, Report
from torpor.memory import private_bytes
from torpor.settings import PlatformSettings
from torpor.spec.status import PartStatus

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from torpor.binding import WireEvent
    from torpor.clock import Clock
    from torpor.endpoint import Endpoint
    from torpor.events.declaration import EventsState
    from torpor.events.declared import Callee
    from torpor.local.reports import Tell
    from torpor.scaling.backlog import Backlog
    from torpor.spec.models import Schedule, Trigger

_RETRY_SECONDS = 0.5
_TELL_SECONDS = 5.0
"""How long a start may take before a person is told what it waits for."""
_STOP_SECONDS = 15.0
_SAID_BYTES = 500


class EventsProcess:
    """Both, as one part of the platform. ``folder`` keeps the broker's data, counters and logs.

    ``broker`` is ``nats`` or ``kafka``, which are run here, or the URL of one that is there.
    """

    def __init__(
        self,
        folder: Path,
        blobs_url: str,
        log_level: str,
        clock: Clock,
        tell: Tell,
        *,
        broker: str = "nats",
        settings: PlatformSettings | None = None,
    ) -> None:
        self._folder = folder
        self._blobs_url = blobs_url
        self._log_level = log_level
        self._clock = clock
        self._tell = tell
        self._settings = settings or PlatformSettings.from_environment()
        self._broker = choose(broker, folder, self._settings, clock, self._broker_changed)
        self._process = Supervised("events", self._launch, clock, self._changed)
        self._ingress = ports.listen()
        self._control_listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sockets: Path | None = None
        self._client: ControlClient | None = None
        self._declaration: Declaration | None = None
        self.ingress: Endpoint = ports.address(self._ingress)
        """Where events come in."""

    async def start(self) -> None:
        """Start both. Raises :class:`~torpor.errors.StartError`."""
        await asyncio.to_thread(self._open_control)
        await self._broker.start()
        await self._process.start()

    async def close_dispatcher(self) -> None:
        """Let the deliveries under way end, and begin no others."""
        await self._process.close(_STOP_SECONDS)

    async def close(self) -> None:
        """End both; what waits stays on disk."""
        await self._process.close(_STOP_SECONDS)
        await self._broker.close()
        if self._client is not None:
            await self._client.close()
        self._ingress.close()
        self._control_listener.close()
        if self._sockets not in (None, self._folder):
            await asyncio.to_thread(shutil.rmtree, self._sockets, ignore_errors=True)

    def _open_control(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sockets = socket_folder(self._folder)
        path = self._sockets / "control"
        path.unlink(missing_ok=True)  # of a platform that was killed
        self._control_listener.bind(str(path))
        self._control_listener.listen(64)
        self._client = ControlClient(path)

    # --- what is asked of it --------------------------------------------------------------------------------

    async def declare(
        self,
        triggers: Sequence[Trigger],
        schedules: Sequence[Schedule],
        brokers: Sequence[str],
        functions: Mapping[str, Callee],
        gateway: Endpoint,
    ) -> None:
        """Have events made and delivered as declared, now and after each restart.

        ``gateway`` leads to the functions.
        Raises :class:`~torpor.errors.EventLogError`.
        """
        self._declaration = Declaration(
            triggers=tuple(triggers),
            schedules=tuple(schedules),
            brokers=tuple(brokers),
            functions=dict(functions),
            gateway=str(gateway),
        )
        await self._control.declare(self._declaration)

    @property
    def _control(self) -> ControlClient:
        if self._client is None:
            raise EventLogError("the events process was not started")
        return self._client

    async def state(self) -> EventsState:
        """All counters. Raises :class:`~torpor.errors.EventLogError`."""
        return await self._control.state()

    async def backlogs(self, wanted: Mapping[str, bool]) -> list[Mapping[str, Backlog]]:
        """What each events process, of which there is one here, says that waits in queues, by their keys.

        Raises :class:`~torpor.errors.EventLogError`.
        """
        return [await self._control.backlogs(wanted)]

    async def tail(self, broker_key: str) -> AsyncIterator[WireEvent]:
        """Events of a broker from now on. Raises :class:`~torpor.errors.EventLogError`."""
        return await self._control.tail(broker_key)

    @property
    def control(self) -> ControlClient:
        """Where the process is asked. Raises :class:`~torpor.errors.EventLogError` before its start."""
        return self._control

    async def parts(self) -> list[PartStatus]:
        """How both are."""
        detail = self._process.problem or ""
        if not detail:
            try:
                health = await self._control.health()
                detail = "" if health.connected else "waits for the broker"
            except EventLogError as error:
                detail = str(error)
        return [
            PartStatus(
                name="events",
                healthy=self._process.pid is not None and not detail,
                detail=detail,
                address=str(self.ingress),
                pid=self._process.pid,
                restarts=self._process.restarts,
                memory_bytes=private_bytes(self._process.pid),
            ),
            *self._broker.parts(),
        ]

    # --- its life -------------------------------------------------------------------------------------------

    def _changed(self, problem: str | None) -> None:
        self._tell(Report(News.PART, "events", problem or "is back"))

    def _broker_changed(self, name: str, problem: str | None) -> None:
        self._tell(Report(News.PART, name, problem or "is back"))

    async def _launch(self) -> Process:
        broker = self._broker.broker
        config = ServiceConfig(
            broker_url=broker.url,
            nats_token=broker.token,
            kafka_options=dict(broker.options),
            blobs_url=self._blobs_url,
            blobs_ttl_seconds=self._settings.blobs_ttl_seconds,
            claim_check_bytes=self._settings.claim_check_bytes,
            stats_path=str(self._folder / "counters.json"),
            log_level=self._log_level,
        )
        sockets = (self._ingress.fileno(), self._control_listener.fileno())
        with (self._folder / "events.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *tied(sys.executable, "-m", "torpor.events", *map(str, sockets)),
                pass_fds=sockets,
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the platform, which ends this in order
            )
        try:
            if process.stdin is not None:  # it is a pipe
                process.stdin.write(config.model_dump_json().encode() + b"\n")
            await self._introduce(process)
        except BaseException:
            await end(process, _STOP_SECONDS)
            raise
        return process

    async def _introduce(self, process: Process) -> None:
        """Wait until the process answers, and tell it what is declared."""
        ended = asyncio.ensure_future(process.wait())
        told = asyncio.ensure_future(self._tell_process())
        try:
            await asyncio.wait((ended, told), return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                return told.result()
            raise StartError(f"the events process {describe_exit(ended.result())}: {self._said()}")
        finally:
            await cancel(ended, told)

    async def _tell_process(self) -> None:
        began, told = self._clock.monotonic(), False
        while True:
            try:
                await self._control.health()
                if self._declaration is not None:
                    await self._control.declare(self._declaration)
            except EventLogError:  # the broker may be away as well
                if not told and self._clock.monotonic() - began >= _TELL_SECONDS:
                    told = True
                    self._changed(f"it waits for the broker at {self._broker.broker.shown}")
                await self._clock.sleep(_RETRY_SECONDS)
            else:
                return

    def _said(self) -> str:
        try:
            return (self._folder / "events.log").read_text("utf-8", "replace")[-_SAID_BYTES:].strip()
        except OSError:
            return "it said nothing"
