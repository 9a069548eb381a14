"""The ingress: what is taken in, what is refused and how; and a fuzz of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torpor.clock import SystemClock
from torpor.errors import EventLogError
from torpor.events.claims import Claims
from torpor.events.ingress import Ingress, IngressLimits
from torpor.events.intake import Intake
from torpor.events.log import StreamSpec
from torpor.events.memory import MemoryLog
from torpor.events.stats import Stats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torpor.binding import WireEvent
    from torpor.events.log import Record

LIMITS = IngressLimits(
    body_bytes=4000, events=5, attributes=12, attribute_bytes=1000, body_seconds=0.2, buffered_bytes=9000
)
EVENT = [(b"ce-specversion", b"1.0"), (b"ce-id", b"1"), (b"ce-source", b"/s"), (b"ce-type", b"t")]
STRUCTURED = [(b"content-type", b"application/cloudevents+json")]
BATCH = [(b"content-type", b"application/cloudevents-batch+json")]


class _Broken:
    async def append(self, stream: str, records: Sequence[Record]) -> list[bool]:
        raise EventLogError("the disk is gone")

    async def size_bytes(self, stream: str) -> int:
        return 0


class Door:
    def __init__(self, **options: Any) -> None:
        clock, stats = SystemClock(), Stats()
        self.log = MemoryLog(clock)
        intake = Intake(options.pop("log", self.log), clock, stats)
        self.ingress = Ingress(intake, clock, options.pop("stats", stats), limits=LIMITS, **options)
        self.ingress.set_brokers(["default/default"])

    async def open(self) -> None:
        await self.log.ensure_stream(StreamSpec("broker.default.default"))

    async def post(
        self,
        headers: list[tuple[bytes, bytes]],
        body: bytes = b"",
        *,
        path: str = "/events/default/default",
        method: str = "POST",
        chunks: Sequence[bytes] | None = None,
        stuck: bool = False,
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        waiting = list(chunks if chunks is not None else [body])
        sent: list[Any] = []

        async def receive() -> Any:
            if waiting:
                chunk = waiting.pop(0)
                return {"type": "http.request", "body": chunk, "more_body": bool(waiting) or stuck}
            if stuck:
                await asyncio.get_running_loop().create_future()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "headers": headers}
        await self.ingress(scope, receive, send)
        if not sent:
            return 0, {}, b""
        assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
        return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]

    async def events(self) -> list[WireEvent]:
        return [stored.event async for stored in self.log.read("broker.default.default", ">")]


def _post(
    *arguments: Any, door: Door | None = None, **options: Any
) -> tuple[int, dict[bytes, bytes], Any, list[WireEvent]]:
    async def run() -> tuple[int, dict[bytes, bytes], Any, list[WireEvent]]:
        used = door or Door()
        await used.open()
        status, headers, body = await used.post(*arguments, **options)
        assert used.ingress._buffered_bytes == 0
        return status, headers, orjson.loads(body) if body else None, await used.events()

    return asyncio.run(run())


def test_an_event_in_binary_mode() -> None:
    status, headers, body, events = _post(
        [*EVENT, (b"content-type", b"text/plain"), (b"x-request-id", b"r")], b"hi"
    )
    assert (status, body, headers[b"x-request-id"]) == (202, None, b"r")
    [event] = events
    assert event.data == b"hi"
    assert event.attributes["datacontenttype"] == "text/plain"


def test_an_event_in_structured_mode_and_a_batch() -> None:
    document = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"a": 1}}
    assert _post(STRUCTURED, orjson.dumps(document))[0] == 202
    status, _, _, events = _post(BATCH, orjson.dumps([{**document, "id": str(n)} for n in range(3)]))
    assert status == 202
    assert [event.id for event in events] == ["0", "1", "2"]
    assert _post(BATCH, b"[]")[0] == 202


def test_an_event_that_is_sent_again_is_taken_in_once() -> None:
    async def run() -> None:
        door = Door()
        await door.open()
        for _ in range(3):
            assert (await door.post(EVENT))[0] == 202
        assert len(await door.events()) == 1

    asyncio.run(run())


@pytest.mark.parametrize(
    ("headers", "body", "status", "slug", "says"),
    [
        ([], b"{}", 415, "unsupported-media-type", "a CloudEvent was expected"),
        ([(b"content-type", b"application/json")], b"{}", 415, "unsupported-media-type", "ce-"),
        ([*EVENT, (b"content-encoding", b"gzip")], b"", 415, "unsupported-media-type", "encoded as 'gzip'"),
        (EVENT[:3], b"", 400, "malformed-event", "attribute 'type' is missing"),
        ([*EVENT[:3], (b"ce-type", b"")], b"", 400, "malformed-event", "attribute 'type' is empty"),
        ([(b"ce-specversion", b"2"), *EVENT[1:]], b"", 400, "malformed-event", "'1.0' was expected"),
        ([*EVENT, (b"ce-time", b"now")], b"", 400, "malformed-event", "RFC 3339"),
        (STRUCTURED, b"{", 400, "malformed-event", "not JSON"),
        (STRUCTURED, b"[]", 400, "malformed-event", "must be a JSON object"),
        (BATCH, b"{}", 400, "malformed-event", "must be a JSON array"),
        (BATCH, b'[{"specversion":"1.0"}]', 400, "malformed-event", "event 1 of the batch"),
        (EVENT, b"x" * 4001, 413, "too-large", "more than 4000 bytes"),
        ([*EVENT, (b"content-length", b"99999")], b"", 413, "too-large", "more than 4000 bytes"),
        ([*EVENT, (b"ce-x", b"y" * 1000)], b"", 413, "too-large", "attributes of"),
        ([*EVENT, *((b"ce-x%d" % n, b"y") for n in range(20))], b"", 413, "too-large", "24 attributes"),
        (
            BATCH,
            orjson.dumps(
                [{"specversion": "1.0", "id": str(n), "source": "/", "type": "t"} for n in range(6)]
            ),
            413,
            "too-large",
            "6 events, at most 5",
        ),
    ],
)
def test_what_is_refused_and_why(
    headers: list[tuple[bytes, bytes]], body: bytes, status: int, slug: str, says: str
) -> None:
    got, answered, problem, events = _post(headers, body)
    assert got == status
    assert answered[b"content-type"] == b"application/problem+json"
    assert problem["type"].endswith(f"/{slug}")
    assert says in problem["detail"]
    assert problem["requestId"] == answered[b"x-request-id"].decode()
    assert events == []


@pytest.mark.parametrize(
    ("path", "method", "status", "says"),
    [
        ("/", "POST", 404, "/events/<namespace>/<broker>"),
        ("/events/default", "POST", 404, "/events/<namespace>/<broker>"),
        ("/events/default/default/x", "POST", 404, "/events/"),
        ("/events/default/other", "POST", 404, "there are: default/default"),
        ("/events/default/default", "GET", 405, "POST"),
    ],
)
def test_addresses(path: str, method: str, status: int, says: str) -> None:
    got, headers, problem, _ = _post(EVENT, path=path, method=method)
    assert got == status
    assert says in problem["detail"]
    assert (headers.get(b"allow") == b"POST") == (status == 405)


def test_a_batch_is_taken_in_whole_or_not_at_all() -> None:
    good = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
    status, _, problem, events = _post(BATCH, orjson.dumps([good, {**good, "id": ""}]))
    assert (status, events) == (400, [])
    assert problem["detail"].startswith("event 2 of the batch")


def test_a_body_in_pieces() -> None:
    assert _post([*EVENT, (b"content-type", b"text/plain")], chunks=[b"a", b"", b"b"])[3][0].data == b"ab"
    assert _post(EVENT, chunks=[b"x" * 3000, b"x" * 3000])[0] == 413


def test_a_body_that_does_not_come() -> None:
    status, _, problem, _ = _post(EVENT, chunks=[b"a"], stuck=True)
    assert status == 400
    assert "did not come within 0.2 seconds" in problem["detail"]


def test_a_producer_that_goes_away_is_not_answered() -> None:
    assert _post(EVENT, chunks=[]) == (0, {}, None, [])


def test_what_all_requests_hold_is_bounded() -> None:
    async def run() -> None:
        door = Door()
        await door.open()
        stuck = [asyncio.ensure_future(door.post(EVENT, chunks=[b"x" * 3500], stuck=True)) for _ in range(2)]
        await asyncio.sleep(0)
        status, headers, body = await door.post(EVENT, b"x" * 3500)
        assert (status, headers[b"retry-after"]) == (503, b"1")
        assert orjson.loads(body)["type"].endswith("/overloaded")
        await asyncio.gather(*stuck)
        assert (await door.post(EVENT, b"x" * 3500))[0] == 202

    asyncio.run(run())


def test_a_log_that_is_out_is_said_to_be() -> None:
    status, headers, problem, _ = _post(EVENT, door=Door(log=_Broken()))
    assert (status, headers[b"retry-after"]) == (503, b"1")
    assert "disk" not in problem["detail"]
    assert "send them again" in problem["detail"]


def test_large_data_goes_to_the_blob_store() -> None:
    class Store:
        async def put(self, data: bytes, content_type: str | None = None) -> str:
            return f"store:{len(data)}"

        async def read(self, reference: str, max_bytes: int) -> bytes | None:
            raise AssertionError(reference)

        async def get(self, reference: str) -> bytes:
            raise NotImplementedError

    door = Door(claims=Claims(Store(), 100))
    [event] = _post([*EVENT, (b"content-type", b"text/plain")], b"x" * 101, door=door)[3]
    assert event.data is None
    assert event.attributes["dataref"] == "store:101"


# --- fuzz ---------------------------------------------------------------------------------------------------

_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False), st.text(max_size=20)
)
_json = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
_attribute = st.sampled_from(
    [
        "specversion",
        "id",
        "source",
        "type",
        "time",
        "subject",
        "datacontenttype",
        "dataschema",
        "data",
        "data_base64",
        "Bad",
        "x",
        "dataref",
    ]
)
_good = st.fixed_dictionaries(
    {
        "specversion": st.just("1.0"),
        "id": st.text(min_size=1, max_size=5),
        "source": st.just("/s"),
        "type": st.text(min_size=1, max_size=5),
    },
    optional={"data": _json, "datacontenttype": st.sampled_from(["application/json", "text/plain", "x"])},
)
_document = st.one_of(_good, st.dictionaries(_attribute, _scalars, max_size=8), _json)
_body = st.one_of(
    _document.map(orjson.dumps),
    st.lists(_document, max_size=7).map(orjson.dumps),
    st.binary(max_size=200),
    st.binary(min_size=3990, max_size=4010),
)
_header = st.one_of(
    st.tuples(
        st.sampled_from(
            [b"ce-id", b"ce-source", b"ce-type", b"ce-specversion", b"ce-time", b"ce-x", b"ce-", b"ce-data"]
        ),
        st.binary(max_size=30),
    ),
    st.tuples(
        st.just(b"content-type"),
        st.sampled_from(
            [
                b"application/cloudevents+json",
                b"application/cloudevents-batch+json; charset=utf-8",
                b"text/plain",
                b"\xff",
                b"",
            ]
        ),
    ),
    st.tuples(
        st.just(b"content-length"),
        st.sampled_from([b"1", b"99999999999999999999999", b"-1", b"x", "٣".encode()]),
    ),
    st.tuples(st.just(b"x-request-id"), st.binary(max_size=20)),
)
_headers = st.lists(_header, max_size=6).flatmap(
    lambda made: st.sampled_from([made, [*EVENT, *made], [*STRUCTURED, *made], [*BATCH, *made]])
)


@settings(max_examples=300, deadline=None)
@given(_headers, st.lists(_body, min_size=1, max_size=2))
def test_whatever_comes_is_taken_in_or_refused_with_a_reason(
    headers: list[tuple[bytes, bytes]], chunks: list[bytes]
) -> None:
    status, answered, problem, events = _post(headers, chunks=chunks)
    assert status in (202, 400, 413, 415)
    if status == 202:
        mode = next((value for name, value in headers if name == b"content-type"), b"")
        if mode.startswith(b"application/cloudevents-batch"):
            sent = {(e["source"], e["id"]) for e in orjson.loads(b"".join(chunks))}
            assert len(events) == len(sent)
        else:
            assert len(events) == 1
    else:
        assert events == []
        assert problem["detail"]
        assert problem["status"] == status
        assert "Traceback" not in problem["detail"]
    for name, value in answered.items():
        assert b"\n" not in name + value
        assert b"\r" not in name + value
