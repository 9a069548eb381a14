"""Filters, and what is said of their verdicts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.events.filters import Matcher
from torpor.spec.models import Filter

EVENT = {"type": "com.example.made", "source": "/shop/7", "subject": "order"}
YES, NO = Filter(exact={"subject": "order"}), Filter(exact={"subject": "other"})


@pytest.mark.parametrize(
    ("item", "matches", "reason"),
    [
        (YES, True, "all 1 filters match"),
        (NO, False, "filter 1: attribute 'subject' is 'order', which is not: is 'other'"),
        (Filter(exact={"type": "com.example.made", "source": "/shop/7"}), True, "all 1 filters match"),
        (
            Filter(exact={"type": "com.example.made", "source": "/shop"}),
            False,
            "filter 1: attribute 'source' is '/shop/7', which is not: is '/shop'",
        ),
        (Filter(exact={"absent": "x"}), False, "filter 1: attribute 'absent' is missing"),
        (Filter(prefix={"type": "com.example."}), True, "all 1 filters match"),
        (Filter(prefix={"type": "example"}), False, None),
        (Filter(prefix={"absent": "x"}), False, "filter 1: attribute 'absent' is missing"),
        (Filter(suffix={"type": ".made"}), True, None),
        (
            Filter(suffix={"type": ".sold"}),
            False,
            "filter 1: attribute 'type' is 'com.example.made', which is not: ends with '.sold'",
        ),
        (Filter(not_=NO), True, None),
        (Filter(not_=YES), False, "filter 1: not (attribute 'subject' is 'order')"),
        (Filter(not_=Filter(exact={"absent": "x"})), True, None),
        (Filter(all=(YES, YES)), True, None),
        (Filter(all=(YES, NO)), False, None),
        (Filter(any=(NO, YES)), True, None),
        (Filter(any=(NO, NO)), False, None),
        (Filter(all=(Filter(any=(NO, YES)), Filter(not_=NO))), True, None),
        (Filter(exact={"type": "COM.EXAMPLE.MADE"}), False, None),
    ],
)
def test_verdict(item: Filter, matches: bool, reason: str | None) -> None:
    matcher = Matcher([item])
    verdict = matcher.judge(EVENT)
    assert matcher.matches(EVENT) is matches
    assert verdict.matches is matches
    assert reason is None or verdict.reason == reason


def test_all_filters_of_a_trigger_must_match() -> None:
    assert Matcher([YES, YES]).matches(EVENT)
    assert not Matcher([YES, NO]).matches(EVENT)
    assert Matcher([YES, NO]).judge(EVENT).reason.startswith("filter 2: ")


def test_without_filters_every_event_matches() -> None:
    assert Matcher([]).matches({})
    assert Matcher([]).judge({}).reason == "there are no filters"


@pytest.mark.parametrize(
    ("filters", "types"),
    [
        ([], None),
        ([YES], None),
        ([Filter(exact={"type": "a"})], {"a"}),
        ([Filter(exact={"type": "a", "source": "b"})], {"a"}),
        ([Filter(any=(Filter(exact={"type": "a"}), Filter(exact={"type": "b"})))], {"a", "b"}),
        ([Filter(any=(Filter(exact={"type": "a"}), YES))], None),
        ([Filter(all=(Filter(exact={"type": "a"}), YES))], {"a"}),
        ([Filter(prefix={"type": "a"})], None),
        ([Filter(not_=Filter(exact={"type": "a"}))], None),
        ([Filter(exact={"type": "a"}), Filter(exact={"type": "b"})], None),  # nothing can match
    ],
)
def test_types_that_can_match(filters: list[Filter], types: set[str] | None) -> None:
    found = Matcher(filters).types()
    assert (None if found is None else set(found)) == types


_texts = st.sampled_from(["a", "ab", "b", "ba"])
_names = st.sampled_from(["type", "source", "x"])
_wanted = st.dictionaries(_names, _texts, min_size=1, max_size=2)
_flat = st.one_of(
    _wanted.map(lambda wanted: Filter(exact=wanted)),
    _wanted.map(lambda wanted: Filter(prefix=wanted)),
    _wanted.map(lambda wanted: Filter(suffix=wanted)),
)
_filters = st.recursive(
    _flat,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda items: Filter(all=tuple(items))),
        st.lists(inner, min_size=1, max_size=3).map(lambda items: Filter(any=tuple(items))),
        inner.map(lambda item: Filter(not_=item)),
    ),
    max_leaves=8,
)


@given(st.lists(_filters, max_size=3), st.dictionaries(_names, _texts))
def test_verdict_and_match_agree(filters: list[Filter], attributes: dict[str, str]) -> None:
    matcher = Matcher(filters)
    matches = matcher.matches(attributes)
    assert matcher.judge(attributes).matches is matches
    types = matcher.types()
    if matches and types is not None:
        assert attributes["type"] in types
