"""What the published conformance tests leave open, what is said of faults, and why an event does not pass."""

from __future__ import annotations

import sys

import pytest

from torpor.cesql.expression import Expression
from torpor.cesql.functions import MAX_TEXT
from torpor.cesql.parser import MAX_DEPTH, MAX_LENGTH
from torpor.cesql.values import Kind, Value
from torpor.errors import ExpressionError

EVENT: dict[str, Value] = {
    "specversion": "1.0",
    "id": "7",
    "source": "/shop",
    "type": "order.made",
    "left": "x",
    "hop": "5",
    "bad": "5x",
    "flag": "TRUE",
    "1a": "odd",
    "path": r"a\b_c%d",
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # Signs: a number has one only where no operand stands before it.
        ("4-1", 3),
        ("4 -1", 3),
        ("4+-1", 3),
        ("4 + +1", 5),
        ("- 4 - -1", -3),
        ("-2147483648", -2147483648),
        ("+7", 7),
        ("007", 7),
        ("-TRUE + 2", 1),
        # Section 3.6: equal precedence goes from the left; NOT and '-' bind closest, then LIKE, then IN.
        ("FALSE AND TRUE OR TRUE", True),
        ("TRUE OR TRUE AND FALSE", False),
        ("TRUE XOR TRUE OR TRUE", True),
        ("10 - 2 - 3", 5),
        ("2 + 3 * 4", 14),
        ("NOT FALSE = TRUE", True),
        ("NOT 'FALSE' LIKE 'true'", True),
        ("1 + 1 = 2 AND 2 * 2 > 3", True),
        ("1 IN (2) = FALSE", True),
        ("'a' IN ('a') LIKE 't%'", True),
        ("NOT EXISTS subject AND EXISTS hop", True),
        # Division rounds towards zero, and the remainder has the sign of what is divided.
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("7 % -2", 1),
        # Casts: the right operand of '=' says as what is compared, '<' compares numbers.
        ("hop = 5", True),
        ("5 = hop", True),
        ("hop < 10", True),
        ("flag = TRUE", True),
        ("flag = 'true'", False),
        ("flag", "TRUE"),
        ("2 AND 1", True),
        ("hop IN (4, 5)", True),
        ("5 IN ('4', hop)", True),
        # Names: letters and digits, whatever their case; those of functions too, where no '(' follows.
        ("TYPE = 'order.made'", True),
        ("left = 'x' AND LEFT(left, 1) = left", True),
        ("1a = 'odd'", True),
        ("type = \"order.made\" and source <> '/'", True),
        ("type\tLIKE\r\n'order%'", True),
        ("type not\n like 'order%'", False),
        # Texts: a backslash stands for itself but before the quote, and in a pattern before '%' and '_'.
        (r"path = 'a\b_c%d'", True),
        (r"'it\'s'", "it's"),
        (r'"a\'b"', r"a\'b"),
        (r"path LIKE 'a\b\_c\%d'", True),
        (r"path LIKE 'a\b\__c\%d'", False),
        ("'a\nb' LIKE 'a_b'", True),
        ("'aab' LIKE 'a%ab'", True),
        ("'ab' LIKE 'a%ab'", False),
        ("'ab' LIKE 'ab%b'", False),
        ("'abcb' LIKE '%b_b'", True),
        ("'' LIKE '%'", True),
        ("'' LIKE ''", True),
        # Functions.
        ("CONCAT(1, TRUE, 'a')", "1truea"),
        ("RIGHT('abc', 0)", ""),
        ("SUBSTRING('abc', 2, 0)", ""),
        ("SUBSTRING('abc', -2, 9)", "bc"),
        ("TRIM('\u2003a\x1f ')", "a\x1f"),
        ("LENGTH('aé😀')", 3),
        ("lower(Upper('a'))", "a"),
    ],
)
def test_value(text: str, value: Value) -> None:
    result = Expression(text).evaluate(EVENT)
    assert (type(result.value), result.value, result.problems) == (type(value), value, ())
    assert Expression(text).matches(EVENT) is (value is True)


