"""W3C trace context: what is taken, and what counts as none."""

from __future__ import annotations

from typing import Any

import pytest

from torpor.tracing import begin, parse, trace_of

EVENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SAME = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
OTHER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("event", "request_", "expected"),
    [
        (EVENT, None, EVENT),
        (None, OTHER, OTHER),
        (EVENT, SAME, SAME),
        (EVENT, OTHER, EVENT),
        ("nonsense", OTHER, OTHER),
        (EVENT, "nonsense", EVENT),
    ],
)
def test_which_trace_a_call_belongs_to(event: Any, request_: Any, expected: Any) -> None:
    attributes = {"traceparent": event} if event else {}
    headers = {b"traceparent": request_.encode()} if request_ else {}
    assert trace_of(headers, attributes).traceparent == expected


def test_without_one_a_trace_begins() -> None:
    first, second = trace_of({}, {}), begin()
    assert first.trace_id != second.trace_id
    assert parse(first.traceparent, "") == first
    assert first.attributes() == {"traceparent": first.traceparent}


@pytest.mark.parametrize(
    "value",
    [
        "",
        EVENT.upper(),
        EVENT[:-1],
        EVENT + "-x",
        "ff" + EVENT[2:],
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
    ],
)
def test_what_is_not_valid_counts_as_none(value: Any) -> None:
    assert parse(value, "") is None


def test_a_later_version_may_have_more() -> None:
    trace = parse("01" + EVENT[2:] + "-more", "a=1")
    assert trace is not None
    assert trace.attributes() == {"traceparent": "01" + EVENT[2:], "tracestate": "a=1"}
