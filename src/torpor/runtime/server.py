"""Serves a prepared function until it is told to end, and then ends in the order that loses no request.

On SIGTERM an instance goes on serving until its connections are gone: its endpoint was taken out before,
and it is for the proxy to close what it no longer uses. Closing an idle connection from this side would
lose the request that is on its way on it. Answers given meanwhile say ``connection: close``. All of it is
bounded by ``drain_seconds``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import uvloop
from uvicorn.server import ServerState

from torpor.errors import StartError
from torpor.runtime import logs
from torpor.runtime.prepare import BACKLOG
from torpor.runtime.protocol import Sweeper
from torpor.runtime.watchdog import Watchdog

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from torpor.runtime.prepare import Prepared
    from torpor.settings import RuntimeSettings

_LOG = logging.getLogger("torpor.runtime")

EXIT_DOOMED = 70
"""Exit status of an instance that ends because a call in it can't be ended (EX_SOFTWARE)."""
QUIET_SECONDS = 0.2
"""How long there must have been no connection before an instance that drains ends."""
_LOOK_SECONDS = 0.02
_LAST_SECONDS = 5.0
_DOOMED_SECONDS = 10.0


def serve(
    prepared: Prepared,
    settings: RuntimeSettings,
    listener: socket.socket,
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Serve on ``listener``, which is bound and listens, until SIGTERM or SIGINT; then drain and return.

    ``on_ready`` is called once, when requests are accepted. Logging of the process is set up here. An
    instance in which a call can't be ended leaves the process itself, with status 70. Raises
    :class:`~torpor.errors.StartError` when the app's own start fails.
    """
    logs.configure(settings, prepared.target.name)
    _Instance(prepared, settings, listener, on_ready).run()


class _Instance:
    def __init__(
        self,
        prepared: Prepared,
        settings: RuntimeSettings,
        listener: socket.socket,
        on_ready: Callable[[], None] | None,
    ) -> None:
        self._prepared = prepared
        self._settings = settings
        self._listener = listener
        self._on_ready = on_ready
        self._began = time.perf_counter()
        self._state = ServerState()
        self._signals = 0

    def run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._runtime = runtime = self._prepared.app.bind(self._settings)
        self._told = asyncio.Event()
        runtime.on_doom = self._told.set
        if self._settings.traced:
            from torpor.runtime.spans import Spans  # noqa: PLC0415 - imports OpenTelemetry

            try:
                runtime.spans = Spans(self._settings, runtime.name)
            except StartError as error:  # a platform says it to all functions, with OpenTelemetry or without
                _LOG.warning("no spans are exported: %s", error)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        watchdog = Watchdog(runtime.calls)
        watchdog.start()
        lifespan = self._prepared.config.lifespan_class(self._prepared.config)
        began = time.perf_counter()
        await lifespan.startup()
        if lifespan.should_exit:
            raise StartError(f"the app of '{runtime.name}' failed to start; its log says why")
        started = time.perf_counter()
        server = await loop.create_server(
            lambda: self._protocol(lifespan.state), sock=self._listener, backlog=BACKLOG
        )
        sweeper = Sweeper(self._state)
        sweeper.start()
        runtime.ready = True
        accepting = time.perf_counter()
        runtime.metrics.start_seconds.update(
            self._prepared.seconds,
            bind=began - self._began,
            lifespan=started - began,
            listen=accepting - started,
        )
        if self._on_ready is not None:
            self._on_ready()
        await self._told.wait()
        await self._drain(server)
        await self._end(lifespan)
        sweeper.stop()
        watchdog.stop()
        if runtime.doomed is not None:
            _leave()

    def _protocol(self, state: dict[str, Any]) -> asyncio.Protocol:
        config = self._prepared.config
        protocol: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]
            config=config, server_state=self._state, app_state=state
        )
        return protocol

    def _on_signal(self) -> None:
        self._signals += 1
        self._told.set()

    # --- the end ------------------------------------------------------------------------------------------

    async def _drain(self, server: asyncio.AbstractServer) -> None:
        """Serve on until nobody is connected, or the time for it is up."""
        runtime = self._runtime
        runtime.draining = True
        self._state.default_headers.append((b"connection", b"close"))
        limit = self._settings.drain_seconds
        if runtime.doomed is not None:
            # Nobody withdrew the endpoint: take no new connections, so that the proxy goes elsewhere.
            server.close()
            limit = min(limit, _DOOMED_SECONDS)
        end = time.monotonic() + limit
        quiet = 0
        while (now := time.monotonic()) < end and self._signals < 2:
            # Looks are counted, not time: a machine that is too busy to let this process run would make the
            # time pass without a look at who wants to connect.
            quiet = 0 if self._busy() else quiet + 1
            if quiet > QUIET_SECONDS / _LOOK_SECONDS:
                break
            await asyncio.sleep(min(_LOOK_SECONDS, max(0.0, end - now)))
        server.close()
        if self._busy():
            _LOG.warning(
                "draining took too long: %d connections and %d calls are cut",
                len(self._state.connections),
                len(runtime.calls),
            )

    def _busy(self) -> bool:
        if self._runtime.doomed is not None:
            return len(self._runtime.calls) > 0
        return bool(self._state.connections or len(self._runtime.calls))

    async def _end(self, lifespan: Any) -> None:
        runtime = self._runtime
        cut = runtime.calls.cancel_all()
        runtime.workers.close()
        if cut:
            await asyncio.wait(cut, timeout=_LAST_SECONDS)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(lifespan.shutdown(), _LAST_SECONDS)
        if runtime.spans is not None:
            runtime.spans.close(_LAST_SECONDS)
        for connection in list(self._state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()


def _leave() -> None:
    """End the process though a thread in it does not."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(EXIT_DOOMED)