@pytest.mark.parametrize(
    ("text", "value", "kind", "message"),
    [
        ("subject = 'a'", False, Kind.MISSING_ATTRIBUTE, "subject is missing"),
        ("subject NOT LIKE 'a'", False, Kind.MISSING_ATTRIBUTE, "subject is missing"),
        ("subject NOT IN ('a')", False, Kind.MISSING_ATTRIBUTE, "subject is missing"),
        ("'a' IN ('a', subject)", False, Kind.MISSING_ATTRIBUTE, "subject is missing"),
        ("TRUE IN (TRUE, UPPER(subject))", False, Kind.MISSING_ATTRIBUTE, "subject is missing"),
        ("TRUE IN (TRUE, 'a', 'b')", False, Kind.CAST, "'a' is not true or false"),
        ("TRUE IN ('a', subject)", False, Kind.CAST, "'a' is not true or false"),
        ("LENGTH(subject)", 0, Kind.MISSING_ATTRIBUTE, "subject is missing"),
        ("CONCAT('a', subject)", "", Kind.MISSING_ATTRIBUTE, "subject is missing"),
        ("bad = 5", False, Kind.CAST, "'5x' is not a whole number"),
        ("bad != 5", False, Kind.CAST, "'5x' is not a whole number"),
        ("bad < 5", False, Kind.CAST, "'5x' is not a whole number"),
        ("INT('2147483648')", 0, Kind.CAST, "'2147483648' is not a whole number"),
        ("INT('٣')", 0, Kind.CAST, "'٣' is not a whole number"),
        ("NOT type", True, Kind.CAST, "'order.made' is not true or false"),
        ("2147483647 + 1", 0, Kind.MATH, "2147483647 + 1 is outside of what 32 bits hold"),
        ("-2147483648 / -1", 0, Kind.MATH, "-2147483648 / -1 is outside of what 32 bits hold"),
        ("65536 * 65536", 0, Kind.MATH, "65536 * 65536 is outside of what 32 bits hold"),
        ("--2147483648", 0, Kind.MATH, "-(-2147483648) is outside of what 32 bits hold"),
        ("FOO(1)", False, Kind.MISSING_FUNCTION, "there is no function FOO of 1 arguments"),
        (
            "SUBSTRING('abc', 1, -1)",
            "",
            Kind.FUNCTION_EVALUATION,
            "SUBSTRING is asked for what is not in a text of 3 characters",
        ),
    ],
)
def test_what_goes_wrong_ends_the_evaluation_with_a_zero_value(
    text: str, value: Value, kind: Kind, message: str
) -> None:
    result = Expression(text).evaluate(EVENT)
    assert (type(result.value), result.value) == (type(value), value if text != "NOT type" else False)
    assert [(problem.kind, problem.message) for problem in result.problems] == [(kind, message)]
    assert not Expression(text).matches(EVENT)


def test_a_right_operand_that_decides_nothing_is_not_looked_at() -> None:
    assert Expression("TRUE OR subject = 'a'").matches(EVENT)
    assert Expression("FALSE AND subject").evaluate(EVENT).problems == ()


def test_values_that_have_a_type_keep_it() -> None:
    assert Expression("n = 3 AND n LIKE '3' AND on AND n + 1 = 4").matches({"n": 3, "on": True})
    assert not Expression("on").matches({"on": "true"})


