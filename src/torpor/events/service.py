"""The events process: ingress, dispatcher, and a small control API for the platform that started it.

It keeps nothing that counts: what waits is in the event log, what is declared is told to it again after each
start. Until then no producer is served: requests wait in the backlog of the ingress' socket, which the
platform holds, so that a restart refuses nobody.

Control API, HTTP on a unix socket: ``PUT /declared``, ``GET /state``, ``GET /health``,
``GET /tail/<namespace>/<broker>`` (a line of JSON for each event), ``GET /metrics``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError

from torpor.binding import encode_structured
from torpor.blobs import BlobStore
from torpor.clock import first_of
from torpor.errors import EventLogError, TorporError
from torpor.events import names
from torpor.events.claims import Claims
from torpor.events.declaration import Declaration, EventsHealth, EventsState, TriggerReport
from torpor.events.dispatcher import Dispatcher
from torpor.events.http_sender import GatewaySender
from torpor.events.ingress import Ingress
from torpor.events.jetstream import JetStreamLog
from torpor.events.stats import Stats
from torpor.problems import Problem, ProblemType
from torpor.transport import Client

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from torpor.clock import Clock
    from torpor.events.declaration import ServiceConfig
    from torpor.events.ingress import Receive, Scope, Send

_LOG = logging.getLogger("torpor.events")
_MAX_CONTROL_BYTES = 64 * 1024 * 1024
_MAX_CONNECTIONS = 4096
_GRACE_SECONDS = 5
_SAVE_SECONDS = 1.0
_RECONNECT_SECONDS = 0.5
_HEARTBEAT_SECONDS = 15.0
_JSON = b"application/json"


class Service:
    """Everything that the process runs."""

    def __init__(self, log: JetStreamLog, config: ServiceConfig, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._stats = Stats()
        self._stats_path = Path(config.stats_path) if config.stats_path else None
        claims = Claims(BlobStore(config.blobs_url) if config.blobs_url else None)
        self._client = Client(max_connections_per_endpoint=_MAX_CONNECTIONS, clock=clock)
        self._sender = GatewaySender(self._client)
        self._dispatcher = Dispatcher(log, self._sender, clock, claims=claims, stats=self._stats)
        self.ingress = Ingress(log, claims=claims, stats=self._stats)
        self._registry = CollectorRegistry()
        self._registry.register(self._stats)
        self._declared = asyncio.Event()
        self.ending = asyncio.Event()

    async def run(self, ingress: socket.socket, control: socket.socket) -> None:
        """Serve until :attr:`ending` is set."""
        await asyncio.to_thread(self._load_stats)
        saver = asyncio.create_task(self._save_for_ever())
        try:
            async with _serving(self.control, control):
                await first_of(self._declared.wait(), self.ending.wait())
                if not self.ending.is_set():
                    async with _serving(self.ingress, ingress):
                        await self.ending.wait()
        finally:
            await self._dispatcher.close()
            await self._client.close()
            await self._log.close()
            saver.cancel()
            await asyncio.gather(saver, return_exceptions=True)
            await asyncio.to_thread(self._save_stats)

    # --- what the control API does --------------------------------------------------------------------------

    async def declare(self, declaration: Declaration) -> None:
        """Bring everything to what is declared. Raises :class:`~torpor.errors.EventLogError`."""
        self._sender.gateway = declaration.endpoint()
        declared = declaration.declared()
        await self._dispatcher.apply(declared)
        self._stats.forget_all_but([trigger.key for trigger in declaration.triggers])
        self.ingress.set_brokers(declared.all_brokers())
        self._declared.set()

    async def state(self) -> EventsState:
        """All counters."""
        states = await self._dispatcher.states()
        return EventsState(
            published_by_broker=dict(self._stats.published),
            refused=dict(self._stats.refused),
            triggers={
                key: TriggerReport(
                    delivered=state.counts.delivered,
                    redelivered=state.counts.redelivered,
                    failed=state.counts.failed,
                    dead_lettered=state.counts.dead_lettered,
                    pending=state.pending,
                    problem=state.problem,
                )
                for key, state in states.items()
            },
        )

    def health(self) -> EventsHealth:
        """How the process is."""
        return EventsHealth(
            connected=self._log.connected, declared=self._declared.is_set(), busy=self._dispatcher.busy
        )

    async def control(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The control API, as an ASGI application."""
        method, path = scope["method"], scope["path"]
        try:
            if (method, path) == ("PUT", "/declared"):
                await self._put_declared(receive)
                await _send(send, 204, _JSON, b"")
            elif (method, path) == ("GET", "/state"):
                await _send(send, 200, _JSON, (await self.state()).model_dump_json().encode())
            elif (method, path) == ("GET", "/health"):
                await _send(send, 200, _JSON, self.health().model_dump_json().encode())
            elif (method, path) == ("GET", "/metrics"):
                metrics = generate_latest(self._registry)
                await _send(send, 200, CONTENT_TYPE_LATEST.encode(), metrics)
            elif method == "GET" and path.startswith("/tail/"):
                await self._tail(path.removeprefix("/tail/"), receive, send)
            else:
                await _refuse(send, ProblemType.NOT_FOUND, f"{method} {path[:200]} is not known")
        except ValidationError as error:
            await _refuse(send, ProblemType.MALFORMED_REQUEST, str(error))
        except TorporError as error:
            await _refuse(send, ProblemType.UNAVAILABLE, str(error))

    async def _put_declared(self, receive: Receive) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if message["type"] == "http.disconnect" or len(body) > _MAX_CONTROL_BYTES:
                raise EventLogError("the declaration did not come whole")
            if not message.get("more_body", False):
                break
        await self.declare(Declaration.model_validate_json(body, strict=False))

    async def _tail(self, broker_key: str, receive: Receive, send: Send) -> None:
        tail = await self._log.tail(names.broker_stream(broker_key))
        headers = [(b"content-type", b"application/x-ndjson")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            await first_of(_forward(tail, send), _disconnected(receive), self.ending.wait(), self._beat(send))
        finally:
            await tail.aclose()
        with contextlib.suppress(OSError):
            await send({"type": "http.response.body", "body": b""})

    async def _beat(self, send: Send) -> None:
        """Blank lines, by which each side notices that the other is gone."""
        while True:
            await send({"type": "http.response.body", "body": b"\n", "more_body": True})
            await self._clock.sleep(_HEARTBEAT_SECONDS)

    # --- counters -------------------------------------------------------------------------------------------

    async def _save_for_ever(self) -> None:
        saved = b""
        while True:
            await self._clock.sleep(_SAVE_SECONDS)
            if (now := self._stats.dump()) != saved:
                await asyncio.to_thread(self._save_stats)
                saved = now

    def _save_stats(self) -> None:
        if self._stats_path is None:
            return
        new = self._stats_path.with_suffix(".new")
        try:
            new.write_bytes(self._stats.dump())
            new.replace(self._stats_path)
        except OSError as error:
            _LOG.warning("the counters could not be saved", extra={"error": str(error)})

    def _load_stats(self) -> None:
        if self._stats_path is None:
            return
        try:
            self._stats.load(self._stats_path.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError) as error:
            _LOG.warning("the counters begin anew", extra={"error": str(error)})


async def connect(config: ServiceConfig, clock: Clock) -> JetStreamLog:
    """Connect to the event log, however long that takes."""
    while True:
        try:
            return await JetStreamLog.connect(
                config.nats_url, token=config.nats_token, name="torpor-events", clock=clock
            )
        except EventLogError as error:
            _LOG.warning("waiting for the event log", extra={"error": str(error)})
            await clock.sleep(_RECONNECT_SECONDS)


@contextlib.asynccontextmanager
async def _serving(app: object, listener: socket.socket) -> AsyncIterator[None]:
    """Serve ``app`` on ``listener`` until the block is left; requests under way are then finished."""
    # uvicorn's own main loop is left out: it handles signals and polls ten times a second.
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        interface="asgi3",
        proxy_headers=False,
        lifespan="off",
        ws="none",
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    try:
        yield
    finally:
        await server.shutdown(sockets=[listener])


async def _forward(tail: AsyncIterator[object], send: Send) -> None:
    async for stored in tail:
        line = encode_structured(stored.event) + b"\n"  # type: ignore[attr-defined]
        await send({"type": "http.response.body", "body": line, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, status: int, content_type: bytes, body: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    if status == 204:
        headers = []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse(send: Send, kind: ProblemType, detail: str) -> None:
    problem = Problem(kind, detail)
    body = problem.body()
    await send({"type": "http.response.start", "status": problem.status, "headers": problem.headers(body)})
    await send({"type": "http.response.body", "body": body})
