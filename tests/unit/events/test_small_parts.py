"""Names, dead letters, replies, claims, counters and the control API's documents."""

from __future__ import annotations

import asyncio
import base64

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from tests.unit.events.world import answer, event, trigger
from torpor.binding import WireEvent, encode_batch
from torpor.endpoint import Endpoint
from torpor.errors import BlobNotFoundError, MalformedEventError, RecordTooLargeError
from torpor.events import jetstream_codec as codec
from torpor.events.claims import Claims
from torpor.events.dead_letters import dead_letters
from torpor.events.declaration import Declaration, EventsState, TriggerReport
from torpor.events.declared import Callee
from torpor.events.facts import MAX_DATA_BYTES
from torpor.events.names import identity, key_matches, token
from torpor.events.replies import MAX_HOPS, hops, replies
from torpor.events.stats import Stats
from torpor.spec.models import Delivery, Filter, Join, TriggerSpec
from torpor.transport import Response, encode_fields
from torpor.transport.message import decode_fields

# --- names --------------------------------------------------------------------------------------------------


@given(st.text(max_size=300))
def test_a_token_is_one_step_of_a_path(text: str) -> None:
    made = token(text)
    assert made
    assert len(made) <= 120
    assert all(character.isascii() and (character.isalnum() or character in "_-=") for character in made)


@given(st.text(max_size=150), st.text(max_size=150))
def test_different_texts_have_different_tokens(one: str, other: str) -> None:
    assert (token(one) == token(other)) == (one == other)


@given(st.text(), st.text(), st.text(), st.text())
def test_identity_is_of_source_and_id_apart(source: str, event_id: str, source2: str, id2: str) -> None:
    same = (source, event_id) == (source2, id2)
    assert (identity(source, event_id) == identity(source2, id2)) == same


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("a", "a", True),
        ("a", "a.b", False),
        ("a.>", "a.b", True),
        ("a.>", "a", False),
        ("a.>", "ab.c", False),
        (">", "a", True),
    ],
)
def test_key_matches(pattern: str, key: str, matches: bool) -> None:
    assert key_matches(pattern, key) is matches


# --- dead letters -------------------------------------------------------------------------------------------


def test_a_dead_letter_says_why() -> None:
    [record] = dead_letters(
        [event("1", "some.type", b"x", subject="s")],
        trigger_key="ns/t",
        function_key="ns/f",
        sequence=1,
        attempt=4,
        reason="bad\nthing" + "x" * 1000,
        code=500,
        data=b"e" * 5000,
    )
    attributes = record.event.attributes
    assert attributes["subject"] == "s"
    assert record.event.data == b"x"
    assert attributes["knativeerrordest"] == "/function/f.ns"
    assert attributes["knativeerrorcode"] == "500"
    assert len(attributes["knativeerrordata"]) == 1024
    assert base64.b64decode(attributes["knativeerrordata"]) == b"e" * 768
    assert attributes["torportrigger"] == "ns/t"
    assert attributes["torporattempts"] == "4"
    assert attributes["torporerror"].startswith("bad thing")
    assert len(attributes["torporerror"]) == 512
    assert record.key == f"{record.identity[:14]}.{record.identity[14:]}.some=2Etype"


def test_a_dead_letter_without_an_answer() -> None:
    [record] = dead_letters(
        [event("1")],
        trigger_key="a/t",
        function_key="a/f",
        sequence=1,
        attempt=1,
        reason="r",
        code=None,
        data=b"",
    )
    assert "knativeerrorcode" not in record.event.attributes
    assert "knativeerrordata" not in record.event.attributes


# --- replies ------------------------------------------------------------------------------------------------


def test_replies_carry_the_hops_that_are_left() -> None:
    found = replies(answer(events=[event("1/0"), event("1/1")]), [event("1")])
    assert [each.attributes["knativebrokerttl"] for each in found] == [str(MAX_HOPS - 1)] * 2
    assert hops(found[0]) == MAX_HOPS - 1


@pytest.mark.parametrize(
    ("text", "left"), [("3", 3), ("0", 0), ("x", MAX_HOPS), ("-1", MAX_HOPS), ("999999", MAX_HOPS)]
)
def test_hops(text: str, left: int) -> None:
    assert hops(event("1", knativebrokerttl=text)) == left


def test_a_function_that_answers_itself_is_stopped() -> None:
    with pytest.raises(MalformedEventError, match="answering itself"):
        replies(answer(events=[event("1")]), [event("1"), event("2", knativebrokerttl="1")])
    assert replies(answer(), [event("1", knativebrokerttl="1")]) == []


