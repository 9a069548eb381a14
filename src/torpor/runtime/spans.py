"""Spans of calls.

Sources: OpenTelemetry's semantic conventions for HTTP servers, function calls and CloudEvents.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from torpor.otlp import Attributes, Tracer
from torpor.tracing import handed_in

if TYPE_CHECKING:
    from torpor.runtime.calls import Call
    from torpor.settings import RuntimeSettings


class Spans:
    """Makes one span of each call. Raises :class:`~torpor.errors.StartError` where OpenTelemetry is
    missing.
    """

    def __init__(self, settings: RuntimeSettings, name: str) -> None:
        self._tracer = Tracer(
            {
                "service.name": name,
                "service.namespace": settings.namespace,
                "service.version": settings.revision,
                "service.instance.id": settings.instance,
            }
        )
        from opentelemetry import trace  # noqa: PLC0415 - it is there, or the tracer had said so

        trace.set_tracer_provider(self._tracer.provider)  # so that an author's own spans go the same way
        self._name = name

    def begin(self, call: Call) -> None:
        """Start the span of ``call``; from now on it is the place in the trace that is handed on."""
        from opentelemetry import context  # noqa: PLC0415

        event = call.events[0].attributes if call.events else {}
        age_seconds = time.monotonic() - call.started
        attributes: Attributes = {"faas.name": self._name, "http.request.method": call.scope["method"]}
        if event:
            attributes |= {
                "faas.trigger": "pubsub",
                "cloudevents.event_id": event["id"],
                "cloudevents.event_source": event["source"],
                "cloudevents.event_type": event["type"],
                "messaging.batch.message_count": len(call.events),
            }
        else:
            attributes |= {"faas.trigger": "http", "url.path": call.scope["path"]}
        span = self._tracer.begin(
            self._name,
            "consumer" if event else "server",
            attributes,
            parent=handed_in(call.headers, event),
            at_seconds=time.time() - age_seconds,
        )
        context.attach(self._tracer.context(span))
        call.trace = self._tracer.place(span)
        call.span = span

    def end(self, call: Call, outcome: str, status: int) -> None:
        """End the span of ``call``, which was answered with ``status``."""
        span = call.span
        if span is None:
            return
        call.span = None
        failure = outcome if status >= 500 else None
        self._tracer.end(span, {"http.response.status_code": status}, failure=failure)

    def close(self, timeout_seconds: float) -> None:
        """Send what is left, within a time; blocks."""
        self._tracer.close(timeout_seconds)