def test_texts_that_functions_put_together_are_bounded() -> None:
    event: dict[str, Value] = {"a": "x" * (MAX_TEXT // 2)}
    assert Expression("LENGTH(CONCAT(a, a))").evaluate(event).value == MAX_TEXT
    [problem] = Expression("CONCAT(a, a, 'x')").evaluate(event).problems
    assert problem.message == "a text gets 65,537 characters, at most 65,536 were expected"


def test_a_pattern_with_many_parts_ends() -> None:
    """One regular expression for it would try some ten to the power of 60 ways."""
    text = f"a LIKE '{'%a' * 60}%b'"
    assert not Expression(text).matches({"a": "a" * 10_000})


ELSEWHERE = "a filter of another dialect, such as exact: {data.order.id: a}, was expected"
OPERAND = "an attribute, a value, a function or '(' was expected"


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("", 1, "is empty, an expression was expected"),
        (" \n", 1, "is empty, an expression was expected"),
        ("ABC(", 5, "ends after character 4, an attribute, a value, a function, '(' or ')' was expected"),
        ("type =", 7, f"ends after character 6, {OPERAND}"),
        ("AND type", 1, f"has 'AND' at character 1, {OPERAND}"),
        ("type = = 'a'", 8, f"has '=' at character 8, {OPERAND}"),
        ("(type = 'a'", 12, "ends after character 11, an operator or ')' was expected"),
        ("type = 'a')", 11, "has ')' at character 11, an operator or the end was expected"),
        ("type == 'a'", 7, f"has '=' at character 7, {OPERAND}"),
        ("type = 'a''b'", 11, "has \"'b'\" at character 11, an operator or the end was expected"),
        ("type LIKE subject", 11, "has 'subject' at character 11, a text in quotes was expected"),
        ("type IN 'a'", 9, "has \"'a'\" at character 9, '(' was expected"),
        ("type IN ()", 10, f"has ')' at character 10, {OPERAND}"),
        ("type IN ('a' 'b')", 14, "has \"'b'\" at character 14, an operator, ',' or ')' was expected"),
        ("EXISTS 'a'", 8, "has \"'a'\" at character 8, an attribute's name was expected"),
        ("type = 'a", 8, "has a text at character 8, its end was expected: '"),
        ("type = 'a\\'", 8, "has a text at character 8, its end was expected: '"),
        ("data.x = 1", 5, "looks into data at character 5, which expressions can't: " + ELSEWHERE),
        ("mydata.x = 1", 7, "has '.' at character 7, a name, a value or an operator was expected"),
        ("type & id", 6, "has '&' at character 6, a name, a value or an operator was expected"),
        ("my_id = 1", 1, "has 'my_id' at character 1, a name of letters and digits was expected"),
        ("F1(2)", 1, "calls 'F1' at character 1, letters and '_' were expected"),
        ("1 = + 5", 5, "has '+' at character 5, a number right after it was expected"),
        ("2147483648", 1, "has a number at character 1, -2147483648 to 2147483647 was expected"),
        ("-(2147483648)", 3, "has a number at character 3, -2147483648 to 2147483647 was expected"),
        ("- 2147483648", 3, "has a number at character 3, -2147483648 to 2147483647 was expected"),
        ("1" * 400, 1, "has a number at character 1, -2147483648 to 2147483647 was expected"),
        ("a" * (MAX_LENGTH + 1), 2049, "has 2049 characters, at most 2048 were expected"),
        ("NOT " * 64 + "a", 257, "is nested at character 257, at most 64 levels were expected"),
        ("x" * 50 + " y", 52, "has 'y' at character 52, an operator or the end was expected"),
        ("a " + "y" * 50, 3, f"has '{'y' * 37}...' at character 3, an operator or the end was expected"),
    ],
)
def test_a_text_that_is_no_expression(text: str, position: int, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        Expression(text)
    assert (str(caught.value), caught.value.position) == (message, position)


def test_depth_is_bounded_and_parentheses_are_none() -> None:
    limit = sys.getrecursionlimit()
    assert Expression("(" * 1000 + "TRUE" + ")" * 1000).matches({})
    assert Expression("NOT " * (MAX_DEPTH - 2) + "TRUE").matches({})
    chain = " OR ".join(["a = 'x'"] * (MAX_DEPTH - 2) + ["TRUE"])
    assert Expression(chain).matches({"a": "y"})
    assert sys.getrecursionlimit() == limit


NAMES = "ABS, BOOL, CONCAT, CONCAT_WS, INT, LEFT, LENGTH, LOWER, RIGHT, STRING, SUBSTRING, TRIM, UPPER"


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("LOVER(type)", 1, "calls LOVER at character 1, which is no function, did you mean 'LOWER'?"),
        (
            "type = frobnicate()",
            8,
            "calls FROBNICATE at character 8, which is no function, one of " + NAMES + " was expected",
        ),
        ("SUBSTRING(type)", 1, "calls SUBSTRING with 1 argument at character 1, 2 or 3 were expected"),
        ("CONCAT_WS()", 1, "calls CONCAT_WS with 0 arguments at character 1, 1 or more were expected"),
        ("EXISTS data", 1, "looks into data at character 1, which expressions can't: " + ELSEWHERE),
    ],
)
def test_what_never_works_is_found(text: str, position: int, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        Expression(text).check()
    assert (str(caught.value), caught.value.position) == (message, position)


@pytest.mark.parametrize(
    ("text", "reason", "attribute"),
    [
        ("type = 'a'", "\"type = 'a'\" is false: type is 'order.made'", "type"),
        ("type = 'a' AND hop = 5", "\"type = 'a'\" is false: type is 'order.made'", "type"),
        (
            "hop = 5 AND NOT (type LIKE 'order.%')",
            "\"(type LIKE 'order.%')\" is true: type is 'order.made'",
            "type",
        ),
        (
            "hop = 6 OR type = 'a'",
            "\"hop = 6 OR type = 'a'\" is false: hop is '5'; type is 'order.made'",
            "hop",
        ),
        ("hop = 6 OR source = '/shop'", "\"source = '/shop'\" is true: source is '/shop'", "source"),
        ("hop = 5 AND flag = TRUE", "'hop = 5 AND flag = TRUE' is true: hop is '5'; flag is 'TRUE'", "hop"),
        ("hop = 5 AND subject = 'a'", "\"subject = 'a'\" can't be said: subject is missing", "subject"),
        ("bad = 5", "'bad = 5' can't be said: '5x' is not a whole number", "bad"),
        ("EXISTS subject", "'EXISTS subject' is false: subject is missing", "subject"),
        ("hop", "'hop' is '5': hop is '5'", "hop"),
        ("1 = 2", "'1 = 2' is false", ""),
        (
            "CONCAT(id, hop, type, source) = 'a'",
            "\"CONCAT(id, hop, type, source) = 'a'\" is false: id is '7'; hop is '5'; type is 'order.made'",
            "id",
        ),
    ],
)
def test_reason(text: str, reason: str, attribute: str) -> None:
    assert Expression(text).reason(EVENT) == (reason, attribute)


@pytest.mark.parametrize(
    ("text", "types"),
    [
        ("type = 'a'", {"a"}),
        ("'a' = TYPE", {"a"}),
        ("(type = 'a') AND subject = 'b'", {"a"}),
        ("subject = 'b' AND type IN ('a', 'b')", {"a", "b"}),
        ("type = 'a' OR type = 'b' AND EXISTS x", {"a", "b"}),
        ("type = 'a' OR subject = 'b'", None),
        ("type = 'a' XOR type = 'b'", None),
        ("NOT (type = 'a')", None),
        ("type != 'a'", None),
        ("type NOT IN ('a')", None),
        ("type IN ('a', subject)", None),
        ("type = 1", None),
        ("type LIKE 'a'", None),
        ("type = 'a' AND type = 'b'", set()),
        ("EXISTS type", None),
    ],
)
def test_types_that_can_pass(text: str, types: set[str] | None) -> None:
    assert Expression(text).types() == types