def test_an_answer_without_an_event_is_no_reply() -> None:
    assert replies(Response(200, [(b"content-type", b"application/json")], b"{}"), [event("1")]) == []


@pytest.mark.parametrize("body", [b"no json", b"{}", b'[{"id": "1"}]'])
def test_a_broken_reply_is_said_to_be(body: bytes) -> None:
    with pytest.raises(MalformedEventError, match="the function's reply is no valid CloudEvent"):
        replies(Response(200, [(b"content-type", b"application/cloudevents-batch+json")], body), [event("1")])


# --- claims -------------------------------------------------------------------------------------------------


class _Store:
    async def put(self, data: bytes, content_type: str | None = None) -> str:
        return f"store:{len(data)}:{content_type}"

    async def read(self, reference: str, max_bytes: int) -> bytes | None:
        if reference.startswith("gone"):
            raise BlobNotFoundError(reference)
        size = int(reference.split(":")[1])
        return b"x" * size if size <= max_bytes else None

    async def get(self, reference: str) -> bytes:
        return reference.encode()


@pytest.mark.parametrize(("size", "claimed"), [(10, False), (11, True)])
def test_large_data_is_checked_in(size: int, claimed: bool) -> None:
    given_event = event("1", data=b"x" * size, datacontenttype="text/plain")
    checked = asyncio.run(Claims(_Store(), 10).check_in(given_event))
    if claimed:
        assert checked.data is None
        assert checked.attributes == {**given_event.attributes, "dataref": "store:11:text/plain"}
    else:
        assert checked is given_event


def test_without_a_store_events_stay_as_they_are() -> None:
    given_event = event("1", data=b"x" * 1000)
    assert asyncio.run(Claims(None, 10).check_in(given_event)) is given_event


@pytest.mark.parametrize(
    ("attributes", "data", "seen"),
    [
        ({"dataref": "store:3:"}, None, b"xxx"),
        ({"dataref": "store:3:", "datacontenttype": "application/vnd.x+json"}, None, b"xxx"),
        ({"dataref": "store:3:", "datacontenttype": "image/png"}, None, None),
        ({"dataref": f"store:{MAX_DATA_BYTES}:"}, None, b"x" * MAX_DATA_BYTES),
        ({"dataref": f"store:{MAX_DATA_BYTES + 1}:"}, None, None),
        ({"dataref": "gone:3"}, None, None),
        ({"dataref": "store:3:"}, b"own", b"own"),
        ({}, None, None),
    ],
)
def test_data_that_was_checked_in_is_looked_into(
    attributes: dict[str, str], data: bytes | None, seen: bytes | None
) -> None:
    given_event = WireEvent({**event("1").attributes, **attributes}, data)
    looked_into = asyncio.run(Claims(_Store()).looked_into(given_event))
    assert (looked_into.attributes, looked_into.data) == (given_event.attributes, seen)
    assert asyncio.run(Claims(None).looked_into(given_event)) is given_event


@pytest.mark.parametrize("store", [None, _Store()])
def test_what_the_log_does_not_take_is_explained(store: _Store | None) -> None:
    said = Claims(store).too_large(RecordTooLargeError("event '1' has 9 bytes, at most 8"))
    assert said.startswith("event '1' has 9 bytes, at most 8")
    assert ("no place for blobs" in said) is (store is None)


# --- counters -----------------------------------------------------------------------------------------------


def test_counters_outlast_the_process() -> None:
    stats = Stats()
    stats.count_published("a/b", 3)
    stats.count_refused("too-large")
    stats.of("a/t").delivered = 2
    stats.of("a/gone").failed = 1
    again = Stats()
    again.load(stats.dump())
    again.forget_all_but(["a/t"])
    assert again.published == {"a/b": 3}
    assert again.of("a/t").delivered == 2
    assert set(again.triggers) == {"a/t"}
    registry = CollectorRegistry()
    registry.register(again)
    text = generate_latest(registry).decode()
    assert 'torpor_events_delivered_total{namespace="a",trigger="t"} 2.0' in text
    assert 'torpor_events_published_total{broker="b",namespace="a"} 3.0' in text
    assert 'torpor_events_refused_total{problem="too-large"} 1.0' in text


@pytest.mark.parametrize(
    "dumped",
    [b"", b"[]", b"{}", b'{"published": 1}', b'{"published":{},"refused":{},"triggers":{"a":{"x":1}}}'],
)
def test_other_files_are_no_counters(dumped: bytes) -> None:
    with pytest.raises((TypeError, ValueError)):
        Stats().load(dumped)


