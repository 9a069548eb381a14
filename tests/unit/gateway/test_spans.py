"""Spans of held requests, as a collector gets them, with a clock that stands still."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.collector import Collector, collecting
from tests.unit.gateway.test_activator import KEY, World, instance, run
from torpor.gateway.spans import ColdStartSpans
from torpor.gateway.targets import HoldLimits
from torpor.otlp import Tracer
from torpor.testing.clock import START_SECONDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from torpor.scaling.coldstart import Phase

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-01".encode()
NOT_SAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-00".encode()
OTHER = b"00-11111111111111111111111111111111-2222222222222222-01"
SERVER, INTERNAL = 2, 1


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Collector]:
    """Run a coroutine function with an activator that exports spans; what the collector got of it."""

    def run_it(
        body: Callable[[World], Awaitable[None]], limits: HoldLimits | None = None, **variables: str
    ) -> Collector:
        with collecting() as collector:
            for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **variables}.items():
                monkeypatch.setenv(name, value)
            tracer = Tracer({"service.name": "torpor-gateway"})

            async def with_spans(world: World) -> None:
                world.activator.spans = ColdStartSpans(tracer, world.clock)
                await body(world)

            run(tmp_path, with_spans, limits)
            tracer.close(60)
        return collector

    return run_it


async def start(world: World, endpoint: object, *phases: tuple[Phase, float]) -> None:
    """Have each phase end so many seconds after the one before, then publish the instance."""
    for phase, seconds in phases:
        await world.clock.advance(seconds)
        world.starts.reached(KEY, phase, world.clock.monotonic())
    world.activator.publish(KEY, [endpoint])  # type: ignore[list-item]


def handed_on(head: bytes, name: str = "traceparent") -> str:
    found = re.search(rf"\r\n{name}: (\S+)".encode(), head)
    return found[1].decode() if found else ""


def test_a_held_request_has_a_span_with_the_phases_it_waited_for(trace: Callable[..., Collector]) -> None:
    heads: list[bytes] = []

    async def check(world: World) -> None:
        async with instance() as there:
            first = world.send(more=[(b"traceparent", SAMPLED), (b"tracestate", b"a=1,b=2")])
            await world.until_held(1)
            await start(world, there.endpoint, ("decide", 0.25), ("pod", 1.0), ("boot", 0.5))
            await first
            assert (await world.send(more=[(b"traceparent", OTHER)])).status == 200
            heads.extend(there.heads)

    collector = trace(check)
    assert {span.trace for span in collector.spans} == {TRACE_ID}, "what is warm has none"
    [whole] = [span for span in collector.spans if span.parent == SPAN_ID]
    assert (whole.name, whole.kind, whole.service) == ("cold start", SERVER, "torpor-gateway")
    assert (whole.began, whole.ended) == pytest.approx((START_SECONDS, START_SECONDS + 1.75), abs=1e-6, rel=0)
    assert whole.attributes == {
        "faas.name": "hello",
        "faas.coldstart": True,
        "faas.trigger": "http",
        "torpor.function": KEY,
        "http.request.method": "GET",
        "http.request.header.x-request-id": ["id-1"],
        "url.path": "/x",
        "http.response.status_code": 200,
    }
    phases = [span for span in collector.of(TRACE_ID) if span.parent == whole.id]
    assert len(phases) + 1 == len(collector.spans)
    assert {span.kind for span in phases} == {INTERNAL}
    times = [
        (span.name, round(span.began - whole.began, 3), round(span.ended - whole.began, 3)) for span in phases
    ]
    assert times == [
        ("decide", 0.0, 0.25),
        ("pod", 0.25, 1.25),
        ("boot", 1.25, 1.75),
        ("first_byte", 1.75, 1.75),
    ]
    assert handed_on(heads[0]) == f"00-{TRACE_ID}-{whole.id}-01"
    assert handed_on(heads[0], "tracestate") == "a=1,b=2"
    assert heads[0].count(b"traceparent") == 1
    assert handed_on(heads[1]) == OTHER.decode()


def test_each_of_those_that_wait_has_its_own_part(trace: Callable[..., Collector]) -> None:
    async def check(world: World) -> None:
        async with instance() as there:
            first = world.send(more=[(b"traceparent", SAMPLED)])
            await world.until_held(1)
            await world.clock.advance(0.5)
            world.starts.reached(KEY, "decide", world.clock.monotonic())
            second = world.send(more=[(b"traceparent", OTHER)])
            await world.until_held(2)
            await start(world, there.endpoint, ("boot", 1.0))
            await first
            await second

    collector = trace(check)
    found = {
        trace_id: {span.name: round(span.ended - span.began, 3) for span in collector.of(trace_id)}
        for trace_id in (TRACE_ID, "1" * 32)
    }
    assert found == {
        TRACE_ID: {"cold start": 1.5, "decide": 0.5, "boot": 1.0, "first_byte": 0.0},
        "1" * 32: {"cold start": 1.0, "boot": 1.0, "first_byte": 0.0},
    }


def test_who_waits_again_has_waited_all_along(trace: Callable[..., Collector]) -> None:
    async def check(world: World) -> None:
        async with instance() as gone, instance() as there:
            await gone.close()
            held = world.send(more=[(b"traceparent", SAMPLED)])
            await world.until_held(1)
            await start(world, gone.endpoint, ("boot", 1.0))
            world.starts.reached(KEY, "first_byte", world.clock.monotonic())  # of another, which it served
            world.activator.publish(KEY, [])
            await world.until(lambda: len(world.woken) == 2)
            await start(world, there.endpoint, ("decide", 0.5), ("boot", 2.0))
            await held

    whole, *phases = trace(check).of(TRACE_ID)
    since = whole.began
    assert [(one.name, round(one.began - since, 3), round(one.ended - since, 3)) for one in phases] == [
        ("decide", 0.0, 1.5),
        ("boot", 1.5, 3.5),
        ("first_byte", 3.5, 3.5),
    ]


def test_of_very_many_that_wait_some_are_told_the_phases(trace: Callable[..., Collector]) -> None:
    waiting: list[int] = []

    async def check(world: World) -> None:
        async with instance() as there:
            held = [world.send(more=[(b"traceparent", SAMPLED)]) for _ in range(120)]
            await world.until_held(120)
            assert world.activator.spans is not None
            waiting.append(len(world.activator.spans.waiting(KEY)))
            await start(world, there.endpoint, ("boot", 1.0))
            await asyncio.gather(*held)
            told = world.activator.spans.waiting(KEY)
            assert {(one.came_seconds, one.answered_seconds) for one in told} == {(1.0, 0.0)}
            await world.clock.advance(15.0)
            waiting.append(len(world.activator.spans.waiting(KEY)))

    collector = trace(check)
    names = Counter(span.name for span in collector.spans)
    assert names == {"cold start": 120, "boot": 100, "first_byte": 100}
    assert waiting == [100, 0]


def test_a_caller_without_a_trace_begins_one_that_is_handed_on(trace: Callable[..., Collector]) -> None:
    heads: list[bytes] = []

    async def check(world: World) -> None:
        async with instance() as there:
            held = world.send(more=[(b"traceparent", b"00-wrong"), (b"tracestate", b"a=1")])
            await world.until_held(1)
            await start(world, there.endpoint)
            await held
            heads.extend(there.heads)

    collector = trace(check)
    [whole] = [span for span in collector.spans if span.name == "cold start"]
    assert whole.parent == ""
    # The second flag says that the id is random (W3C Trace Context, level 2).
    assert re.fullmatch(f"00-{whole.trace}-{whole.id}-0[13]", handed_on(heads[0]))
    assert handed_on(heads[0], "tracestate") == ""


@pytest.mark.parametrize("given", [NOT_SAMPLED, None])
def test_what_is_not_sampled_is_not_exported(trace: Callable[..., Collector], given: bytes | None) -> None:
    heads: list[bytes] = []

    async def check(world: World) -> None:
        async with instance() as there:
            held = world.send(more=[] if given is None else [(b"traceparent", given)])
            await world.until_held(1)
            await start(world, there.endpoint)
            await held
            heads.extend(there.heads)

    sampler = {"OTEL_TRACES_SAMPLER": "parentbased_always_off"} if given is None else {}
    assert trace(check, **sampler).spans == []
    if given is None:  # so that the function decides nothing else
        assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-0[02]", handed_on(heads[0]))
    else:
        assert handed_on(heads[0]) == given.decode()


@pytest.mark.parametrize("of_request", [[], [(b"traceparent", OTHER)]])
def test_the_start_for_an_event_is_in_the_events_trace(
    trace: Callable[..., Collector], of_request: list[tuple[bytes, bytes]]
) -> None:
    heads: list[bytes] = []

    async def check(world: World) -> None:
        async with instance() as there:
            event = [(b"ce-id", b"1%202"), (b"ce-source", b"/s"), (b"ce-type", b"t")]
            more = [*of_request, *event, (b"ce-traceparent", SAMPLED), (b"ce-tracestate", b"a=%22")]
            held = world.send(b"POST", b"/", b"x", more=more)
            await world.until_held(1)
            await start(world, there.endpoint)
            await held
            heads.extend(there.heads)

    collector = trace(check)
    [whole] = [span for span in collector.of(TRACE_ID) if span.parent == SPAN_ID]
    assert whole.attributes["faas.trigger"] == "pubsub"
    assert whole.attributes["cloudevents.event_id"] == "1 2"
    assert whole.attributes["cloudevents.event_source"] == "/s"
    assert whole.attributes["cloudevents.event_type"] == "t"
    assert handed_on(heads[0]) == f"00-{TRACE_ID}-{whole.id}-01"
    assert handed_on(heads[0], "ce-traceparent") == SAMPLED.decode()


def test_a_start_that_nobody_is_served_by_says_why(trace: Callable[..., Collector]) -> None:
    async def check(world: World) -> None:
        late = world.send(more=[(b"traceparent", SAMPLED)])
        gone = world.send(more=[(b"traceparent", OTHER)])
        await world.until_held(2)
        await world.clock.advance(1.0)
        world.starts.reached(KEY, "decide", world.clock.monotonic())
        gone.cancel()
        await world.until_held(1)
        await world.clock.advance(9.0)
        assert (await late).status == 504

    collector = trace(check, HoldLimits(max_seconds=10))
    late, decide = collector.of(TRACE_ID)
    assert (late.name, decide.name, round(decide.ended - late.began, 3)) == ("cold start", "decide", 1.0)
    assert late.status == {"code": 2, "message": "held-too-long"}
    assert late.attributes["error.type"] == "held-too-long"
    assert late.attributes["http.response.status_code"] == 504
    assert round(late.ended - late.began, 3) == 10.0
    gone, _ = collector.of("1" * 32)
    assert gone.status == {"code": 2, "message": "gone"}
    assert "http.response.status_code" not in gone.attributes


def test_a_function_that_fails_or_breaks_off_makes_it_a_failure(trace: Callable[..., Collector]) -> None:
    async def check(world: World) -> None:
        async with instance() as there:
            for answer, traceparent in (
                (b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", SAMPLED),
                (b"HTTP", OTHER),
            ):
                there.answer = answer
                held = world.send(more=[(b"traceparent", traceparent)])
                await world.until_held(1)
                await start(world, there.endpoint)
                await held
                world.activator.publish(KEY, [])

    collector = trace(check)
    failed, _ = collector.of(TRACE_ID)
    assert failed.attributes["http.response.status_code"] == 500
    assert failed.status == {"code": 2, "message": "500"}
    [broken] = collector.of("1" * 32)
    assert broken.attributes["error.type"] == "upstream-broken"
    assert broken.attributes["http.response.status_code"] == 502


def test_a_collector_that_is_not_there_holds_nothing_up(trace: Callable[..., Collector]) -> None:
    async def check(world: World) -> None:
        async with instance() as there:
            held = [world.send() for _ in range(50)]
            await world.until_held(50)
            await start(world, there.endpoint)
            assert {(await one).status for one in held} == {200}

    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_MAX_QUEUE_SIZE": "10"}
    variables |= {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "5", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    assert trace(check, **variables).spans == []
