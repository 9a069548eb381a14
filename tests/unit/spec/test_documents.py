# ruff: noqa: E501 - a fault is one line, and shown here as it is printed
"""YAML as values with lines, and its bounds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from torpor.spec.documents import MAX_BYTES, MAX_DEPTH, MAX_VALUES, parse, resolve


def values(text: str) -> list[Any]:
    documents, defects = parse(text.encode())
    assert defects == []
    return [document.value for document in documents]


def only_defect(content: bytes) -> tuple[int, str, str]:
    _, [defect] = parse(content)
    return defect.line, defect.field, defect.message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("on", "on"),
        ("12", 12),
        ("-7", -7),
        ("012", 12),
        ("0o17", 15),
        ("0xff", 255),
        ("1_000", "1_000"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("2026-01-01", "2026-01-01"),
        ("12:30:45", "12:30:45"),
        ("9" * 5000, "9" * 5000),
        ("10s", "10s"),
    ],
)
def test_plain_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(resolve(".nan"))  # type: ignore[arg-type]


def test_quoted_and_tagged_scalars_are_texts() -> None:
    assert values("[\"1\", 'true', !!str 2, ! 3, |\n  4\n]".replace(", |\n  4\n", "")) == [
        ["1", "true", "2", "3"]
    ]
    assert values("a: |\n  4\n") == [{"a": "4\n"}]


def test_documents_without_content_are_left_out() -> None:
    assert values("---\n# nothing\n---\na: 1\n---\n...\n") == [{"a": 1}]


def test_every_field_has_its_line() -> None:
    [document], _ = parse(b"# a comment\na: 1\nb:\n  - c: 2\n    d: 3\n  - 4\n")
    assert document.lines == {
        (): 2,
        ("a",): 2,
        ("b",): 3,
        ("b", 0): 4,
        ("b", 0, "c"): 4,
        ("b", 0, "d"): 5,
        ("b", 1): 6,
    }


def test_aliases_stand_for_what_they_refer_to() -> None:
    assert values("a: &x {b: [1]}\nc: *x\n") == [{"a": {"b": [1]}, "c": {"b": [1]}}]


def test_keys_that_look_like_other_things_are_texts() -> None:
    assert values("{on: 1, true: 2, 3: 4, null: 5}") == [{"on": 1, "true": 2, "3": 4, "null": 5}]


def test_a_key_given_twice_keeps_its_first_value() -> None:
    [document], [defect] = parse(b"a:\n  b: 1\n  c: 2\n  b: 3\n")
    assert document.value == {"a": {"b": 1, "c": 2}}
    assert (defect.line, defect.field, defect.message) == (
        4,
        "a.b",
        "is given twice, first in line 2; once was expected",
    )


@pytest.mark.parametrize(
    ("content", "defect"),
    [
        (b"a: [1", (1, "YAML", "expected ',' or ']', but got '<stream end>' while parsing a flow sequence, valid YAML was expected")),
        (b"a: 1\n\tb: 2\n", (2, "YAML", "found character '\\\\t' that cannot start any token while scanning for the next token, valid YAML was expected")),
        (b"a: 1\nb: \xff\n", (2, "YAML", "has the byte 0xff, UTF-8 text was expected")),
        (b"\x00", (1, "YAML", "unacceptable character #x0000: special characters are not allowed, printable text was expected")),
        (b'"\\U00110000"', (1, "YAML", "chr() arg not in range(0x110000), printable text was expected")),
        (b'"\\ud800"', (1, "YAML", "escapes half of a surrogate pair, whole characters were expected")),
        (b"a: *x\n", (1, "YAML", "refers to 'x', an anchor above it was expected")),
        (b"a: */5 1\n", (1, "YAML", "refers to '/5', an anchor above it was expected: quote a text that begins with '*'")),
        (b"a: * *\n", (1, "YAML", "expected alphabetic or numeric character, but found ' ' while scanning an alias, valid YAML was expected: quote a text that begins with such a character")),
        (b"a: 1\nb: &x [*x]\n", (2, "YAML", "refers to 'x', an anchor above it was expected")),
        (b"a: !!python/object:os.system 1\n", (1, "YAML", "has the tag 'tag:yaml.org,2002:python/object:os.system', none was expected")),
        (b"? [a]\n: 1\n", (1, "document", "has a list or mapping as a key, a text was expected")),
        (b" " * (MAX_BYTES + 1), (1, "YAML", "is larger than 256 KiB, a smaller file was expected")),
        (b"[" * 100_000, (1, "YAML", f"is nested deeper than {MAX_DEPTH} levels, fewer were expected")),
        (b"[" + b"1," * MAX_VALUES + b"]", (1, "YAML", f"has more than {MAX_VALUES} values, aliases followed; fewer were expected")),
    ],
)  # fmt: skip
def test_says_what_is_wrong_with_the_yaml(content: bytes, defect: tuple[int, str, str]) -> None:
    assert only_defect(content) == defect


def test_an_alias_bomb_is_counted_and_never_built() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    line, _, message = only_defect("\n".join(lines).encode())
    assert (line, message) == (4, f"has more than {MAX_VALUES} values, aliases followed; fewer were expected")


def test_aliases_count_through_all_documents_of_a_file() -> None:
    document = (
        "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\nc: [*b, *b, *b]\n---\n"
    )
    _, _, message = only_defect((document * 100).encode())
    assert message == f"has more than {MAX_VALUES} values, aliases followed; fewer were expected"


def test_aliases_can_not_nest_deeper_than_text_can() -> None:
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, MAX_DEPTH + 1))]
    _, _, message = only_defect("\n".join(lines).encode())
    assert message == f"is nested deeper than {MAX_DEPTH} levels, fewer were expected"


def test_what_stands_before_broken_syntax_is_read() -> None:
    documents, defects = parse(b"a: 1\n---\nb: [\n")
    assert [document.value for document in documents] == [{"a": 1}]
    assert [defect.line for defect in defects] == [4]
