"""Paths into JSON data, as keys of filters have them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.spec.datapaths import MAX_LENGTH, MAX_SEGMENTS, PATTERN, is_path, segments


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("data.a", ("a",)),
        ("data.order.items.0.sku", ("order", "items", "0", "sku")),
        (r"data.a\.b.c", ("a.b", "c")),
        (r"data.a\\.b", ("a\\", "b")),
        ("data.Größe in cm.x\ny", ("Größe in cm", "x\ny")),
        ("data" + ".a" * MAX_SEGMENTS, ("a",) * MAX_SEGMENTS),
    ],
)
def test_path(path: str, names: tuple[str, ...]) -> None:
    assert is_path(path)
    assert segments(path) == names


@pytest.mark.parametrize(
    "path",
    [
        *("data.", "data..a", "data.a.", r"data.a\b", "data.a\\", "data", "type", ""),
        "data" + ".a" * (MAX_SEGMENTS + 1),
        "data." + "a" * MAX_LENGTH,
    ],
)
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(ValueError, match=r"is no path|more than 16 members"):
        segments(path)


@given(st.lists(st.text(alphabet="ab.\\0\n", min_size=1, max_size=4), min_size=1, max_size=MAX_SEGMENTS))
def test_every_name_can_be_written(names: list[str]) -> None:
    path = "data." + ".".join(re.sub(r"([.\\])", r"\\\1", name) for name in names)
    assert segments(path) == tuple(names)
    assert re.fullmatch(PATTERN, path)
