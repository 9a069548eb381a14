"""Groups within groups, and identities that do not depend on order."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torpor.binding import WireEvent
from torpor.errors import MalformedEventError
from torpor.runtime import groups, replies
from torpor.runtime.refusals import InvalidReplyError

_IDS = st.text(min_size=1, max_size=12)
_PLACES = st.tuples(_IDS, st.integers(0, 99), st.integers(1, 100))
_MAKER = replies.Maker("/default/fn", "fn.replied")
_NOW = "2026-01-01T00:00:00Z"


@settings(max_examples=50)
@given(st.lists(_PLACES, max_size=groups.MAX_DEPTH - 1))
def test_what_is_nested_comes_back(places: Any) -> None:
    attributes: dict[str, str] = {}
    passed = []
    for identity, index, size in places:
        passed.append(attributes)
        attributes = groups.part(identity, index, size, groups.outer_of_parts(attributes))
    while passed:
        attributes = groups.restored(attributes)
        assert attributes == passed.pop()
    assert attributes == {}


def test_the_depth_is_bounded() -> None:
    attributes = groups.part("g", 0, 1, None)
    for _ in range(groups.MAX_DEPTH - 1):
        attributes = groups.part("g", 0, 1, groups.outer_of_parts(attributes))
    with pytest.raises(ValueError, match="nested more than 16 deep"):
        groups.outer_of_parts(attributes)


@pytest.mark.parametrize("outer", ["x", "1.2", "1.2.", "-1.2.a", "1.x.a", ",", "1234567890.1.a", "٣.1.a"])
def test_an_outer_place_that_cannot_be_read_is_refused(outer: Any) -> None:
    with pytest.raises(MalformedEventError, match="fanoutouter"):
        groups.restored({"fanoutouter": outer})


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"fanoutid": "g"},
        {"fanoutid": "g", "fanoutindex": "0"},
        {"fanoutid": "g", "fanoutindex": "x", "fanoutsize": "1"},
        {"fanoutid": "", "fanoutindex": "0", "fanoutsize": "1"},
    ],
)
def test_an_event_without_its_whole_place_is_in_no_group(attributes: Any) -> None:
    assert not groups.in_group(attributes)
    assert groups.joined([attributes]) is None


def _part(index: int, size: int, kind: str = "t", group: str = "g") -> WireEvent:
    attributes = {"specversion": "1.0", "id": f"{group}/{index}", "source": "/s", "type": kind}
    return WireEvent({**attributes, **groups.part(group, index, size, "0.2.o")}, b"x")


@settings(max_examples=50)
@given(st.permutations(list(range(12))))
def test_replies_to_a_joined_group_do_not_depend_on_its_order(order: Any) -> None:
    events = [_part(index, 12) for index in order]
    assert [event.attributes["fanoutindex"] for event in replies.in_order(events)] == [
        str(index) for index in range(12)
    ]
    cause = replies.cause_of_batch(events, _MAKER, {})
    reply = replies.single({"a": 1}, cause, _MAKER, _NOW)
    assert re.fullmatch(r"g\.[0-9a-f]{8}/0", reply.id)
    assert reply.attributes["fanoutid"] == "o"


def test_groups_of_different_types_or_ids_have_different_replies() -> None:
    ids = {
        replies.cause_of_batch([_part(0, 1, kind, group)], _MAKER, {}).base
        for kind in ("a", "b")
        for group in "gh"
    }
    assert len(ids) == 4


def test_a_group_yielded_by_a_join_is_nested_in_the_restored_one() -> None:
    cause = replies.cause_of_batch([_part(0, 2), _part(1, 2)], _MAKER, {})
    yielded = replies.many([1, 2], cause, _MAKER, _NOW)
    [group] = {event.attributes["fanoutid"] for event in yielded}
    assert group.startswith("g.")
    assert [event.id for event in yielded] == [f"{group}/0", f"{group}/1"]
    assert {event.attributes["fanoutouter"] for event in yielded} == {"0.2.o"}


def test_replies_to_equal_ids_of_different_producers_are_different_events() -> None:
    def base(source: str, function: str) -> str:
        event = WireEvent({"specversion": "1.0", "id": "1", "source": source, "type": "t"}, None)
        return replies.cause_of(event, replies.Maker(function, "made"), {}).base

    bases = {base(source, function) for source in ("/a", "/b") for function in ("/default/f", "/default/g")}
    assert len(bases) == 4
    assert base("/a", "/default/f") in bases  # the same each time


def test_a_partition_key_is_handed_on_only_if_all_parts_share_it() -> None:
    def cause(*keys: str) -> replies.Cause:
        return replies.cause_of_batch(
            [
                WireEvent({**_part(index, 2).attributes, "partitionkey": key}, None)
                for index, key in enumerate(keys)
            ],
            _MAKER,
            {},
        )

    assert cause("k", "k").handed_on == {"partitionkey": "k"}
    assert cause("k", "l").handed_on == {}


def test_more_replies_than_a_group_may_have_are_refused() -> None:
    cause = replies.Cause("e", {}, {}, {})
    with pytest.raises(InvalidReplyError, match="10000"):
        replies.many([None] * (groups.MAX_PARTS + 1), cause, _MAKER, _NOW)


def test_too_deep_a_fan_out_is_refused() -> None:
    nested = {"fanoutid": "g", "fanoutindex": "0", "fanoutsize": "1", "fanoutouter": ",".join(["0.1.g"] * 15)}
    cause = replies.Cause("e", nested, nested, {})
    with pytest.raises(InvalidReplyError, match="deep"):
        replies.many([1], cause, _MAKER, _NOW)
