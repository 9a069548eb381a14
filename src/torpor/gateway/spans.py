"""A span of each request that was held for an instance, with the phases that it waited for within.

It begins as the request comes and ends as its answer does begin; what the function does is its own span, and
within this one, since the request is passed on with this place in the trace. A request that finds an instance
has none: the gateway does not come between.

Sources: OpenTelemetry's semantic conventions for HTTP servers, function calls and CloudEvents; W3C Trace
Context, section 3.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING
from urllib.parse import unquote

from torpor.gateway.starts import waited
from torpor.scaling.waiting import Waiting
from torpor.tracing import Trace, handed_in

if TYPE_CHECKING:
    from torpor.clock import Clock
    from torpor.gateway.caller import Request
    from torpor.gateway.starts import Start
    from torpor.otlp import Attributes, Span, Tracer

_NAME = "cold start"
# Of very many that wait for one start, the phases of some say it all, and cost the others no time.
_MOST_DETAILED = 100
_MOST_WAITS = 500
# By then it is known how a pod came to run: it is ready.
_KEPT_SECONDS = 15.0
_CONTEXT = (b"traceparent", b"tracestate")
_EVENT = {b"ce-id": "event_id", b"ce-source": "event_source", b"ce-type": "event_type"}


class Wait:
    """What a held request waits for; ``since`` then (monotonic seconds)."""

    def __init__(self, since: float, start: Start) -> None:
        self.since = since
        self.until: float | None = None
        self.start = start
        self.span: Span = None
        self.detailed = False
        """Whether its phases are told."""
        self.epoch = 0.0
        """What makes of monotonic seconds those since the epoch, the same for all of its spans."""


class ColdStartSpans:
    """Makes them. Nothing here waits, or fails a request."""

    def __init__(self, tracer: Tracer, clock: Clock) -> None:
        self._tracer = tracer
        self._clock = clock
        self._waits: deque[tuple[str, Trace, Wait]] = deque(maxlen=_MOST_WAITS)

    def begin(self, request: Request, wait: Wait) -> None:
        """Begin the span of a request that waits from now on, and have it passed on from within."""
        headers = dict(request.headers)
        parent = _parent(headers)
        wait.epoch = self._clock.now() - self._clock.monotonic()
        wait.span = self._tracer.begin(
            _NAME,
            "server",
            _attributes(request, headers),
            parent=parent,
            at_seconds=wait.epoch + wait.since,
        )
        if parent is not None and not wait.span.is_recording():
            return  # its caller's decision goes on with its caller's place
        place = self._tracer.place(wait.span)
        request.headers = [header for header in request.headers if header[0] not in _CONTEXT]
        request.headers += [(name.encode(), value.encode()) for name, value in place.attributes().items()]
        if wait.span.is_recording() and wait.start.traced < _MOST_DETAILED:
            wait.start.traced += 1
            wait.detailed = True
            self._waits.append((request.function, place, wait))

    def waiting(self, function: str) -> list[Waiting]:
        """The requests that wait for a function, or just did; of very many the last ones."""
        now = self._clock.monotonic()
        return [
            Waiting(place, now - wait.since, None if wait.until is None else now - wait.until)
            for key, place, wait in self._waits
            if key == function and (wait.until is None or now - wait.until < _KEPT_SECONDS)
        ]

    def end(self, wait: Wait, status: int | None, failure: str | None = None) -> None:
        """End the span: the request was answered with ``status``, by the function if ``failure`` does not say
        why it was not; without a status nobody is there to answer.
        """
        span, until = wait.span, self._clock.monotonic()
        if span is None or not span.is_recording():
            return
        wait.until = until
        if wait.detailed:
            for phase, began, ended in waited(wait.start, wait.since, until, answered=failure is None):
                self._tracer.child(span, phase, {}, wait.epoch + began, wait.epoch + ended)
        attributes: Attributes = {} if status is None else {"http.response.status_code": status}
        if failure is None and status is not None and status >= 500:
            failure = str(status)
        if failure is not None:
            attributes["error.type"] = failure
        self._tracer.end(span, attributes, failure=failure, at_seconds=wait.epoch + until)


def _parent(headers: dict[bytes, bytes]) -> Trace | None:
    """Where the request comes from, by the same rule as the function's runtime has."""
    event = {
        name.decode(): unquote(headers[b"ce-" + name].decode("latin-1"))
        for name in _CONTEXT
        if b"ce-" + name in headers
    }
    return handed_in(headers, event)


def _attributes(request: Request, headers: dict[bytes, bytes]) -> Attributes:
    event = {
        f"cloudevents.{ours}": unquote(headers[name].decode("latin-1"))
        for name, ours in _EVENT.items()
        if name in headers
    }
    attributes: Attributes = {
        "faas.name": request.function.rpartition("/")[2],
        "faas.coldstart": True,
        "faas.trigger": "pubsub" if event else "http",
        "torpor.function": request.function,
        "http.request.method": request.method.decode("latin-1"),
        "url.path": request.target.partition(b"?")[0].decode("latin-1"),
        **event,
    }
    if request.request_id is not None:
        attributes["http.request.header.x-request-id"] = (request.request_id,)
    return attributes