# --- documents ----------------------------------------------------------------------------------------------


def test_a_declaration_survives_its_way() -> None:
    spec = TriggerSpec(
        filters=(Filter(any=(Filter(prefix={"type": "a"}), Filter(not_=Filter(suffix={"source": "b"})))),),
        subscriber=trigger().spec.subscriber,
        delivery=Delivery(retry=2, backoff_policy="linear", backoff_delay_seconds=0.05, timeout_seconds=1.5),
        join=Join(timeout_seconds=0.25, on_timeout="partial"),
        parallelism=3,
    )
    sent = Declaration(
        triggers=(trigger("a", "x"), trigger("b").model_copy(update={"spec": spec})),
        brokers=("n/b",),
        functions={"n/f": Callee(timeout_seconds=1.5, methods=("GET",), max_body_bytes=7)},
        gateway="127.0.0.1:4711",
    )
    got = Declaration.model_validate_json(sent.model_dump_json(exclude_none=True))
    assert got == sent
    assert got.endpoint() == Endpoint("127.0.0.1", 4711)
    assert got.declared().all_brokers() == {"n/b", "default/default"}
    assert got.declared().callee("n/f").timeout_seconds == 1.5
    assert Declaration().endpoint() is None


def test_the_state_answers_by_key() -> None:
    state = EventsState(
        published_by_broker={"a/b": 2}, triggers={"a/t": TriggerReport(delivered=1, problem="p")}
    )
    again = EventsState.model_validate_json(state.model_dump_json())
    counts = again.counts("a/t")
    assert counts is not None
    assert counts.delivered == 1
    assert (again.problem("a/t"), again.problem("a/u"), again.counts("a/u")) == ("p", "", None)
    assert (again.published("a/b"), again.published("a/c")) == (2, 0)


# --- the codec of JetStream ---------------------------------------------------------------------------------

_printable = st.text(st.characters(blacklist_categories=("Cc", "Cs")), min_size=1, max_size=30)
_names = st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True).filter(
    lambda name: name not in ("data", "datacontenttype", "specversion", "dataref")
)


@given(st.dictionaries(_names, _printable, max_size=6), st.one_of(st.none(), _printable), st.binary())
def test_events_come_back_from_their_headers(
    attributes: dict[str, str], content_type: str | None, data: bytes
) -> None:
    if content_type is not None:
        attributes = {**attributes, "datacontenttype": content_type}
    headers = codec.headers_of(WireEvent(attributes, data))
    assert all(value.isascii() and value == value.strip() for value in headers.values())
    headers["Nats-Msg-Id"] = "x"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    back = codec.event_of(f"{lines}\r\n".encode("ascii"), data)
    assert back.attributes == attributes
    assert (back.data or b"") == data


def test_what_a_delivery_says_of_itself() -> None:
    for prefix in ("$JS.ACK", "$JS.ACK.domain.account"):
        reply = f"{prefix}.stream.consumer.3.17.5.1767225600123456789.2"
        stored, attempt = codec.stored_of_delivery("a.b", "torpor.a+b.some.key", reply, WireEvent({}, None))
        assert (stored.key, stored.sequence, stored.stored_at, attempt) == (
            "some.key",
            17,
            1767225600.123456,
            3,
        )


def test_batches_are_json() -> None:
    assert orjson.loads(encode_batch([event("1")]))[0]["id"] == "1"


@pytest.mark.parametrize(
    ("line", "attributes"),
    [
        ("ce-id:1", {"id": "1"}),
        ("ce-id :  1 ", {"id": "1"}),
        (" ce-mine\t:\t1", {"mine": "1"}),
        ("ce-id: a%20b", {"id": "a b"}),
        ("content-type: a/b; c=%20", {"datacontenttype": "a/b; c=%20"}),
        ("content-type : a/b; c=%20", {"datacontenttype": "a/b; c=%20"}),
        ("ce-datacontenttype: %20", {"datacontenttype": " "}),
        ("ce-content-type: %20", {"content-type": " "}),
        ("ce-id", {}),
        ("ce-a:b: c", {"a": "b: c"}),
        ("Nats-Msg-Id: x", {}),
    ],
)
def test_header_lines_of_others_say_the_same(line: str, attributes: dict[str, str]) -> None:
    assert codec.event_of(f"{line}\r\n\r\n".encode(), b"").attributes == attributes


def test_a_head_comes_back() -> None:
    headers = [(b"a", b"1"), (b"b", b": 2"), (b"c", b"")]
    assert decode_fields(encode_fields(headers)) == headers
    assert decode_fields(b"") == []
