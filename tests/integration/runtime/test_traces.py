"""Spans that reach a collector, with the trace that came in and went out."""

from __future__ import annotations

import http.server
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CODE = """
from torpor import function

@function
async def f(data: bytes) -> bytes:
    if data == b"fail":
        raise LookupError
    return data
"""


@pytest.fixture
def collector() -> Iterator[Any]:
    """A collector: its address, and what it was sent."""
    received: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(json.loads(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    server.server_close()
    thread.join(60)


def test_calls_become_spans_of_the_trace_they_came_with(start: Any, collector: Any) -> None:
    address, received = collector
    process = start(CODE, OTEL_EXPORTER_OTLP_ENDPOINT=address, K_SERVICE="greeter")
    connection = process.connect()
    connection.request("POST", "/", b"x", {**EVENT, "ce-traceparent": TRACE})
    response = connection.getresponse()
    response.read()
    handed_on = response.headers["ce-traceparent"]
    connection.close()
    assert process.request("POST", "/", b"fail", EVENT)[0] == 500
    process.signal()
    assert process.wait() == 0, "what was left is sent before the process ends"

    spans = [
        span
        for request in received
        for resource in request["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    [first] = [span for span in spans if span["traceId"] == TRACE[3:35]]
    assert first["parentSpanId"] == TRACE[36:52]
    assert handed_on == f"00-{TRACE[3:35]}-{first['spanId']}-01"
    assert first["name"] == "greeter"
    told = {attribute["key"]: attribute["value"] for attribute in first["attributes"]}
    assert told["cloudevents.event_id"] == {"stringValue": "1"}
    assert int(told["http.response.status_code"]["intValue"]) == 200
    [failed] = [span for span in spans if span.get("status", {}).get("code") == 2]
    assert (failed.get("parentSpanId", ""), failed["status"]["message"]) == ("", "failed")


def test_a_collector_that_is_not_there_holds_nothing_up(start: Any) -> None:
    process = start(CODE, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://127.0.0.1:9/v1/traces")
    assert process.request("POST", "/", b"x", EVENT) == (200, b"x")
    process.signal()
    assert process.wait() == 0
