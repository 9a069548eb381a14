"""An events pod: ingress, scheduler and dispatcher, fed by what the Kubernetes API has of Functions, Triggers
and Schedules.

Several of them work on one event log. Each takes in events, fires schedules, and delivers those of plain
triggers; what can
have but one worker is done by the one that leads. The lease decides who begins, and the log shuts out whoever
led before, so that a leader goes on while the API server is away.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

from torpor.clock import alongside, cancel, first_of
from torpor.cluster import names
from torpor.cluster.declarations import Declarations, kept
from torpor.errors import ClusterError, EventLogError
from torpor.events.blob_keeper import blob_keeper
from torpor.events.brokers import Broker, read_options
from torpor.events.callback_urls import REFUSED
from torpor.events.claims import BlobOptions
from torpor.events.control_app import ControlApp
from torpor.events.service import Service, collect_seldom, connect
from torpor.problems import ProblemType
from torpor.providers.kubernetes import resources
from torpor.providers.kubernetes.leader import Leader
from torpor.providers.kubernetes.mirror import Mirror
from torpor.serving import answer, listen, refuse, serving

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any

    from torpor.clock import Clock
    from torpor.events.declaration import Declaration
    from torpor.events.strays import Stray
    from torpor.providers.kubernetes.kube import Kube
    from torpor.serving import Receive, Scope, Send
    from torpor.settings import EventsSettings

_LOG = logging.getLogger("torpor.events")
LEASE = "torpor-events"
FORGET_SECONDS = 30.0
"""How long what belongs to no trigger is kept before it is removed."""
_GATHER_SECONDS = 0.05  # changes that come together are taken in together
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 5.0
_REQUESTS_SECONDS = 5
_CONTROL_SECONDS = 1
_TEXT = b"text/plain; charset=utf-8"


class EventsPod:
    """Everything that an events pod's process runs."""

    def __init__(self, kube: Kube, clock: Clock, settings: EventsSettings) -> None:
        self._kube = kube
        self._clock = clock
        self._settings = settings
        self._declarations = Declarations(
            settings.gateway or f"{names.GATEWAY_INTERNAL}.{settings.namespace}.svc:{names.INTERNAL_PORT}"
        )
        self._news = asyncio.Event()
        self._functions = Mirror(kube, resources.FUNCTIONS, clock, lambda _: self._news.set())
        self._triggers = Mirror(kube, resources.TRIGGERS, clock, lambda _: self._news.set())
        self._schedules = Mirror(kube, resources.SCHEDULES, clock, lambda _: self._news.set())
        self._name = settings.identity or socket.gethostname()
        self._leader = Leader(
            kube,
            clock,
            namespace=settings.namespace,
            name=LEASE,
            identity=self._name,
            outlasts=True,
        )
        self._declared: Declaration | None = None
        self._service: Service | None = None
        self._control: ControlApp | None = None
        self._open = self._leaving = False
        self.ports: dict[str, int] = {}
        """``http`` and ``agent``, once they are open."""

    @property
    def ready(self) -> bool:
        """Whether producers may be sent here."""
        service = self._service
        return self._open and not self._leaving and service is not None and service.connected

    @property
    def leads(self) -> bool:
        """Whether it does what one pod alone does."""
        return self._leader.leading

    async def run(self, ending: asyncio.Event) -> None:
        """Serve until ``ending`` is set, and then until nobody is sent here and nothing is under way."""
        settings = self._settings
        async with serving(
            self._agent, self._listen("agent", settings.health_port), grace_seconds=_CONTROL_SECONDS
        ):
            options = await read_options(settings.kafka_options)
            broker = Broker(settings.broker_url, settings.nats_token, options, settings.nats_copies)
            log = await connect(broker, self._clock, ending)
            if log is None:
                return
            log.on_reconnect(self._doubt)
            collect_seldom()
            service = Service(
                log,
                self._clock,
                blobs=self._blobs(),
                shared=True,
                name=self._name,
                callbacks_refused=settings.callbacks_refused or REFUSED,
            )
            self._service = service
            self._control = ControlApp(service, self._clock, declares=False)
            try:
                await self._work(service, ending)
            finally:
                self._control.end()
                await service.close(0.0)

    def _blobs(self) -> BlobOptions | None:
        settings = self._settings
        if not settings.blobs_store:
            _LOG.warning(
                "there is no place for blobs (TORPOR_BLOBS_STORE, the chart's blobs.url): "
                "events that are too large for the broker are refused, and functions have no blobs"
            )
            return None
        keeper = blob_keeper(
            settings.blobs_store,
            self._clock,
            nats_token=settings.nats_token,
            nats_copies=settings.nats_copies,
        )
        url = settings.blobs_url or names.blobs_url(settings.namespace)
        return BlobOptions(url, keeper, settings.blobs_ttl_seconds, settings.claim_check_bytes)

    async def _work(self, service: Service, ending: asyncio.Event) -> None:
        mirrors = (self._functions, self._triggers, self._schedules)
        tasks = [asyncio.create_task(mirror.run()) for mirror in mirrors]
        tasks.append(asyncio.create_task(self._declare_for_ever(service)))
        try:
            await alongside(first_of(service.declared.wait(), ending.wait()), tasks)
            if ending.is_set():
                return
            tasks.append(asyncio.create_task(self._leader.run(lambda: self._lead(service))))
            ingress = self._listen("http", self._settings.http_port)
            async with serving(self._ingress, ingress, grace_seconds=_REQUESTS_SECONDS):
                self._open = True
                await alongside(ending.wait(), tasks)
                await self._leave(service, tasks)
        finally:
            await cancel(*tasks)

    async def _leave(self, service: Service, tasks: list[asyncio.Task[None]]) -> None:
        """Not ready from now on; whoever has not heard of it yet is served, and others take over."""
        self._leaving = True
        for task in reversed(tasks):  # who leads gives up the lead first
            await cancel(task)
        await service.halt()
        await asyncio.gather(
            self._clock.sleep(self._settings.leave_seconds), service.finish(self._settings.finish_seconds)
        )

    # --- what is declared -----------------------------------------------------------------------------------

    def _doubt(self) -> None:
        """Whatever was made in the log may be gone."""
        self._declared = None
        self._news.set()

    async def _declare_for_ever(self, service: Service) -> None:
        await self._functions.synced.wait()
        await self._triggers.synced.wait()
        await self._schedules.synced.wait()
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            self._news.clear()
            declaration = self._declarations.read(
                self._functions.items, self._triggers.items, self._schedules.items
            )
            if declaration != self._declared:
                self._declared = declaration
                try:
                    await service.declare(declaration)
                except EventLogError as error:
                    _LOG.warning("what is declared can't be worked on yet: %s", error)
                    self._declared = None
                    await self._clock.sleep(pause_seconds)
                    pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
                    continue
                pause_seconds = _FIRST_PAUSE_SECONDS
            await self._news.wait()
            await self._clock.sleep(_GATHER_SECONDS)

    # --- what one pod alone does ----------------------------------------------------------------------------

    async def _lead(self, service: Service) -> None:
        dispatcher = service.dispatcher
        try:
            while True:
                try:
                    await dispatcher.lead(True)
                    break
                except EventLogError as error:
                    _LOG.warning("the lead can't be taken up yet: %s", error)
                    await self._clock.sleep(_FIRST_PAUSE_SECONDS)
            keeping = asyncio.create_task(service.keep_blobs())
            try:
                ended = first_of(dispatcher.superseded.wait(), self._forget_for_ever(service))
                await alongside(ended, [keeping])
            finally:
                await cancel(keeping)
            _LOG.warning("another pod joins already, the lead is given up")
        finally:
            try:
                await dispatcher.lead(False)
            except EventLogError as error:
                _LOG.warning("triggers can't be watched yet: %s", error)
                self._doubt()

    async def _forget_for_ever(self, service: Service) -> None:
        """Remove what belongs to no trigger, schedule or function, when that is sure."""
        before: set[Stray] = set()
        schedules_before: set[str] = set()
        functions_before: set[str] = set()
        while True:
            await self._clock.sleep(FORGET_SECONDS)
            try:
                before = await self._forget(service, before)
                schedules_before = await self._forget_schedules(service, schedules_before)
                functions_before = await self._forget_functions(service, functions_before)
            except (ClusterError, EventLogError) as error:
                _LOG.warning("what belongs to nothing that is declared can't be removed yet: %s", error)

    async def _forget(self, service: Service, before: set[Stray]) -> set[Stray]:
        found = await service.dispatcher.strays()
        if sure := found & before:
            # Read from the API server itself: another pod may know of a trigger that is not known here yet.
            listed = await self._kube.list(resources.TRIGGERS)
            await service.dispatcher.remove(sure - kept(listed.items))
        return found

    async def _forget_schedules(self, service: Service, before: set[str]) -> set[str]:
        found = await service.scheduler.strays()
        if sure := found & before:
            listed = await self._kube.list(resources.SCHEDULES)
            await service.scheduler.remove(sure - {resources.key(item) for item in listed.items})
        return found

    async def _forget_functions(self, service: Service, before: set[str]) -> set[str]:
        found = await service.call_workers.strays()
        if sure := found & before:
            listed = await self._kube.list(resources.FUNCTIONS)
            await service.call_workers.remove(sure - {resources.key(item) for item in listed.items})
        return found

    # --- HTTP -----------------------------------------------------------------------------------------------

    def _listen(self, name: str, port: int) -> socket.socket:
        listener = listen(self._settings.host, port)
        self.ports[name] = listener.getsockname()[1]
        return listener

    async def _agent(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == "/healthz/live":
            await answer(send, 200, _TEXT, b"ok\n")
        elif path == "/healthz/ready":
            ready = self.ready
            await answer(send, 200 if ready else 503, _TEXT, b"ok\n" if ready else b"not ready\n")
        elif self._control is None:
            await refuse(send, ProblemType.UNAVAILABLE, "there is no connection to the broker yet")
        else:
            await self._control(scope, receive, send)

    async def _ingress(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = self._service
        if service is None:
            raise RuntimeError("the ingress is served before there is a service")

        async def leaving(message: MutableMapping[str, Any]) -> None:
            if self._leaving and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await service.ingress(scope, receive, leaving)
