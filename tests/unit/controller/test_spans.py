"""Starts of pods in the traces of those who wait, as a collector gets them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.collector import collecting
from torpor.controller.podstarts import Part
from torpor.controller.spans import PodStartSpans
from torpor.otlp import Tracer
from torpor.scaling.waiting import Waiting, decode_waiting, encode_waiting
from torpor.testing.clock import START_SECONDS, MovableClock
from torpor.tracing import Trace

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS = [
    Part("schedule", 1.0, 1.5),
    Part("sandbox", 1.5, 2.0),
    Part("pull", 2.0, 5.0),
    Part("start", 5.0, 5.25),
]
SECOND = [Part("schedule", 5.0, 5.5), Part("sandbox", 5.5, 5.75), Part("start", 5.75, 5.8)]
WHOLE = [("schedule", 1.0, 1.5), ("sandbox", 1.5, 2.0), ("pull", 2.0, 5.0), ("start", 5.0, 5.25)]


def place(number: int, flags: str = "01") -> Trace:
    return Trace(f"00-{number:032x}-{number:016x}-{flags}", "")


def told(
    monkeypatch: pytest.MonkeyPatch, waiting: Sequence[Waiting], *pods: Sequence[Part]
) -> dict[int, list[tuple[str, float, float]]]:
    """The phases in each trace, 6 seconds after the clock began."""
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        tracer = Tracer({"service.name": "torpor-controller"})

        async def case() -> None:
            clock = MovableClock()
            await clock.advance(6.0)
            asked: list[str] = []

            async def ask(key: str) -> Sequence[Waiting]:
                asked.append(key)
                return waiting

            spans = PodStartSpans(tracer, clock, ask)
            for number, parts in enumerate(pods):
                spans.started("default/f", f"pod-{number}", parts)
            task = asyncio.create_task(spans.run())
            while len(asked) < len(pods):
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert set(asked) == {"default/f"}

        asyncio.run(case())
        tracer.close(60)
    for span in collector.spans:
        assert span.parent == span.trace[16:]
        assert span.attributes["torpor.function"] == "default/f"
        assert span.attributes["k8s.pod.name"] == "pod-0"
        assert span.service == "torpor-controller"
    return {
        int(trace, 16): [
            (span.name, round(span.began - START_SECONDS, 3), round(span.ended - START_SECONDS, 3))
            for span in collector.of(trace)
        ]
        for trace in {span.trace for span in collector.spans}
    }


@pytest.mark.parametrize(
    ("waiting", "phases"),
    [
        (Waiting(place(1), 5.5, None), {1: WHOLE}),
        (Waiting(place(1), 5.5, 0.5), {1: WHOLE}),  # it was answered half a second ago
        # It came while the image was pulled.
        (Waiting(place(1), 3.0, 0.5), {1: [("pull", 3.0, 5.0), ("start", 5.0, 5.25)]}),
        (Waiting(place(1), 5.5, 1.0), {}),  # another pod has answered it
        (Waiting(place(1), 0.5, None), {}),  # that one waits for another
        (Waiting(place(1, "00"), 5.5, None), {}),  # it is not sampled
    ],
)
def test_a_request_is_told_what_the_pod_took_that_it_waited_for(
    monkeypatch: pytest.MonkeyPatch, waiting: Waiting, phases: dict[int, list[tuple[str, float, float]]]
) -> None:
    assert told(monkeypatch, [waiting], PARTS) == phases


def test_of_several_pods_the_first_counts_and_all_that_wait_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = [Waiting(place(number), 5.5, None) for number in (1, 2)]
    assert told(monkeypatch, waiting, PARTS, SECOND) == {1: WHOLE, 2: WHOLE}


def test_what_waits_is_told_and_understood() -> None:
    waiting = [
        Waiting(Trace(place(1).traceparent, "a=1"), 2.5, None),
        Waiting(place(2), 3.0, 0.25),
    ]
    assert decode_waiting(encode_waiting(waiting)) == waiting


@pytest.mark.parametrize(
    "body", [b"", b"{}x", b"1", b'["a"]', b'[{"traceparent": "00-1", "came": 1, "answered": null}]']
)
def test_what_is_no_list_of_those_who_wait_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode_waiting(body)
