from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.spec.selectors import MAX_FILTERS, MAX_LENGTH, AttributeFilter, matches, parse


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        ("image.tile", "image.tile", True),
        ("image.tile", "image.tiles", False),
        ("image.*", "image.tile", True),
        ("image.*", "image.", True),
        ("image.*", "imagetile", False),
        ("*", "", True),
        ("", "", True),
        ("", "a", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*.b.*", "a.b.c", True),
        ("*b*b*", "ab", False),
        ("a?c", "abc", False),
        ("[a]", "a", False),
    ],
)
def test_a_star_stands_for_any_text_and_nothing_else_is_special(
    pattern: str, value: str, expected: bool
) -> None:
    assert matches(pattern, value) is expected


@given(st.text(alphabet="ab*", max_size=12), st.text(alphabet="ab\n", max_size=16))
def test_it_agrees_with_the_shell_s_pattern(pattern: str, value: str) -> None:
    assert matches(pattern, value) is fnmatchcase(value, pattern)


def test_a_filter_needs_the_attribute() -> None:
    condition = AttributeFilter("fanoutid", "*")
    assert condition.matches({"fanoutid": ""})
    assert not condition.matches({"type": "image.tile"})


def test_filters_are_parsed_at_the_first_equals_sign() -> None:
    assert parse(["type=image.*", "subject=a=b"]) == (
        AttributeFilter("type", "image.*"),
        AttributeFilter("subject", "a=b"),
    )


@pytest.mark.parametrize("text", ["", "type", "=x", "Type=x", "a-b=x", "a\n=x"])
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ATTRIBUTE=PATTERN"):
        parse([text])


def test_filters_are_bounded() -> None:
    assert len(parse(["type=x"] * MAX_FILTERS)) == MAX_FILTERS
    with pytest.raises(ValueError, match="the most"):
        parse(["type=x"] * (MAX_FILTERS + 1))
    assert parse(["type=".ljust(MAX_LENGTH, "x")])
    with pytest.raises(ValueError, match="the most"):
        parse(["type=".ljust(MAX_LENGTH + 1, "x")])
