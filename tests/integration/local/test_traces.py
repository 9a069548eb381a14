"""One trace from a caller over the gateway, which holds the request, to the function."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.collector import Collector, Span, collecting
from tests.integration.local.conftest import until
from torpor.testing.running import Running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CODE = """
from torpor import function


@function
async def echo(data: bytes) -> None:
    return None
"""
FUNCTION = """\
apiVersion: torpor.dev/v1alpha1
kind: Function
metadata: {name: echo}
spec:
  scaling: {window: 1s, scaleToZeroGracePeriod: 0s}
---
apiVersion: torpor.dev/v1alpha1
kind: Trigger
metadata: {name: echo}
spec:
  subscriber: {function: echo}
"""
EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
COLD, WARM, BY_EVENT = ("1" * 32, "2" * 32, "3" * 32)
CALLER = "b7ad6b7169203331"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture
def platform(tmp_path: Path, collector: Collector) -> Iterator[Running]:
    folder = tmp_path / "echo"
    folder.mkdir()
    (folder / "main.py").write_text(CODE)
    (folder / "function.yaml").write_text(FUNCTION)
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with Running([folder], tmp_path / "platform", environment=environment) as running:
        yield running


def place(trace: str) -> str:
    return f"00-{trace}-{CALLER}-01"


def at_rest(platform: Running) -> None:
    with platform.client() as client:
        until(lambda: not client.function("echo").instances, "it came to rest")


def one(spans: list[Span], service: str, name: str) -> Span:
    [found] = [span for span in spans if (span.service, span.name) == (service, name)]
    return found


def test_a_cold_start_is_in_the_callers_trace_and_the_events(platform: Running, collector: Collector) -> None:
    def traces(service: str) -> set[str]:
        return {span.trace for span in collector.spans if span.service == service}

    at_rest(platform)
    with httpx.Client(base_url=platform.url, timeout=60) as caller:
        for trace in (COLD, WARM):
            response = caller.post("/function/echo", headers={**EVENT, "traceparent": place(trace)})
            assert response.is_success
        at_rest(platform)
        event = {**EVENT, "ce-traceparent": place(BY_EVENT)}
        assert caller.post("/events/default/default", headers=event, content=b"x").status_code == 202
        until(lambda: {COLD, WARM, BY_EVENT} <= traces("echo"), "the spans of the function came")
        until(lambda: {COLD, BY_EVENT} <= traces("torpor-gateway"), "the spans of the gateway came")
    platform.stop()

    for trace in (COLD, BY_EVENT):
        spans = collector.of(trace)
        start = one(spans, "torpor-gateway", "cold start")
        assert start.parent == CALLER
        assert start.attributes["torpor.function"] == "default/echo"
        assert one(spans, "echo", "echo").parent == start.id
        phases = [span for span in spans if span.parent == start.id and span.service == "torpor-gateway"]
        assert {span.name for span in phases} >= {"decide", "boot", "first_byte"}
        assert (phases[0].began, phases[-1].ended) == (start.began, start.ended)
        for before, after in itertools.pairwise(phases):
            assert before.ended == after.began
    [warm] = collector.of(WARM)
    assert (warm.service, warm.parent) == ("echo", CALLER)
