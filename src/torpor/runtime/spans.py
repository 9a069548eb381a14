"""Spans of calls, exported by OTLP where the standard variables say where to.

OpenTelemetry is imported when they do, which needs ``pip install 'torpor[otel]'``; its exporter starts a
thread, so it is made in the process that serves. Everything else that the standard says, such as headers
and sampling, OpenTelemetry reads from its own variables.

They go as JSON, which every collector takes at the same address: the modules for the other form are
overwritten by those of another package where the platform is installed too.

Sources: OpenTelemetry's semantic conventions for HTTP servers, function calls and CloudEvents.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from torpor.errors import StartError
from torpor.runtime.tracing import Trace, handed_in

if TYPE_CHECKING:
    from torpor.runtime.calls import Call
    from torpor.settings import RuntimeSettings

_LOG = logging.getLogger("torpor.runtime")


class Spans:
    """Makes one span of each call. Raises :class:`~torpor.errors.StartError` where OpenTelemetry is
    missing.
    """

    def __init__(self, settings: RuntimeSettings, name: str) -> None:
        try:
            from opentelemetry import trace  # noqa: PLC0415 - see the module's docstring
            from opentelemetry.exporter.otlp.json.http.trace_exporter import (  # noqa: PLC0415
                OTLPSpanExporter,
            )
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
            from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
                TraceContextTextMapPropagator,
            )
        except ModuleNotFoundError as error:
            raise StartError("exporting traces needs pip install 'torpor[otel]'") from error
        about = {
            "service.name": name,
            "service.namespace": settings.namespace,
            "service.version": settings.revision,
            "service.instance.id": settings.instance,
        }
        resource = Resource.create({key: value for key, value in about.items() if value})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(self._provider)  # so that an author's own spans go the same way
        self._trace: Any = trace
        self._tracer = self._provider.get_tracer("torpor")
        self._propagator = TraceContextTextMapPropagator()
        self._name = name

    def begin(self, call: Call) -> None:
        """Start the span of ``call``; from now on it is the place in the trace that is handed on."""
        from opentelemetry import context  # noqa: PLC0415

        event = call.events[0].attributes if call.events else {}
        parent = handed_in(call.headers, event)
        carrier = parent.attributes() if parent is not None else {}
        age_seconds = time.monotonic() - call.started
        attributes: dict[str, Any] = {"faas.name": self._name, "http.request.method": call.scope["method"]}
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
        span = self._tracer.start_span(
            self._name,
            context=self._propagator.extract(carrier),
            kind=self._trace.SpanKind.CONSUMER if event else self._trace.SpanKind.SERVER,
            attributes=attributes,
            start_time=time.time_ns() - int(age_seconds * 1e9),
        )
        context.attach(self._trace.set_span_in_context(span))
        told: dict[str, str] = {}
        self._propagator.inject(told, self._trace.set_span_in_context(span))
        call.trace = Trace(told["traceparent"], told.get("tracestate", ""))
        call.span = span

    def end(self, call: Call, outcome: str, status: int) -> None:
        """End the span of ``call``, which was answered with ``status``."""
        span = call.span
        if span is None:
            return
        call.span = None
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(self._trace.StatusCode.ERROR, outcome)
        span.end()

    def close(self, timeout_seconds: float) -> None:
        """Send what is left, within a time; blocks."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(timeout_seconds)
        if closing.is_alive():
            _LOG.warning("the last spans could not be sent in time")
