"""The ASGI app of a function: tells events, plain HTTP and the runtime's own addresses apart."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from torpor.binding import BATCH, STRUCTURED, media_type
from torpor.problems import ProblemType
from torpor.runtime import answers, metrics, plain
from torpor.runtime.documents import documents
from torpor.runtime.events import Events
from torpor.runtime.plan import Takes
from torpor.runtime.runtime import Runtime
from torpor.settings import RuntimeSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from torpor.runtime.load import Target

    Serve = Callable[[Runtime, Any, Any, Any, dict[bytes, bytes]], Awaitable[None]]

_LOG = logging.getLogger("torpor.runtime")

_MODES = frozenset((STRUCTURED, BATCH))
LIVE, READY, METRICS = "/healthz/live", "/healthz/ready", "/metrics"


class Application:
    """What the server calls, made before the fork; what belongs to one process comes with :meth:`bind`."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._runtime: Runtime | None = None
        self._events: Events | None = None
        self._takes_events = target.plan is not None and target.plan.takes is not Takes.REQUEST
        self._serve_plain: Serve = _plain(target)
        self._own: dict[str, Callable[[Runtime, Any], answers.Answer]] = {
            LIVE: _live,
            READY: _ready,
            METRICS: _metrics,
        }
        if target.app is None:
            self._own |= documents(target)

    def bind(self, settings: RuntimeSettings) -> Runtime:
        """Serve with ``settings`` from now on, in this process and on its event loop."""
        self._runtime = runtime = Runtime(self.target, settings)
        if self.target.plan is not None:
            runtime.events = Events(runtime, self.target.plan)
            if self._takes_events:
                self._events = runtime.events
        return runtime

    @property
    def runtime(self) -> Runtime:
        """What it is bound to; without :meth:`bind`, the settings' defaults."""
        return self._runtime or self.bind(RuntimeSettings())

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """Serve one connection, as ASGI has it; what is returned is awaited by the server."""
        runtime = self._runtime or self.runtime
        if scope["type"] != "http":
            return self._serve_other(runtime, scope, receive, send)
        own = self._own.get(scope["path"])
        if own is not None:
            return _answer_own(own(runtime, scope), send)
        headers: dict[bytes, bytes] = dict(scope["headers"])
        events = self._events
        if events is not None and scope["method"] == "POST":
            content_type = headers.get(b"content-type", b"")
            mode = b"" if content_type == b"application/json" else media_type(content_type)
            if (
                b"ce-specversion" in headers
                or mode in _MODES
                or b"ce-id" in headers
                or b"ce-type" in headers
                or b"ce-source" in headers
            ):
                call = runtime.begin(scope, headers, send)
                return runtime.run(call, events.serve(call, receive, mode))
        return self._serve_plain(runtime, scope, receive, send, headers)

    async def _serve_other(self, runtime: Runtime, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await plain.serve_websocket(runtime, scope, receive, send, dict(scope["headers"]))
        elif scope["type"] == "lifespan":
            await _lifespan(self.target, scope, receive, send)


def _plain(target: Target) -> Serve:
    if target.app is not None:
        return plain.serve_app
    if target.plan is not None and target.plan.takes is Takes.REQUEST:
        return plain.serve_request
    return plain.serve_value


async def _answer_own(answer: answers.Answer, send: Any) -> None:
    await send(answer.start)
    await send(answer.body)


def _live(runtime: Runtime, _scope: Any) -> answers.Answer:
    if runtime.doomed is not None:
        return answers.problem(
            ProblemType.UNAVAILABLE, f"This instance ends: {runtime.doomed}.", "", metrics.OK
        )
    return answers.answer(200, [(b"content-type", b"text/plain")], b"live\n", metrics.OK)


def _ready(runtime: Runtime, _scope: Any) -> answers.Answer:
    if runtime.doomed is not None:
        return _live(runtime, _scope)
    if runtime.draining:
        return answers.problem(ProblemType.DRAINING, "This instance is about to end.", "", metrics.OK)
    if not runtime.ready:
        return answers.problem(ProblemType.UNAVAILABLE, "This instance has not started yet.", "", metrics.OK)
    return answers.answer(200, [(b"content-type", b"text/plain")], b"ready\n", metrics.OK)


def _metrics(runtime: Runtime, _scope: Any) -> answers.Answer:
    text = metrics.exposition(runtime.metrics)
    return answers.answer(200, [(b"content-type", metrics.CONTENT_TYPE)], text, metrics.OK)


async def _lifespan(target: Target, scope: Any, receive: Any, send: Any) -> None:
    """The author's app starts and ends with the instance; without one there is nothing to start."""
    if target.app is not None:
        await target.app(scope, receive, send)
        return
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
