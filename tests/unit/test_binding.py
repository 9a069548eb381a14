"""The codec of the data path, held against the specification and against the SDK's own codec."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_binary, from_structured, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from torpor import binding
from torpor.binding import (
    USUAL_NAMES,
    WireEvent,
    decode,
    decode_batch,
    decode_binary,
    decode_structured,
    encode_batch,
    encode_binary,
    encode_structured,
    encode_value,
    from_sdk,
    is_json,
    is_valid,
    to_sdk,
)
from torpor.errors import MalformedEventError
from torpor.events.fields import event_fields
from torpor.transport.message import decode_fields

few = settings(max_examples=40, deadline=None)

REQUIRED = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}

_TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20
)  # no control characters: CloudEvents, section 3.1
_NAMES = st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True).filter(
    lambda name: name not in (*REQUIRED, "data", "time", "datacontenttype", "dataschema", "subject")
)
_TIMES = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2100, 1, 1)).map(  # noqa: DTZ001
    lambda at: at.replace(tzinfo=UTC)
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def wire_events(draw: st.DrawFn) -> WireEvent:
    attributes = {
        "specversion": "1.0",
        "id": draw(_TEXT),
        "source": draw(_TEXT),
        "type": draw(_TEXT),
        **draw(st.dictionaries(_NAMES, _TEXT, max_size=3)),
    }
    if draw(st.booleans()):
        attributes["subject"] = draw(_TEXT)
    if draw(st.booleans()):
        attributes["time"] = draw(_TIMES).isoformat()
    kind = draw(st.sampled_from(["none", "json", "text", "bytes"]))
    if kind == "json":
        return WireEvent(
            {**attributes, "datacontenttype": "application/json"}, json.dumps(draw(_JSON)).encode()
        )
    if kind == "text":
        return WireEvent({**attributes, "datacontenttype": "text/plain"}, draw(_TEXT).encode())
    if kind == "bytes":
        return WireEvent({**attributes, "datacontenttype": "image/png"}, draw(st.binary(min_size=1)))
    return WireEvent(attributes, None)


def _same(one: WireEvent, other: WireEvent) -> bool:
    if one.attributes != other.attributes:
        return False
    if one.data is not None and other.data is not None and is_json(one.attributes.get("datacontenttype")):
        return bool(json.loads(one.data) == json.loads(other.data))
    return one.data == other.data


# --- there and back ---------------------------------------------------------------------------------------


@few
@given(wire_events())
def test_binary_there_and_back(event: Any) -> None:
    headers, body = encode_binary(event)
    assert decode(headers, body) == [event]
    assert all(value.isascii() for name, value in headers if name != b"content-type")
    assert decode_fields(event_fields(event)) == headers


@few
@given(wire_events())
def test_structured_there_and_back(event: Any) -> None:
    assert _same(decode_structured(encode_structured(event)), event)


@few
@given(st.lists(wire_events(), max_size=3))
def test_batch_there_and_back(events: Any) -> None:
    again = decode_batch(encode_batch(events))
    assert len(again) == len(events)
    assert all(_same(one, other) for one, other in zip(again, events, strict=True))


@few
@given(wire_events())
def test_the_sdks_event_there_and_back(event: Any) -> None:
    again = from_sdk(to_sdk(event))
    if event.data is not None and event.data.strip() == b"null" and again.data is None:
        event = WireEvent(event.attributes, None)  # the SDK's event does not tell null from nothing
    expected = event.attributes.get("time")
    assert (expected is None) == ("time" not in again.attributes)
    assert _same(
        WireEvent({**again.attributes, "time": ""}, again.data),
        WireEvent({**event.attributes, "time": ""}, event.data),
    )


# --- against the SDK's codec ------------------------------------------------------------------------------


def _message(event: WireEvent) -> HTTPMessage:
    headers, body = encode_binary(event)
    return HTTPMessage({name.decode(): value.decode("latin-1") for name, value in headers}, body)


def _without_time(event: Any) -> tuple[dict[str, Any], Any]:
    attributes = dict(event.get_attributes())
    attributes.pop("time", None)  # the SDK gives an event without one the time of now
    return attributes, event.get_data()


@few
@given(wire_events())
def test_the_sdk_reads_our_binary_mode_as_we_do(event: Any) -> None:
    theirs = from_binary(_message(event), JSONFormat(), CloudEvent)
    ours = to_sdk(event)
    assert _without_time(theirs)[0] == _without_time(ours)[0]
    if event.data is not None:
        assert _without_time(theirs)[1] == _without_time(ours)[1] or isinstance(theirs.get_data(), str)
    if "time" in event.attributes:
        assert theirs.get_time() == ours.get_time()


@few
@given(wire_events())
def test_the_sdk_reads_our_structured_mode(event: Any) -> None:
    content = {"content-type": "application/cloudevents+json"}
    theirs = from_structured(HTTPMessage(content, encode_structured(event)), JSONFormat(), CloudEvent)
    assert _without_time(theirs)[0] == _without_time(to_sdk(event))[0]


@few
@given(wire_events())
def test_we_read_the_sdks_messages(event: Any) -> None:
    made = to_sdk(event)
    for message in (to_binary(made, JSONFormat()), to_structured(made, JSONFormat())):
        headers = [(name.lower().encode(), value.encode()) for name, value in message.headers.items()]
        events = decode(headers, message.body)
        assert events is not None
        [ours] = events
        expected = {name: value for name, value in event.attributes.items() if name != "time"}
        got = {name: value for name, value in ours.attributes.items() if name != "time"}
        got.pop("datacontenttype", None)
        expected.pop("datacontenttype", None)
        assert got == expected


# --- what is refused --------------------------------------------------------------------------------------


def _headers(**attributes: str) -> list[tuple[bytes, bytes]]:
    merged = {**REQUIRED, **attributes}
    return [(f"ce-{name}".encode(), value.encode()) for name, value in merged.items()]


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"id": ""}, "'id' is empty"),
        ({"specversion": "1.1"}, "'1.1', '1.0' was expected"),
        ({"Upper": "x"}, "lower-case letters and digits"),
        ({"a-b": "x"}, "lower-case letters and digits"),
        ({"data": "x"}, "can't be the name"),
        ({"time": "2026-01-01"}, "RFC 3339"),
        ({"time": "2026-02-30T00:00:00Z"}, "RFC 3339"),
        ({"time": "2026-01-01T00:00:00"}, "RFC 3339"),
        ({"subject": ""}, "'subject' is empty"),
        ({"x": "a%01b"}, "control character"),
        ({"x": "%ff"}, "UTF-8"),
        ({"partitionkey": "%0A"}, "control character"),
    ],
)
def test_malformed_attributes_are_named(attributes: Any, reason: Any) -> None:
    with pytest.raises(MalformedEventError, match=reason):
        decode_binary(_headers(**attributes), b"")


@pytest.mark.parametrize("missing", list(REQUIRED))
def test_a_missing_attribute_is_named(missing: Any) -> None:
    headers = [pair for pair in _headers() if pair[0] != f"ce-{missing}".encode()]
    with pytest.raises(MalformedEventError, match=f"'{missing}' is missing"):
        decode_binary(headers, b"")


@given(
    st.dictionaries(
        st.sampled_from(sorted(USUAL_NAMES)) | st.text(max_size=4),
        st.sampled_from(
            ["", "1.0", "a", "ü", "\n", "\x7f", "\u2028", "2026-02-30T00:00:00Z", "2026-03-01T00:00:00Z"]
        )
        | st.text(max_size=4),
    ),
    st.sets(st.sampled_from(sorted(REQUIRED))),
)
def test_what_is_valid_does_not_depend_on_how_usual_it_is(attributes: Any, missing: Any) -> None:
    given_ = {name: text for name, text in {**REQUIRED, **attributes}.items() if name not in missing}
    answers = []
    for quick in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not quick:
                patch.setattr(binding, "USUAL_NAMES", frozenset())
            answers.append(is_valid(WireEvent(given_, None)))
    assert answers[0] == answers[1]


def test_an_attribute_given_twice_is_refused() -> None:
    for name in (b"ce-id", b"ce-color"):
        with pytest.raises(MalformedEventError, match="twice"):
            decode_binary([*_headers(color="red"), (name, b"2")], b"")


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("[]", "JSON object"),
        ("{", "not JSON"),
        ('{"specversion":"1.0","id":1,"source":"s","type":"t"}', "'id' is 1, a text"),
        ('{"specversion":"1.0","id":"1","source":"s","type":"t","data":1,"data_base64":"eA=="}', "not both"),
        ('{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"!"}', "not base64"),
        ('{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":7}', "not base64"),
        (
            '{"specversion":"1.0","id":"1","source":"s","type":"t","x":1.5}',
            "'x' is 1.5, a whole number of 32 bits, true, false or a text was expected",
        ),
        ('{"specversion":"1.0","id":"1","source":"s","type":"t","x":{}}', "'x' is {}, a whole number"),
        (
            '{"specversion":"1.0","id":"1","source":"s","type":"t","n":99999999999}',
            "'n' is 99999999999, a whole number of 32 bits, true, false or a text was expected",
        ),
        (
            '{"specversion":"1.0","id":"1","source":"s","type":"t","subject":true}',
            "'subject' is true, a text was",
        ),
        (
            '{"specversion":"1.0","id":"1","source":"s","type":"t","x":["%s"]}' % ("a" * 57 + "ü"),
            "a whole number of 32 bits",
        ),
    ],
)
def test_malformed_documents_are_explained(document: Any, reason: Any) -> None:
    with pytest.raises(MalformedEventError, match=reason):
        decode_structured(document.encode())


@pytest.mark.parametrize(
    ("body", "byte"),
    [(b"\xff\xfe{\0}\0", "0xff"), (b'{"id":"\xe9"}', "0xe9"), ("{\u20ac".encode()[:-1], "0xe2")],
)
def test_what_is_no_utf_8_is_told_by_its_byte(body: bytes, byte: str) -> None:
    for read in (decode_structured, decode_batch):
        with pytest.raises(
            MalformedEventError, match=f"^the body has the byte {byte}, UTF-8 text was expected$"
        ):
            read(body)


DEEP = b"[" * 300 + b"]" * 300


def test_what_is_nested_too_deeply_is_told() -> None:
    for name, reason in ((b"data", "nested too deeply"), (b"x", "or a text was expected")):
        document = b'{"specversion":"1.0","id":"1","source":"/s","type":"t","%b":%b}' % (name, DEEP)
        with pytest.raises(MalformedEventError, match=reason):
            decode_structured(document)


@pytest.mark.parametrize("levels", [1, 253, 254, 255, 300, 2000])
def test_data_of_any_depth_goes_into_a_batch_and_comes_out_again(levels: int) -> None:
    data = b"[" * levels + b"]" * levels
    deep = WireEvent({**REQUIRED, "datacontenttype": "application/json"}, data)
    assert decode_batch(encode_batch([deep, deep])) == [deep, deep]
    assert decode_structured(encode_structured(deep)) == deep


def test_a_batch_says_which_event_is_wrong() -> None:
    good = encode_structured(WireEvent(REQUIRED, None)).decode()
    with pytest.raises(MalformedEventError, match="event 2 of the batch"):
        decode_batch(f"[{good},{{}}]".encode())


@few
@given(st.binary(max_size=80))
def test_no_bytes_raise_anything_else(body: Any) -> None:
    for content_type in (b"application/cloudevents+json", b"application/cloudevents-batch+json"):
        try:
            decode([(b"content-type", content_type)], body)
        except MalformedEventError:
            continue


@few
@given(
    st.lists(
        st.tuples(st.sampled_from([b"ce-id", b"ce-time", b"ce-x", b"content-type"]), st.binary()), max_size=5
    )
)
def test_no_headers_raise_anything_else(headers: Any) -> None:
    try:
        decode([*_headers(), *headers], b"{}")
    except MalformedEventError:
        return


# --- details of the specification -------------------------------------------------------------------------


def test_what_is_no_event_is_none() -> None:
    assert decode([(b"content-type", b"application/json")], b"{}") is None


@pytest.mark.parametrize(
    ("value", "header"),
    [("Euro € 😀", b"Euro%20%E2%82%AC%20%F0%9F%98%80"), ('a"b%c', b"a%22b%25c"), ("a-b_c~!", b"a-b_c~!")],
)
def test_values_are_percent_encoded_as_the_binding_says(value: Any, header: Any) -> None:
    assert encode_value(value) == header
    [pair] = [(b"ce-x", header)]
    assert decode_binary([*_headers(), pair], b"").attributes["x"] == value


def test_data_of_no_length_is_data_where_it_has_a_type() -> None:
    assert decode_binary(_headers(), b"").data is None
    assert decode_binary([*_headers(), (b"content-type", b"text/plain")], b"").data == b""


@pytest.mark.parametrize(("value", "text"), [(True, "true"), (False, "false"), (-7, "-7")])
def test_attributes_of_other_types_become_text(value: Any, text: Any) -> None:
    document = json.dumps({**REQUIRED, "x": value, "y": None}).encode()
    assert decode_structured(document).attributes == {**REQUIRED, "x": text}


def test_a_leap_second_is_a_time() -> None:
    event = decode_binary(_headers(time="2016-12-31T23:59:60z"), b"")
    assert to_sdk(event).get_time() == datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)


def test_data_that_says_it_is_json_must_be() -> None:
    event = WireEvent({**REQUIRED, "datacontenttype": "application/json"}, b"{")
    with pytest.raises(MalformedEventError, match="not JSON"):
        to_sdk(event)
    assert decode_structured(encode_structured(event)).data == b"{", "it is passed on as it is"


@pytest.mark.parametrize("name", ["a\r\nx", "a\n", "a\0b"])
def test_a_name_that_would_break_the_framing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        event_fields(WireEvent({"id": "1", name: "2"}, None))
