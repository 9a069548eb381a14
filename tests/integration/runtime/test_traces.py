"""Spans that reach a collector, with the trace that came in and went out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.collector import Collector, collecting

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
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


def test_calls_become_spans_of_the_trace_they_came_with(start: Any, collector: Collector) -> None:
    process = start(CODE, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, K_SERVICE="greeter")
    connection = process.connect()
    connection.request("POST", "/", b"x", {**EVENT, "ce-traceparent": TRACE})
    response = connection.getresponse()
    response.read()
    handed_on = response.headers["ce-traceparent"]
    connection.close()
    assert process.request("POST", "/", b"fail", EVENT)[0] == 500
    process.signal()
    assert process.wait() == 0, "what was left is sent before the process ends"

    [first] = collector.of(TRACE[3:35])
    assert first.parent == TRACE[36:52]
    assert handed_on == f"00-{TRACE[3:35]}-{first.id}-01"
    assert (first.name, first.service) == ("greeter", "greeter")
    assert first.attributes["cloudevents.event_id"] == "1"
    assert first.attributes["http.response.status_code"] == 200
    [failed] = [span for span in collector.spans if span.status.get("code") == 2]
    assert (failed.parent, failed.status["message"]) == ("", "failed")


def test_a_collector_that_is_not_there_holds_nothing_up(start: Any) -> None:
    process = start(CODE, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://127.0.0.1:9/v1/traces")
    assert process.request("POST", "/", b"x", EVENT) == (200, b"x")
    process.signal()
    assert process.wait() == 0


def test_what_is_switched_off_is_off(start: Any, collector: Collector) -> None:
    process = start(CODE, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_SDK_DISABLED="True")
    assert process.request("POST", "/", b"x", EVENT) == (200, b"x")
    process.signal()
    assert process.wait() == 0
    assert collector.spans == []


def test_a_function_without_opentelemetry_serves_all_the_same(start: Any) -> None:
    without = "import sys\nsys.modules['opentelemetry.sdk'] = None\n"
    process = start(without + CODE, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert process.request("POST", "/", b"x", EVENT) == (200, b"x")
    process.signal()
    assert process.wait() == 0
    [said] = [line["message"] for line in process.lines if "spans" in line["message"]]
    assert said == "no spans are exported: exporting traces needs pip install 'torpor[otel]'"
