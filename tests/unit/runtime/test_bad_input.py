"""Whatever comes in is answered with a problem that says what is wrong, and not with a stack."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from torpor import CloudEvent, function

BINARY = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
JSON = {"content-type": "application/json"}
STRUCTURED = {"content-type": "application/cloudevents+json"}
BATCH = {"content-type": "application/cloudevents-batch+json"}


class Person(BaseModel):
    name: str
    age: int


@function
async def greet(person: Person) -> str:
    return f"{person.name} is {person.age}"


@pytest.mark.parametrize(
    ("headers", "body", "status", "slug", "detail"),
    [
        ({**BINARY, "ce-id": "", **JSON}, b"{}", 400, "malformed-event", "'id' is empty"),
        ({"ce-id": "1", **JSON}, b"{}", 400, "malformed-event", "'specversion' is missing"),
        ({**BINARY, "ce-specversion": "0.3"}, b"", 400, "malformed-event", "'0.3', '1.0' was expected"),
        ({**BINARY, "ce-time": "yesterday"}, b"", 400, "malformed-event", "RFC 3339"),
        ({**BINARY, "ce-a_b": "1"}, b"", 400, "malformed-event", "'a_b'"),
        ({**BINARY, "ce-x": "%ff"}, b"", 400, "malformed-event", "UTF-8"),
        ({**BINARY, **JSON}, b"{", 400, "malformed-event", "not JSON"),
        (STRUCTURED, b"{", 400, "malformed-event", "not JSON"),
        (STRUCTURED, b"[]", 400, "malformed-event", "JSON object"),
        (BATCH, b"{}", 400, "malformed-event", "JSON array"),
        (BATCH, b'[{"id":"1"}]', 400, "malformed-event", "Event 1"),
        ({**BINARY, "content-type": "text/plain"}, b"hi", 415, "unsupported-media-type", "text/plain"),
        ({**BINARY, **JSON}, b'{"name":"a"}', 422, "invalid-data", "age: Field required"),
        ({**BINARY, **JSON}, b'"secret"', 422, "invalid-data", ""),
        (BINARY, b"", 422, "invalid-data", "no data"),
        (JSON, b"{", 400, "malformed-request", "not JSON"),
        (JSON, b'{"name":1,"age":"x"}', 422, "invalid-data", "name: "),
        ({"content-type": "application/x-www-form-urlencoded"}, b"a=1", 415, "unsupported-media-type", ""),
    ],
)
def test_says_what_is_wrong(serve: Any, headers: Any, body: Any, status: Any, slug: Any, detail: Any) -> None:
    async def run() -> None:
        served = serve(greet)
        answer = await served.request(headers={**headers, "x-request-id": "r-1"}, body=body)
        assert answer.status == status
        assert answer.header(b"content-type") == b"application/problem+json"
        problem = answer.json
        assert problem["type"] == f"https://torpor.dev/problems/{slug}"
        assert detail in problem["detail"]
        assert problem["requestId"] == "r-1"
        assert b"secret" not in answer.body
        assert b"Traceback" not in answer.body
        assert served.runtime.metrics.outcomes["refused"] == 1
        assert served.runtime.places.taken == 0

    asyncio.run(run())


def test_names_every_field_at_fault(serve: Any) -> None:
    async def run() -> None:
        answer = await serve(greet).request(headers=JSON, body=b'{"age":"x"}')
        assert {fault["field"] for fault in answer.json["errors"]} == {"name", "age"}

    asyncio.run(run())


def test_takes_only_post(serve: Any) -> None:
    async def run() -> None:
        answer = await serve(greet).request("GET")
        assert (answer.status, answer.header(b"allow")) == (405, b"POST")

    asyncio.run(run())


@pytest.mark.parametrize("body", [b"x" * 65, [b"x" * 40, b"x" * 25]])
@pytest.mark.parametrize("headers", [BINARY, JSON, STRUCTURED])
def test_refuses_a_body_that_is_too_large(serve: Any, headers: Any, body: Any) -> None:
    async def run() -> None:
        answer = await serve(greet, max_body_bytes=64).request(headers=headers, body=body)
        assert (answer.status, answer.json["type"]) == (413, "https://torpor.dev/problems/too-large")

    asyncio.run(run())


def test_an_attribute_given_twice_is_refused(serve: Any) -> None:
    async def run() -> None:
        pairs = [(name.encode(), value.encode()) for name, value in [*BINARY.items(), ("ce-id", "2")]]
        answer = await serve(greet).request(headers=pairs)
        assert answer.status == 400
        assert "twice" in answer.json["detail"]

    asyncio.run(run())


@pytest.mark.parametrize("style", ["async", "sync", "generator", "async generator"])
def test_a_handler_that_fails_tells_its_log_and_not_its_caller(
    serve: Any, style: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @function
    async def coroutine(data: bytes) -> None:
        raise LookupError("password=hunter2")

    @function
    def plain(data: bytes) -> None:
        raise LookupError("password=hunter2")

    @function
    def generator(data: bytes) -> Any:
        yield 1
        raise LookupError("password=hunter2")

    @function
    async def async_generator(data: bytes) -> Any:
        yield 1
        raise LookupError("password=hunter2")

    handlers = {"async": coroutine, "sync": plain, "generator": generator, "async generator": async_generator}

    async def run() -> None:
        served = serve(handlers[style])
        answer = await served.event(b"x")
        assert (answer.status, answer.json["type"]) == (500, "https://torpor.dev/problems/handler-failed")
        assert b"hunter2" not in answer.body
        assert b"LookupError" not in answer.body
        assert served.runtime.metrics.outcomes["failed"] == 1

    asyncio.run(run())
    [record] = [record for record in caplog.records if record.name == "torpor.runtime"]
    assert record.exc_info is not None
    assert "hunter2" in record.getMessage()


@pytest.mark.parametrize(
    "value",
    [object(), {"a": object()}, "\ud800", [CloudEvent({"type": "t", "source": "/s"}, None)]],
)
def test_a_reply_that_cannot_be_sent(serve: Any, value: Any) -> None:
    @function
    async def handler(data: bytes) -> Any:
        return value

    async def run() -> None:
        served = serve(handler)
        for answer in (await served.event(b"x"), await served.request(body=b"x")):
            assert (answer.status, answer.json["type"]) == (500, "https://torpor.dev/problems/invalid-reply")

    asyncio.run(run())


def test_a_handler_that_raises_what_ends_processes_ends_none(serve: Any) -> None:
    @function
    async def handler(data: bytes) -> None:
        raise SystemExit(3)

    async def run() -> None:
        assert (await serve(handler).event(b"x")).status == 500

    asyncio.run(run())


# --- any bytes --------------------------------------------------------------------------------------------


@function
async def takes_anything(event: CloudEvent) -> Any:
    return event.get_data()


@function
def splits(data: Any) -> Any:
    yield data
    yield data


@function
async def joins(items: list[CloudEvent]) -> int:
    return len(items)


_NAMES = st.sampled_from(
    [
        *BINARY,
        "content-type",
        "content-length",
        "ce-time",
        "ce-subject",
        "ce-dataref",
        "ce-fanoutid",
        "ce-fanoutindex",
        "ce-fanoutsize",
        "ce-fanoutouter",
        "ce-traceparent",
        "traceparent",
        "torpor-attempt",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-request-id",
    ]
)
_TEXTS = st.one_of(
    st.sampled_from(
        [
            "1.0",
            "application/json",
            "text/plain; charset=utf-16",
            "text/plain; charset=nope",
            "application/cloudevents+json",
            "application/cloudevents-batch+json",
            "3.16.a,x",
            "0",
            "99999999999999999999",
            "2026-01-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "%e4%b8%ad",
            "%zz",
        ]
    ),
    st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=20),
)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_EVENTS = st.fixed_dictionaries(
    {"specversion": st.just("1.0"), "id": _TEXTS, "source": _TEXTS, "type": _TEXTS},
    optional={
        "data": _JSON,
        "data_base64": _TEXTS,
        "datacontenttype": _TEXTS,
        "fanoutid": st.just("g"),
        "fanoutindex": _TEXTS,
        "fanoutsize": _TEXTS,
        "fanoutouter": _TEXTS,
    },
)


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()


_BODIES = st.one_of(
    st.binary(max_size=60), _JSON.map(_dump), _EVENTS.map(_dump), st.lists(_EVENTS, max_size=3).map(_dump)
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    handler=st.sampled_from([greet, takes_anything, splits, joins]),
    method=st.sampled_from(["POST", "POST", "POST", "GET", "PUT"]),
    headers=st.dictionaries(_NAMES, _TEXTS, max_size=8),
    whole=st.booleans(),
    body=_BODIES,
)
def test_no_bytes_make_it_fail(
    serve: Any, handler: Any, method: Any, headers: Any, whole: Any, body: Any
) -> None:
    sent = {**BINARY, **headers} if whole else headers

    async def run() -> None:
        served = serve(handler)
        answer = await served.request(method, "/", sent, body)
        assert 200 <= answer.status < 500, (answer.status, answer.body)
        if answer.status >= 400:
            assert orjson.loads(answer.body)["detail"]
        for event in answer.events:
            assert event.id
        assert served.runtime.places.taken == 0
        assert len(served.runtime.calls) == 0

    asyncio.run(run())
