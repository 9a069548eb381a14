"""uvicorn's HTTP protocol, but for what it does for each request that can be done more cheaply.

uvicorn sets a timer after each answer, and keeps a list of tasks. Here a connection only remembers when it
was last of use, and one sweep over all of them ends those that are idle for longer than any proxy in front
would leave them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from torpor.serving import LingeringProtocol

if TYPE_CHECKING:
    from uvicorn.server import ServerState

KEEP_ALIVE_SECONDS = 660.0
"""How long an idle connection is kept: longer than any proxy in front keeps it, so that the proxy closes it.

Envoy here closes after 60 seconds, and Google's load balancer, the longest of the common ones, after 600.
"""
_SWEEP_SECONDS = 60.0


class Protocol(LingeringProtocol):
    """One connection."""

    idle_since: float | None = None
    """When its last answer was given (monotonic seconds of the loop), unless a request is under way."""

    def connection_made(self, transport: Any) -> None:
        """A connection that sends nothing is idle from the start."""
        super().connection_made(transport)
        self.idle_since = self.loop.time()

    def on_message_begin(self) -> None:
        """A request begins."""
        self.idle_since = None
        super().on_message_begin()

    def on_response_complete(self) -> None:
        """An answer was given; a request that came meanwhile is served now."""
        self.server_state.total_requests += 1
        if self._lingers or self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self.idle_since = self.loop.time()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Serve a request in a task of its own, which the call under way refers to while it lasts."""
        cycle.transport = self._ending
        self.loop.create_task(cycle.run_asgi(app))


def write_whole(send: Any, start: dict[str, Any], body: bytes) -> bool:
    """Write a whole answer at once, if ``send`` is uvicorn's and nothing about the request is out of the
    ordinary.

    ``start`` is its first message, whose headers say how long ``body`` is. Returns whether it was written; if
    not, it has to be sent as ASGI has it.
    """
    cycle = getattr(send, "__self__", None)
    if (
        type(cycle) is not RequestResponseCycle
        or cycle.response_started
        or cycle.disconnected
        or cycle.flow.write_paused
        or not cycle.keep_alive
        or cycle.default_headers
        or cycle.scope["method"] == "HEAD"
    ):
        return False
    parts = [STATUS_LINE[start["status"]]]
    for name, value in start["headers"]:
        parts += (name, b": ", value, b"\r\n")
    parts += (b"\r\n", body)
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"".join(parts))
    cycle.message_event.set()
    cycle.on_response()
    return True


class Sweeper:
    """Ends idle connections of ``state``, while there are any."""

    def __init__(self, state: ServerState, keep_alive_seconds: float = KEEP_ALIVE_SECONDS) -> None:
        self._state = state
        self._keep_alive_seconds = keep_alive_seconds
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Sweep from now on."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(min(_SWEEP_SECONDS, self._keep_alive_seconds), self._sweep)

    def stop(self) -> None:
        """Sweep no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in list(self._state.connections):
            since = connection.idle_since if isinstance(connection, Protocol) else None
            if since is not None and now - since > self._keep_alive_seconds:
                connection.transport.close()
        self.start()
