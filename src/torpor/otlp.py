"""Spans of one service, exported by OTLP where the standard variables say where to.

OpenTelemetry is imported when they do, which needs ``pip install 'torpor[otel]'``; its exporter starts a
thread, so it is made in the process that serves. Everything else that the standard says, such as headers,
sampling and the bounds of the queue, OpenTelemetry reads from its own variables. Beginning and ending a span
never waits: what can't be sent is dropped.

They go as JSON, which every collector takes at the same address: the modules for the other form are
overwritten by those of another package where the platform is installed too.
"""

from __future__ import annotations

import logging
import threading
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

from torpor.errors import StartError
from torpor.tracing import Trace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torpor.settings import TracedSettings

_LOG = logging.getLogger("torpor.traces")

Kind = Literal["server", "consumer", "internal"]
Attributes = dict[str, Any]
Span = Any
"""OpenTelemetry's."""


class Tracer:
    """Makes spans of the service that ``about`` describes, by attributes of a resource that may be empty.

    Raises :class:`~torpor.errors.StartError` where OpenTelemetry is missing.
    """

    def __init__(self, about: Mapping[str, str]) -> None:
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
        resource = Resource.create({key: value for key, value in about.items() if value})
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        """OpenTelemetry's."""
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._trace: Any = trace
        self._tracer = self.provider.get_tracer("torpor")
        self._propagator = TraceContextTextMapPropagator()

    def begin(
        self,
        name: str,
        kind: Kind,
        attributes: Attributes,
        *,
        parent: Trace | None,
        at_seconds: float,
    ) -> Span:
        """Begin a span that is a child of ``parent``, or a trace of its own, at a time since the epoch.

        One that is not sampled is not exported.
        """
        context = self._propagator.extract(parent.attributes() if parent else {})
        return self._begin(name, kind, attributes, context, at_seconds)

    def child(self, of: Span, name: str, attributes: Attributes, began: float, ended: float) -> None:
        """Make a whole span within ``of``, from and to times since the epoch (seconds)."""
        span = self._begin(name, "internal", attributes, self.context(of), began)
        span.end(_nanoseconds(ended))

    def end(
        self, span: Span, attributes: Attributes, *, failure: str | None, at_seconds: float | None = None
    ) -> None:
        """End a span, with what made it a failure if it is one, now or at a time since the epoch."""
        span.set_attributes(attributes)
        if failure is not None:
            span.set_status(self._trace.StatusCode.ERROR, failure)
        span.end(None if at_seconds is None else _nanoseconds(at_seconds))

    def context(self, span: Span) -> Any:
        """OpenTelemetry's context within ``span``."""
        return self._trace.set_span_in_context(span)

    def place(self, span: Span) -> Trace:
        """The place in the trace that is handed on from within ``span``."""
        told: dict[str, str] = {}
        self._propagator.inject(told, self.context(span))
        return Trace(told["traceparent"], told.get("tracestate", ""))

    def close(self, timeout_seconds: float) -> None:
        """Send what is left, within a time; blocks."""
        closing = threading.Thread(target=self.provider.shutdown, daemon=True)
        closing.start()
        closing.join(timeout_seconds)
        if closing.is_alive():
            _LOG.warning("the last spans could not be sent in time")

    def _begin(self, name: str, kind: Kind, attributes: Attributes, context: Any, at_seconds: float) -> Span:
        return self._tracer.start_span(
            name,
            context=context,
            kind=self._trace.SpanKind[kind.upper()],
            attributes=attributes,
            start_time=_nanoseconds(at_seconds),
        )


def part_tracer(
    part: str, settings: TracedSettings, namespace: str = "", instance: str = ""
) -> Tracer | None:
    """Where the spans of a part of the platform go, if the settings say that they are exported."""
    if not settings.traced:
        return None
    return Tracer(
        {
            "service.name": f"torpor-{part}",
            "service.namespace": namespace,
            "service.version": metadata.version("torpor"),
            "service.instance.id": instance,
        }
    )


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
