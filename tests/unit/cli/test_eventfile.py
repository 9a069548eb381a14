"""Files of events: every form is read alike, and what is wrong is named by its line."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.binding import WireEvent, encode_batch, encode_structured
from torpor.cli.eventfile import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, batches, read_events
from torpor.errors import MalformedEventError


def event(index: int, data: bytes | None = None) -> WireEvent:
    attributes = {"specversion": "1.0", "id": str(index), "source": "/a", "type": "b"}
    if data is not None:
        attributes["datacontenttype"] = "application/octet-stream"
    return WireEvent(attributes, data)


def read(content: bytes) -> list[WireEvent]:
    return list(read_events(io.BytesIO(content)))


THREE = [event(0), event(1), event(2)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b" \n\n", []),
        (encode_structured(event(0)), THREE[:1]),
        (json.dumps(json.loads(encode_structured(event(0))), indent=2).encode(), THREE[:1]),
        (encode_batch(THREE), THREE),
        (json.dumps(json.loads(encode_batch(THREE)), indent=2).encode(), THREE),
        (b"[]", []),
        (b"\n".join(map(encode_structured, THREE)), THREE),
        (b"\n\r\n" + b"\r\n\n".join(map(encode_structured, THREE)) + b"\n", THREE),
    ],
)
def test_one_an_array_and_one_a_line_are_read(content: bytes, expected: list[WireEvent]) -> None:
    assert read(content) == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"rubbish", "line 1: the body is not JSON"),
        (b"\n{}", "line 2: attribute 'specversion' is missing"),
        (encode_structured(event(0)) + b"\n\n{}\n", "line 3: attribute 'specversion' is missing"),
        (b"[{}]", "event 1 of the batch: attribute 'specversion' is missing"),
        (b'{\n"id": 1\n}', "attribute 'id' is 1, a text was expected"),
        (b"{}\n" + encode_structured(event(0)), "line 1: attribute 'specversion' is missing"),
        (b"\xff\xfe", "line 1: the body has the byte 0xff, UTF-8 text was expected"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(content: bytes, words: str) -> None:
    with pytest.raises(MalformedEventError, match=words):
        read(content)


def test_lines_are_read_as_they_are_asked_for() -> None:
    events = read_events(io.BytesIO(encode_structured(event(0)) + b"\nrubbish"))
    assert next(events) == event(0)
    with pytest.raises(MalformedEventError, match="line 2"):
        next(events)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail_otherwise(content: bytes) -> None:
    with contextlib.suppress(MalformedEventError):
        assert all(one.id for one in read(content))


@given(st.lists(st.integers(0, MAX_BATCH_BYTES + 10), max_size=400))
def test_batches_keep_the_order_and_their_bounds(sizes: list[int]) -> None:
    events = [event(index, bytes(size)) for index, size in enumerate(sizes)]
    found = list(batches(events))
    assert [one for batch in found for one in batch] == events
    for batch in found:
        assert 0 < len(batch) <= MAX_BATCH_EVENTS
        assert len(batch) == 1 or sum(len(one.data or b"") for one in batch) <= MAX_BATCH_BYTES


def test_what_comes_before_a_fault_is_handed_out_first() -> None:
    content = b"\n".join([*map(encode_structured, THREE), b"rubbish"])
    handed_out = batches(read_events(io.BytesIO(content)))
    assert next(handed_out) == THREE
    with pytest.raises(MalformedEventError, match="line 4"):
        next(handed_out)
