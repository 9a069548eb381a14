"""Filters, and what is said of their verdicts."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torpor.binding import WireEvent
from torpor.events import facts
from torpor.events.facts import MAX_DATA_BYTES
from torpor.events.filters import Matcher, Verdict
from torpor.spec.models import Filter

EVENT = WireEvent({"type": "com.example.made", "source": "/shop/7", "subject": "order"}, None)
YES, NO = Filter(exact={"subject": "order"}), Filter(exact={"subject": "other"})
ORDER = (
    b'{"order": {"country": "de", "n": 3, "price": 1.50, "paid": true, "note": null, '
    b'"items": [{"sku": "a.b"}]}, "a.b": 1}'
)


@pytest.mark.parametrize(
    ("item", "matches", "reason", "attribute"),
    [
        (YES, True, "subject is 'order'", "subject"),
        (NO, False, "subject is 'order', 'other' was expected", "subject"),
        (
            Filter(exact={"type": "com.example.made", "source": "/shop/7"}),
            True,
            "type is 'com.example.made'; source is '/shop/7'",
            "type",
        ),
        (
            Filter(exact={"type": "com.example.made", "source": "/shop"}),
            False,
            "source is '/shop/7', '/shop' was expected",
            "source",
        ),
        (Filter(exact={"absent": "x"}), False, "absent is missing, 'x' was expected", "absent"),
        (Filter(prefix={"type": "com.example."}), True, "type is 'com.example.made'", "type"),
        (
            Filter(prefix={"type": "example"}),
            False,
            "type is 'com.example.made', a text that starts with 'example' was expected",
            "type",
        ),
        (
            Filter(prefix={"absent": "x"}),
            False,
            "absent is missing, a text that starts with 'x' was expected",
            "absent",
        ),
        (Filter(suffix={"type": ".made"}), True, "type is 'com.example.made'", "type"),
        (
            Filter(suffix={"type": ".sold"}),
            False,
            "type is 'com.example.made', a text that ends with '.sold' was expected",
            "type",
        ),
        (Filter(not_=NO), True, "subject is 'order'", "subject"),
        (Filter(not_=YES), False, "subject is 'order', anything but 'order' was expected", "subject"),
        (Filter(not_=Filter(not_=NO)), False, "subject is 'order', 'other' was expected", "subject"),
        (Filter(not_=Filter(exact={"absent": "x"})), True, "absent is missing", "absent"),
        (Filter(all=(YES, YES)), True, "subject is 'order'", "subject"),
        (Filter(all=(YES, NO)), False, "subject is 'order', 'other' was expected", "subject"),
        (Filter(any=(NO, YES)), True, "subject is 'order'", "subject"),
        (
            Filter(any=(NO, Filter(exact={"type": "x"}))),
            False,
            "subject is 'order', 'other' was expected; type is 'com.example.made', 'x' was expected",
            "subject",
        ),
        (
            Filter(any=[Filter(exact={"subject": text}) for text in "abcde"]),
            False,
            "; ".join(f"subject is 'order', '{text}' was expected" for text in "abc") + "; and 2 more",
            "subject",
        ),
        # None of several: neither is as it should not be. What is the same of each is said once.
        (Filter(not_=Filter(any=(NO, NO))), True, "subject is 'order'", "subject"),
        (
            Filter(not_=Filter(any=(NO, YES))),
            False,
            "subject is 'order', anything but 'order' was expected",
            "subject",
        ),
        (Filter(not_=Filter(all=(YES, NO))), True, "subject is 'order'", "subject"),
        (
            Filter(all=(Filter(any=(NO, YES)), Filter(not_=NO))),
            True,
            "subject is 'order'",
            "subject",
        ),
        (
            Filter(exact={"type": "COM.EXAMPLE.MADE"}),
            False,
            "type is 'com.example.made', 'COM.EXAMPLE.MADE' was expected",
            "type",
        ),
        (
            Filter(sql="type LIKE '%.made'"),
            True,
            "\"type LIKE '%.made'\" is true: type is 'com.example.made'",
            "type",
        ),
        (
            Filter(sql="subject = 'order' AND source = '/x'"),
            False,
            "\"source = '/x'\" is false: source is '/shop/7'",
            "source",
        ),
        (Filter(sql="absent = 'x'"), False, "\"absent = 'x'\" can't be said: absent is missing", "absent"),
        (Filter(sql="subject"), False, "'subject' is 'order': subject is 'order'", "subject"),
        # What can't be said does not match, so that `not` matches.
        (
            Filter(not_=Filter(sql="absent = 'x'")),
            True,
            "\"absent = 'x'\" can't be said: absent is missing",
            "absent",
        ),
    ],
)
def test_verdict(item: Filter, matches: bool, reason: str, attribute: str) -> None:
    matcher = Matcher([item])
    assert matcher.matches(EVENT) is matches
    assert matcher.verdict(EVENT) == Verdict(matches, reason, attribute)


def test_all_filters_of_a_trigger_must_match() -> None:
    assert Matcher([YES, YES]).matches(EVENT)
    assert not Matcher([YES, NO]).matches(EVENT)
    assert Matcher([YES, NO]).verdict(EVENT).reason == "filter 2: subject is 'order', 'other' was expected"


def test_what_several_filters_found_alike_is_said_once() -> None:
    of_type = [Filter(prefix={"type": "com."}), Filter(suffix={"type": ".made"}), YES]
    reason = "type is 'com.example.made'; subject is 'order'"
    assert Matcher(of_type).verdict(EVENT) == Verdict(True, reason, "type")


def test_without_filters_every_event_matches() -> None:
    assert Matcher([]).matches(EVENT)
    assert Matcher([]).verdict(EVENT) == Verdict(True, "there are no filters", "")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("data.order.country", "de"),
        ("data.order.n", "3"),
        ("data.order.price", "1.5"),
        ("data.order.paid", "true"),
        ("data.order.note", "null"),
        ("data.order.items.0.sku", "a.b"),
        (r"data.a\.b", "1"),
        ("type", "order"),
    ],
)
def test_filters_look_into_json_data(key: str, text: str) -> None:
    for content_type in ({}, {"datacontenttype": "application/vnd.order+json; charset=utf-8"}):
        event = WireEvent({"type": "order", **content_type}, ORDER)
        dialects = {"exact": text, "prefix": text[:1], "suffix": text[-1:]}
        for item in [Filter.model_validate({name: {key: value}}) for name, value in dialects.items()]:
            assert Matcher([item]).matches(event)
            assert Matcher([item]).verdict(event) == Verdict(True, f"{key} is {text!r}", key)
        assert not Matcher([Filter(exact={key: f"{text}x"})]).matches(event)


@pytest.mark.parametrize(
    ("key", "attributes", "data", "reason"),
    [
        ("data.order.city", {}, ORDER, "data.order.city is missing"),
        ("data.order", {}, ORDER, "data.order is an object"),
        ("data.order.items", {}, ORDER, "data.order.items is a list"),
        ("data.order.items.1.sku", {}, ORDER, "data.order.items.1.sku is missing"),
        ("data.order.items.00.sku", {}, ORDER, "data.order.items.00.sku is missing"),
        ("data.order.country.x", {}, ORDER, "data.order.country.x is missing"),
        ("data.x", {}, b"7", "data.x is missing"),
        ("data.x", {}, b'{"x": 1', "data.x is not looked for: the data is not valid JSON"),
        (
            "data.x",
            {"datacontenttype": "text/plain"},
            b'{"x": 1}',
            "data.x is not looked for: the data is text/plain, not JSON",
        ),
        (
            "data.x",
            {"dataref": "torpor:a"},
            None,
            "data.x is not looked for: the data is elsewhere (dataref)",
        ),
        ("data.x", {}, None, "data.x is not looked for: there is no data"),
        (
            "data.x",
            {},
            b'{"x": 1}' + b" " * MAX_DATA_BYTES,
            "data.x is not looked for: the data has 1,048,584 bytes, at most 1,048,576 are looked into",
        ),
    ],
)
def test_what_is_not_in_the_data_matches_nothing(
    key: str, attributes: dict[str, str], data: bytes | None, reason: str
) -> None:
    event = WireEvent({"type": "order", **attributes}, data)
    matcher = Matcher([Filter(exact={key: "1"})])
    assert not matcher.matches(event)
    assert matcher.verdict(event) == Verdict(False, f"{reason}, '1' was expected", key)
    assert Matcher([Filter(not_=Filter(exact={key: "1"}))]).verdict(event) == Verdict(True, reason, key)


def test_data_is_parsed_once_and_only_if_a_filter_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []

    def loads(data: bytes) -> object:
        parsed.append(data)
        return orjson.loads(data)

    monkeypatch.setattr(facts, "_parse", loads)
    texts = {"data.order.n": "3", "data.a": "x"}
    needing = [Filter(exact={"type": "order"}), *(Filter(exact={key: value}) for key, value in texts.items())]
    assert not Matcher(needing).matches(WireEvent({"type": "order"}, ORDER))
    assert parsed == [ORDER]
    assert not Matcher(needing).matches(WireEvent({"type": "other"}, ORDER))
    assert Matcher(needing[:1]).matches(WireEvent({"type": "order"}, ORDER))
    assert parsed == [ORDER]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *(
            (0, "0"),
            (-7, "-7"),
            (2**63, "9223372036854775808"),
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
        ),
        # RFC 8785, appendix B.
        *((5e-324, "5e-324"), (1.7976931348623157e308, "1.7976931348623157e+308")),
        *((9007199254740992.0, "9007199254740992"), (295147905179352830000.0, "295147905179352830000")),
        *((1e23, "1e+23"), (9.999999999999997e22, "9.999999999999997e+22"), (1e21, "1e+21")),
        *((999999999999999900000.0, "999999999999999900000"), (0.000001, "0.000001"), (1e-7, "1e-7")),
        *((333333333.3333333, "333333333.3333333"), (-0.0000033333333333333333, "-0.0000033333333333333333")),
        *((123.456, "123.456"), ("x", "x"), (True, "true"), (None, "null"), ([1], None), ({}, None)),
    ],
)
def test_text_of_values(value: object, text: str | None) -> None:
    assert facts.text_of(value) == text


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
        ([Filter(sql="type = 'a' AND subject = 'b'")], {"a"}),
        ([Filter(any=(Filter(sql="type IN ('a', 'b')"), Filter(exact={"type": "c"})))], {"a", "b", "c"}),
        ([Filter(sql="type IN ('a', 'b')"), Filter(exact={"type": "b"})], {"b"}),
        ([Filter(not_=Filter(sql="type = 'a'"))], None),
        ([Filter(sql="type = 'a' AND type = 'b'")], None),  # nothing can match
        ([Filter(exact={"data.type": "a"})], None),
        ([Filter(not_=Filter(exact={"type": "a"}))], None),
        ([Filter(exact={"type": "a"}), Filter(exact={"type": "b"})], None),  # nothing can match
    ],
)
def test_types_that_can_match(filters: list[Filter], types: set[str] | None) -> None:
    found = Matcher(filters).types()
    assert (None if found is None else set(found)) == types


_texts = st.sampled_from(["a", "ab", "b", "ba"])
_names = st.sampled_from(["type", "source", "x"])
_keys = st.one_of(_names, st.just("data.a"))
_wanted = st.dictionaries(_keys, _texts, min_size=1, max_size=2)
_flat = st.one_of(
    _wanted.map(lambda wanted: Filter(exact=wanted)),
    _wanted.map(lambda wanted: Filter(prefix=wanted)),
    _wanted.map(lambda wanted: Filter(suffix=wanted)),
    st.sampled_from(["type = 'a'", "type IN ('a', 'b') AND NOT (source = x)", "x LIKE '_b%'"]).map(
        lambda text: Filter(sql=text)
    ),
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


@settings(deadline=None)
@given(st.lists(_filters, max_size=3), st.dictionaries(_names, _texts))
def test_verdict_and_match_agree(filters: list[Filter], attributes: dict[str, str]) -> None:
    matcher = Matcher(filters)
    event = WireEvent(attributes, b'{"a": "ab"}')
    matches = matcher.matches(event)
    assert matcher.verdict(event).matches is matches
    types = matcher.types()
    if matches and types is not None:
        assert attributes["type"] in types
