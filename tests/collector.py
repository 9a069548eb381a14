"""An OTLP/HTTP collector that keeps what it is sent."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class Span:
    """One span, and the service that it is of."""

    def __init__(self, document: dict[str, Any], service: str) -> None:
        self.service = service
        self.name: str = document["name"]
        self.kind: int = document["kind"]
        self.trace: str = document["traceId"]
        self.id: str = document["spanId"]
        self.parent: str = document.get("parentSpanId", "")
        self.began = int(document["startTimeUnixNano"]) / 1e9
        self.ended = int(document["endTimeUnixNano"]) / 1e9
        self.attributes = _values(document.get("attributes", ()))
        self.status: dict[str, Any] = document.get("status", {})


class Collector:
    """What has come so far; ``url`` is for ``OTEL_EXPORTER_OTLP_ENDPOINT``."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Span] = []

    def take(self, document: dict[str, Any]) -> None:
        """Keep one export."""
        for resource in document["resourceSpans"]:
            service = _values(resource["resource"]["attributes"])["service.name"]
            for scope in resource["scopeSpans"]:
                self.spans += [Span(span, service) for span in scope["spans"]]

    def of(self, trace: str) -> list[Span]:
        """The spans of one trace, each after what it is within, and by when they began."""
        spans = [span for span in self.spans if span.trace == trace]
        within = {span.id for span in spans}
        return sorted(spans, key=lambda span: (span.began, -span.ended, span.parent in within))


def _values(attributes: Any) -> dict[str, Any]:
    return {one["key"]: _value(one["value"]) for one in attributes}


def _value(value: dict[str, Any]) -> Any:
    [(kind, content)] = value.items()
    if kind == "arrayValue":
        return [_value(one) for one in content["values"]]
    return int(content) if kind == "intValue" else content


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            document = json.loads(self.rfile.read(int(self.headers["content-length"])))
            assert self.path == "/v1/traces"
            collector.take(document)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)
