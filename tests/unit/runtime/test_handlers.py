"""What handlers get, and what follows from what they give back."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterator  # noqa: TC003 - what a handler takes is read from them
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003
from typing import Any

import orjson
import pytest
from pydantic import BaseModel
from starlette.requests import Request  # noqa: TC002
from starlette.responses import PlainTextResponse, Response

from torpor import CloudEvent, Context, RejectError, RetryError, function
from torpor.blobs import BlobStore


class Tile(BaseModel):
    name: str
    x: int = 0


@dataclass
class Point:
    x: int
    y: int


@function
async def takes_event(event: CloudEvent) -> dict[str, Any]:
    return {"type": event.get_type(), "data": event.get_data(), "subject": event.get_subject()}


@function
async def takes_model(tile: Tile) -> str:
    return f"{tile.name} {tile.x}"


@function
def takes_dataclass(point: Point) -> int:
    return point.x + point.y


@function
async def takes_dict(data: dict[str, int]) -> int:
    return sum(data.values())


@function
async def takes_bytes(data: bytes) -> bytes:
    return data[::-1]


@function
async def takes_text(data: str) -> str:
    return data.upper()


@function
async def takes_maybe(tile: Tile | None) -> bool:
    return tile is None


@function
async def takes_nothing() -> str:
    return "called"


@function
async def takes_context_alone(ctx: Context) -> int:
    return ctx.attempt


@pytest.mark.parametrize(
    ("handler", "data", "content_type", "reply"),
    [
        (takes_event, {"a": 1}, "application/json", b'{"type":"t","data":{"a":1},"subject":null}'),
        (takes_model, {"name": "n", "x": 3}, "application/json", b"n 3"),
        (takes_model, {"name": "n"}, "application/vnd.tile+json; charset=utf-8", b"n 0"),
        (takes_dataclass, {"x": 1, "y": 2}, "application/json", b"3"),
        (takes_dict, {"x": 1, "y": 2}, "application/json", b"3"),
        (takes_bytes, b"\x00\xff", "application/octet-stream", b"\xff\x00"),
        (takes_text, b"gr\xc3\xbc\xc3\x9fe", "text/plain", "GRÜSSE".encode()),
        (takes_text, b"gr\xfc\xdfe", "text/plain; charset=latin-1", "GRÜSSE".encode()),
        (takes_text, "quoted", "application/json", b"QUOTED"),
        (takes_text, {"a": 1}, "application/json", b'{"A":1}'),
        (takes_maybe, None, "application/json", b"true"),
        (takes_nothing, {"a": 1}, "application/json", b"called"),
        (takes_context_alone, None, "application/json", b"1"),
    ],
)
def test_gets_what_its_annotation_says(
    serve: Any, handler: Any, data: Any, content_type: Any, reply: Any
) -> None:
    async def run() -> None:
        answer = await serve(handler).event(data, datacontenttype=content_type)
        assert (answer.status, answer.body) == (200, reply)

    asyncio.run(run())


def unmarked(identity: str) -> str:
    """A derived id without the marks that tell producers and functions apart."""
    return re.sub(r"\.[0-9a-f]{8}(?=/|$)", "", identity)


@pytest.mark.parametrize("mode", ["binary", "structured", "batch"])
def test_takes_all_modes(serve: Any, mode: Any) -> None:
    event = {"specversion": "1.0", "id": "e1", "source": "/s", "type": "t", "data": {"name": "n"}}

    async def run() -> None:
        served = serve(takes_model)
        if mode == "binary":
            answer = await served.event({"name": "n"})
        elif mode == "structured":
            body = orjson.dumps(event)
            headers = {"content-type": "application/cloudevents+json; charset=utf-8"}
            answer = await served.request(headers=headers, body=body)
        else:
            answer = await served.batch([event])
        [reply] = answer.events
        assert reply.data == b"n 0"
        assert (unmarked(reply.id), reply.source, reply.type) == ("e1/0", "/default/fn", "fn.replied")

    asyncio.run(run())


def test_a_batch_calls_a_handler_for_one_event_for_each(serve: Any) -> None:
    async def run() -> None:
        answer = await serve(takes_model).batch([{"id": i, "data": {"name": i}} for i in ("a", "b")])
        replies = [(unmarked(event.id), event.data) for event in answer.events]
        assert replies == [("a/0", b"a 0"), ("b/0", b"b 0")]

    asyncio.run(run())


def test_an_empty_batch_is_no_call(serve: Any) -> None:
    async def run() -> None:
        assert (await serve(takes_model).batch([])).status == 204

    asyncio.run(run())


# --- what it gives back -----------------------------------------------------------------------------------


def test_none_is_no_reply(serve: Any) -> None:
    @function
    async def handler(data: bytes) -> None:
        return None

    async def run() -> None:
        answer = await serve(handler).event(b"x")
        assert (answer.status, answer.body) == (204, b"")

    asyncio.run(run())


def test_a_value_becomes_an_event_of_the_declared_type(serve: Any) -> None:
    @function(emits="image.tile")
    def handler(data: bytes) -> Tile:
        return Tile(name="n", x=2)

    async def run() -> None:
        answer = await serve(handler, namespace="pics").event(b"x", partitionkey="k")
        [reply] = answer.events
        assert reply.data == b'{"name":"n","x":2}'
        assert reply.attributes["datacontenttype"] == "application/json"
        assert (unmarked(reply.id), reply.source, reply.type) == ("e1/0", "/pics/fn", "image.tile")
        assert reply.attributes["partitionkey"] == "k"
        assert "time" in reply.attributes
        assert answer.header(b"content-type") == b"application/json", "a single reply is in binary mode"

    asyncio.run(run())


def test_an_event_keeps_what_its_author_said_but_its_id(serve: Any) -> None:
    @function
    async def handler(event: CloudEvent) -> CloudEvent:
        attributes = {"type": "mine", "source": "/mine", "id": "mine", "partitionkey": "own", "color": "red"}
        return CloudEvent(attributes, {"a": 1})

    async def run() -> None:
        [reply] = (await serve(handler).event({"b": 2}, partitionkey="k")).events
        assert (unmarked(reply.id), reply.source, reply.type) == ("e1/0", "/mine", "mine")
        assert reply.attributes["partitionkey"] == "own"
        assert reply.attributes["color"] == "red"
        assert reply.data == b'{"a":1}'

    asyncio.run(run())


@function
def generator(data: dict[str, int]) -> Iterator[int]:
    yield from range(data["count"])


@function
async def async_generator(data: dict[str, int]) -> AsyncIterator[int]:
    for index in range(data["count"]):
        yield index


@pytest.mark.parametrize("handler", [generator, async_generator])
def test_what_is_yielded_is_one_batch_and_one_group(serve: Any, handler: Any) -> None:
    async def run() -> None:
        answer = await serve(handler).event({"count": 3}, id="in")
        assert answer.header(b"content-type") == b"application/cloudevents-batch+json"
        assert [unmarked(event.id) for event in answer.events] == ["in/0", "in/1", "in/2"]
        assert [event.data for event in answer.events] == [b"0", b"1", b"2"]
        for index, event in enumerate(answer.events):
            assert unmarked(event.attributes["fanoutid"]) == "in"
            assert event.attributes["fanoutindex"] == str(index)
            assert event.attributes["fanoutsize"] == "3"
            assert "fanoutouter" not in event.attributes

    asyncio.run(run())


@pytest.mark.parametrize("handler", [generator, async_generator])
def test_nothing_yielded_is_no_reply(serve: Any, handler: Any) -> None:
    async def run() -> None:
        assert (await serve(handler).event({"count": 0})).status == 204

    asyncio.run(run())


def test_a_single_reply_stays_in_its_group(serve: Any, parts: Any) -> None:
    async def run() -> None:
        [_, event] = parts(["a", "b"], fanoutouter="0.2.first")
        answer = await serve(takes_text).event("x", **{k: v for k, v in event.items() if k != "data"})
        [reply] = answer.events
        assert unmarked(reply.id) == "split/1/0"
        for name in ("fanoutid", "fanoutindex", "fanoutsize", "fanoutouter"):
            assert reply.attributes[name] == event[name]

    asyncio.run(run())


@function(emits="joined")
async def joins(items: list[str]) -> str:
    return "+".join(items)


def test_a_join_gets_the_parts_in_order_and_ends_the_group(serve: Any, parts: Any) -> None:
    async def run() -> None:
        events = parts(["a", "b", "c"])
        answer = await serve(joins).batch(list(reversed(events)))
        [reply] = answer.events
        assert reply.data == b"a+b+c"
        assert unmarked(reply.id) == "split/0"
        assert not any(name.startswith("fanout") for name in reply.attributes)

    asyncio.run(run())


def test_a_join_restores_the_group_around_it(serve: Any, parts: Any) -> None:
    async def run() -> None:
        events = parts(["a", "b"], fanoutouter="3.16.up%2Cload,0.4.x")
        [reply] = (await serve(joins).batch(events)).events
        assert reply.attributes["fanoutid"] == "up,load"
        assert reply.attributes["fanoutindex"] == "3"
        assert reply.attributes["fanoutsize"] == "16"
        assert reply.attributes["fanoutouter"] == "0.4.x"

    asyncio.run(run())


def test_fan_outs_within_each_other_come_back_one_by_one(serve: Any) -> None:
    async def run() -> None:
        split, join = serve(generator), serve(sums)
        outer = (await split.event({"count": 2}, id="in")).events
        rejoined = []
        for part in outer:
            attributes = {k: v for k, v in part.attributes.items() if k != "datacontenttype"}
            inner = (await split.event({"count": 3}, **attributes)).events
            assert {unmarked(event.attributes["fanoutouter"]) for event in inner} == {
                f"{part.attributes['fanoutindex']}.2.in"
            }
            documents = [{**event.attributes, "data": int(event.data or b"0")} for event in inner]
            [reply] = (await join.batch(documents)).events
            assert unmarked(reply.attributes["fanoutid"]) == "in"
            assert reply.attributes["fanoutindex"] == part.attributes["fanoutindex"]
            assert "fanoutouter" not in reply.attributes
            rejoined.append({**reply.attributes, "data": int(reply.data or b"0")})
        [total] = (await join.batch(rejoined)).events
        assert total.data == b"6"
        assert "fanoutid" not in total.attributes

    asyncio.run(run())


@function
async def sums(items: list[int]) -> int:
    return sum(items)


def test_a_list_of_one_event_that_is_no_batch_keeps_the_group(serve: Any, parts: Any) -> None:
    async def run() -> None:
        event = parts(["a"])[0]
        answer = await serve(joins).event("x", **{k: v for k, v in event.items() if k != "data"})
        [reply] = answer.events
        assert (reply.data, reply.attributes["fanoutid"]) == (b"x", "split")

    asyncio.run(run())


def test_replies_to_any_other_batch_do_not_depend_on_its_order(serve: Any) -> None:
    async def run() -> None:
        events = [{"id": "b", "data": "b"}, {"id": "a", "data": "a"}]
        served = serve(joins)
        [one] = (await served.batch(events)).events
        [two] = (await served.batch(events[::-1])).events
        assert one.id == two.id
        assert (one.data, two.data) == (b"b+a", b"a+b")

    asyncio.run(run())


# --- trace and context ------------------------------------------------------------------------------------

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_hands_the_trace_on(serve: Any) -> None:
    async def run() -> None:
        [reply] = (await serve(takes_text).event("x", traceparent=TRACE, tracestate="a=1")).events
        assert reply.attributes["traceparent"] == TRACE
        assert reply.attributes["tracestate"] == "a=1"

    asyncio.run(run())


def test_the_context_says_who_calls_and_how_long_there_is(serve: Any, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    @function
    async def handler(data: bytes, ctx: Context) -> None:
        seen.update(
            attempt=ctx.attempt,
            caller=ctx.caller,
            remaining=ctx.remaining_seconds,
            event=ctx.attributes["id"],
            deadline=ctx.deadline,
            traceparent=ctx.traceparent,
            blob=await ctx.blobs.get(await ctx.blobs.put(b"large")),
        )

    async def run() -> None:
        served = serve(handler, timeout_seconds=60, blobs_url=tmp_path.as_uri())
        headers = {
            **{
                f"ce-{k}": v
                for k, v in {"specversion": "1.0", "id": "7", "source": "/s", "type": "t"}.items()
            },
            "torpor-attempt": "3",
            "x-request-id": "r-1",
            "x-forwarded-for": "1.2.3.4, 192.0.2.7",
            "x-forwarded-proto": "https",
            "traceparent": TRACE,
        }
        assert (await served.request(headers=headers)).status == 204

    asyncio.run(run())
    assert seen["attempt"] == 3
    assert (seen["caller"].address, seen["caller"].scheme, seen["caller"].request_id) == (
        "192.0.2.7",
        "https",
        "r-1",
    )
    assert 0 < seen["remaining"] <= 60
    assert seen["event"] == "7"
    assert seen["deadline"].tzinfo is not None
    assert seen["traceparent"] == TRACE
    assert seen["blob"] == b"large"


def test_sync_handlers_run_in_threads_with_the_calls_own_context(serve: Any) -> None:
    threads: set[int] = set()

    @function
    def handler(data: bytes, ctx: Context) -> str:
        threads.add(threading.get_ident())
        return ctx.attributes["id"]

    async def run() -> None:
        served = serve(handler)
        answers = await asyncio.gather(*(served.event(b"x", id=str(index)) for index in range(5)))
        assert [answer.body for answer in answers] == [b"%d" % index for index in range(5)]
        assert threading.get_ident() not in threads

    asyncio.run(run())


def test_fetches_data_that_was_checked_in(serve: Any, tmp_path: Path) -> None:
    async def run() -> None:
        store = BlobStore(tmp_path.as_uri())
        reference = await store.put(b'{"name":"large"}', "application/json")
        served = serve(takes_model, blobs_url=tmp_path.as_uri())
        answer = await served.event(None, dataref=reference)
        assert answer.body == b"large 0"
        missing = await served.event(None, dataref=f"{tmp_path.as_uri()}/{'0' * 64}")
        assert missing.status == 422
        foreign = await served.event(None, dataref="file:///etc/passwd")
        assert foreign.status == 422

    asyncio.run(run())


def test_an_event_that_is_passed_on_does_not_claim_the_old_blob(serve: Any, tmp_path: Path) -> None:
    @function
    async def handler(event: CloudEvent) -> CloudEvent:
        return event

    async def run() -> None:
        reference = await BlobStore(tmp_path.as_uri()).put(b'"large"')
        served = serve(handler, blobs_url=tmp_path.as_uri())
        [reply] = (await served.event(None, dataref=reference)).events
        assert reply.data == b'"large"'
        assert "dataref" not in reply.attributes

    asyncio.run(run())


# --- plain HTTP -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "body", "status", "answer"),
    [
        (takes_model, b'{"name":"n"}', 200, b"n 0"),
        (takes_dataclass, b'{"x":1,"y":2}', 200, b"3"),
        (takes_text, b'"ada"', 200, b"ADA"),
        (generator, b'{"count":3}', 200, b"[0,1,2]"),
        (joins, b'["a","b"]', 200, b"a+b"),
        (takes_nothing, b"", 200, b"called"),
    ],
)
def test_a_plain_body_is_answered_with_the_value(
    serve: Any, handler: Any, body: Any, status: Any, answer: Any
) -> None:
    async def run() -> None:
        reply = await serve(handler).request(headers={"content-type": "application/json"}, body=body)
        assert (reply.status, reply.body) == (status, answer)
        assert reply.events == []

    asyncio.run(run())


def test_a_plain_body_stands_for_an_event(serve: Any) -> None:
    async def run() -> None:
        reply = await serve(takes_event).request(headers={"content-type": "application/json"}, body=b"[1]")
        assert reply.json == {"type": "fn.called", "data": [1], "subject": None}

    asyncio.run(run())


def test_an_event_given_back_to_a_plain_call_is_sent_as_one(serve: Any) -> None:
    @function
    async def handler(data: bytes) -> CloudEvent:
        return CloudEvent({"type": "mine", "source": "/mine"}, {"a": 1})

    async def run() -> None:
        reply = await serve(handler).request(headers={"x-request-id": "r"}, body=b"x")
        [event] = reply.events
        assert (unmarked(event.id), event.type, reply.body) == ("r/0", "mine", b'{"a":1}')

    asyncio.run(run())


@function
async def takes_request(request: Request) -> Response | dict[str, str]:
    if request.url.path == "/text":
        return PlainTextResponse((await request.body()).decode(), status_code=201)
    return {"scheme": request.url.scheme, "client": request.client.host if request.client else ""}


def test_a_handler_can_take_the_request(serve: Any) -> None:
    async def run() -> None:
        served = serve(takes_request)
        text = await served.request("PUT", "/text", body=b"hello")
        assert (text.status, text.body) == (201, b"hello")
        headers = {"x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.7"}
        value = await served.request("GET", "/", headers)
        assert value.json == {"scheme": "https", "client": "192.0.2.7"}

    asyncio.run(run())


def test_documents_itself(serve: Any) -> None:
    async def run() -> None:
        served = serve(takes_model)
        document = (await served.request("GET", "/openapi.json")).json
        body = document["paths"]["/"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert body["properties"]["name"] == {"title": "Name", "type": "string"}
        page = await served.request("GET", "/docs")
        assert page.status == 200
        assert b"What it does." in page.body
        assert b"<script" not in page.body

    asyncio.run(run())


# --- what a handler declines --------------------------------------------------------------------------------


@function
async def rejects(data: dict[str, int]) -> None:
    raise RejectError(f"{data['n']} is no number of ours")


@function
def asks_for_time(data: dict[str, float | None]) -> None:
    raise RetryError("the till is closed", after_seconds=data["wait"])


def test_what_is_rejected_is_final(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        answer = await serve(rejects).event({"n": 7})
        assert (answer.status, answer.json["type"]) == (422, "https://torpor.dev/problems/rejected")
        assert answer.json["detail"] == "7 is no number of ours"
        assert answer.header(b"retry-after") is None

    asyncio.run(run())
    [record] = caplog.records
    assert record.getMessage() == "the handler declined: 7 is no number of ours"
    assert record.exc_info is None


@pytest.mark.parametrize(("wait", "header"), [(None, None), (0.0, b"0"), (1.2, b"2"), (-3.0, b"0")])
def test_what_is_to_be_tried_again_says_when(serve: Any, wait: float | None, header: bytes | None) -> None:
    async def run() -> None:
        answer = await serve(asks_for_time).event({"wait": wait})
        assert (answer.status, answer.json["type"]) == (503, "https://torpor.dev/problems/try-again")
        assert answer.header(b"retry-after") == header

    asyncio.run(run())


def test_a_plain_call_is_declined_alike(serve: Any) -> None:
    async def run() -> None:
        headers = {"content-type": "application/json"}
        assert (await serve(rejects).request(headers=headers, body=b'{"n": 7}')).status == 422

    asyncio.run(run())
