"""Which pods are marked to go first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.controller.victims import Candidate, marks


def candidates(*words: str) -> list[Candidate]:
    """One for each of ``words``: its requests, and ``s`` for stuck, ``m`` for marked, ``u`` for unready."""
    return [
        Candidate(
            name="abcdef"[index],
            ready="u" not in word,
            stuck="s" in word,
            active=int(word.strip("smu")),
            born=f"2026-01-01T00:00:0{index}Z",
            marked="m" in word,
        )
        for index, word in enumerate(words)
    ]


@pytest.mark.parametrize(
    ("what", "given", "excess", "marked"),
    [
        ("idle ones go",                    candidates("3", "0", "2", "0"),  2, {"b": True, "d": True}),
        ("the least busy go",               candidates("3", "1", "2"),       1, {"b": True}),
        ("of equal ones the newest",        candidates("3", "0", "0"),       1, {"c": True}),
        ("all alike need no mark",          candidates("0", "0", "0"),       1, {}),
        ("those not ready go anyhow",       candidates("3", "u0", "0"),      1, {}),
        ("and count",                       candidates("3", "u0", "0"),      2, {"c": True}),
        ("stuck ones go before idle ones",  candidates("s9", "0", "1"),      1, {"a": True}),
        ("what stays has no mark",          candidates("m3", "0", "2"),      1, {"a": False, "b": True}),
        ("a mark that is right stays",      candidates("3", "m0", "2"),      1, {}),
        ("nothing is too many",             candidates("m3", "0"),           0, {"a": False}),
        ("not even fewer than nothing",     candidates("3", "0"),           -1, {}),
    ],
)  # fmt: skip
def test_marks(what: str, given: list[Candidate], excess: int, marked: dict[str, bool]) -> None:
    assert marks(given, excess) == marked, what


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 3), st.booleans()), max_size=6),
    st.integers(0, 6),
)
def test_none_that_is_marked_has_more_to_do_than_one_that_is_not(
    shapes: list[tuple[bool, bool, int, bool]], excess: int
) -> None:
    there = [
        Candidate(f"p{index}", ready, stuck, active, str(index), marked)
        for index, (ready, stuck, active, marked) in enumerate(shapes)
    ]
    changes = marks(there, excess)
    marked = {one.name for one in there if changes.get(one.name, one.marked)}
    assert len(marked) <= excess
    busy = {one.name: (not one.stuck, one.active) for one in there if one.ready}
    for one in marked:
        assert all(busy[one] <= work for name, work in busy.items() if name not in marked)
