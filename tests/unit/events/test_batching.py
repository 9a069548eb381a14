"""What goes into a batch, and what an answer says of each of its events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.events.world import answer, event
from torpor.binding import decode
from torpor.events.batching import MAX_BYTES, Contents, verdict
from torpor.problems import detail_of
from torpor.transport import Response
from torpor.transport.message import decode_fields


def _contents(*ids: str, size: int = 10) -> Contents:
    contents = Contents(size)
    for number, each in enumerate(ids, start=1):
        contents.add(event(each), number)
    return contents


def test_the_request_has_the_events_and_the_highest_attempt() -> None:
    fields, body = _contents("a", "b").request()
    headers = decode_fields(fields)
    assert [each.id for each in decode(headers, body) or []] == ["a", "b"]
    assert dict(headers)[b"torpor-attempt"] == b"2"
    assert dict(headers)[b"torpor-batch"] == b"partial"


def test_a_batch_has_its_size_no_id_twice_and_a_bound_of_bytes() -> None:
    contents = _contents("a", "b", size=3)
    assert not contents.takes(event("a", source="/other"))
    assert not contents.takes(event("c", data=b"x" * MAX_BYTES))
    assert contents.takes(event("c"))
    contents.add(event("c"), 1)
    assert contents.full
    assert not contents.takes(event("d"))
    assert _contents().takes(event("c", data=b"x" * MAX_BYTES))  # alone, whatever its size


def told(response: Response) -> str:
    """What a person reads of an answer as the reason."""
    return detail_of(response.header(b"content-type"), response.body)


@pytest.mark.parametrize("status", [200, 202, 204])
def test_those_that_are_named_failed(status: int) -> None:
    contents = _contents("a", "b,c", "ü")
    said = verdict(answer(status, torpor_failed_ids="b%2Cc, %C3%BC", retry_after="7"), contents)
    assert [said.of(each).status for each in contents.events] == [status, 503, 503]
    assert said.of(contents.events[1]).header(b"retry-after") == b"7"
    assert (
        told(said.of(contents.events[1])) == f"its answer to the batch, {status}, names this event as failed"
    )


def test_ids_may_be_named_in_several_lines() -> None:
    lines = [(b"torpor-failed-ids", b"1"), (b"x", b"y"), (b"torpor-failed-ids", b"3")]
    said = verdict(Response(204, lines, b""), _contents("1", "2", "3"))
    assert said.failed == {"1", "3"}


@pytest.mark.parametrize("value", ["x", "a,x", "%FF"])
def test_an_answer_that_names_what_was_not_there_counts_for_nobody(value: str) -> None:
    contents = _contents("a", "b")
    said = verdict(answer(204, torpor_failed_ids=value), contents)
    assert [said.of(each).status for each in contents.events] == [502, 502]
    assert "as failed, which was not in the batch" in told(said.of_all)


@pytest.mark.parametrize(
    "response", [answer(204), answer(204, torpor_failed_ids=""), answer(422), answer(503)]
)
def test_any_other_answer_is_for_all(response: Response) -> None:
    contents = _contents("a", "b")
    assert {verdict(response, contents).of(each).status for each in contents.events} == {response.status}
    failing = Response(500, [(b"torpor-failed-ids", b"a")], b"")
    assert {verdict(failing, contents).of(each).status for each in contents.events} == {500}


@given(st.binary(max_size=60))
def test_no_header_raises_anything(value: bytes) -> None:
    contents = _contents("a", "b")
    said = verdict(Response(204, [(b"torpor-failed-ids", value)], b""), contents)
    assert {said.of(each).status for each in contents.events} <= {204, 502, 503}
