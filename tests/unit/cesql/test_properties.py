"""Whatever is written in an expression, and whatever an event has: an answer comes, and it is one of few."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from torpor.cesql.expression import Expression
from torpor.cesql.like import pattern
from torpor.cesql.values import LEAST, MOST, Value
from torpor.errors import ExpressionError

_words = st.sampled_from(
    [
        *(
            "type",
            "subject",
            "a1",
            "AND",
            "or",
            "Xor",
            "NOT",
            "like",
            "IN",
            "EXISTS",
            "TRUE",
            "false",
            "LENGTH",
        ),
        *(
            "(",
            ")",
            ",",
            "=",
            "!=",
            "<>",
            "<",
            ">=",
            "+",
            "-",
            "*",
            "/",
            "%",
            "'a'",
            '"b\\""',
            "'",
            '"',
            "\\",
        ),
        *("1", "007", "2147483648", "CONCAT_WS", "_", ".", "\x00", "é", "\n", "'%_'"),
    ]
)
_rubbish = st.one_of(st.text(max_size=40), st.lists(_words, max_size=30).map(" ".join))
_atoms = st.sampled_from(
    [
        "type",
        "subject",
        "n",
        "TRUE",
        "FALSE",
        "0",
        "7",
        "2147483647",
        "'a'",
        "'7'",
        "'true'",
        "EXISTS subject",
    ]
)
_OPERATORS = ("AND", "OR", "XOR", "=", "!=", "<", ">=", "+", "-", "*", "/", "%")


def _around(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, st.sampled_from(_OPERATORS), inner).map(lambda parts: f"({' '.join(parts)})"),
        st.tuples(st.sampled_from(["NOT ", "-"]), inner).map(lambda parts: f"({''.join(parts)})"),
        st.tuples(inner, st.sampled_from(["LIKE", "NOT LIKE"]), st.sampled_from(["'%a'", "'_'"])).map(
            lambda parts: f"({' '.join(parts)})"
        ),
        st.tuples(inner, st.lists(inner, min_size=1, max_size=3)).map(
            lambda parts: f"({parts[0]} IN ({', '.join(parts[1])}))"
        ),
        st.tuples(st.sampled_from(["LENGTH", "ABS", "UPPER", "INT", "BOOL"]), inner).map(
            "({0[0]}({0[1]}))".format
        ),
        st.tuples(st.sampled_from(["LEFT", "SUBSTRING", "CONCAT"]), inner, inner).map(
            "({0[0]}({0[1]}, {0[2]}))".format
        ),
    )


_expressions = st.recursive(_atoms, _around, max_leaves=10)
_events = st.dictionaries(
    st.sampled_from(["type", "subject", "n", "a1"]),
    st.one_of(st.sampled_from(["a", "7", "true", "", "-1"]), st.booleans(), st.integers(LEAST, MOST)),
)


def check(text: str, event: dict[str, Value]) -> None:
    try:
        expression = Expression(text)
    except ExpressionError as raised:
        error = raised
    else:
        check_answers(expression, event)
        return
    assert 1 <= error.position <= len(text) + 1


def check_answers(expression: Expression, event: dict[str, Value]) -> None:
    result = expression.evaluate(event)
    assert type(result.value) in (str, int, bool)
    assert type(result.value) is not int or LEAST <= int(result.value) <= MOST
    assert len(result.problems) <= 1
    assert expression.matches(event) is (result.value is True and not result.problems)
    reason, _ = expression.reason(event)
    assert reason


@settings(deadline=None)
@given(_rubbish, _events)
def test_rubbish_is_refused_with_a_place_or_has_a_value(text: str, event: dict[str, Value]) -> None:
    check(text, event)


@settings(deadline=None)
@given(_expressions, _events)
def test_every_expression_has_a_value(text: str, event: dict[str, Value]) -> None:
    assert Expression(text).evaluate(event) == Expression(f" ({text})\n").evaluate(event)
    check(text, event)


@settings(deadline=None)
@given(_expressions, _expressions, _events)
def test_types_leave_out_no_event_that_passes(one: str, other: str, event: dict[str, Value]) -> None:
    for text in (
        one,
        f"type = 'a' AND {one}",
        f"({one} OR type IN ('a', '7')) AND {other}",
        f"'a' = type OR {one}",
    ):
        expression = Expression(text)
        types = expression.types()
        if types is not None and isinstance(event.get("type"), str) and expression.matches(event):
            assert event["type"] in types


@settings(deadline=None)
@given(st.text(alphabet="ab%_\\\n", max_size=8), st.text(alphabet="ab%_\\\n", max_size=10))
def test_like_fits_what_one_regular_expression_fits(like: str, value: str) -> None:
    pieces = re.findall(r"\\[%_]|.", like, re.DOTALL)
    whole = "".join({"%": ".*", "_": "."}.get(piece, re.escape(piece[-1])) for piece in pieces)
    assert pattern(like)(value) is (re.fullmatch(whole, value, re.DOTALL) is not None)
