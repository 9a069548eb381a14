"""Which events may be begun: one of a key at a time, in order, and only what was verified."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.events.lanes import Lanes


def _lanes(*events: tuple[str, int], parallelism: int = 10) -> Lanes:
    lanes = Lanes(parallelism)
    for key, sequence in events:
        lanes.add(key, sequence)
    return lanes


def test_nothing_begins_before_it_is_verified() -> None:
    lanes = _lanes(("a", 2))
    assert lanes.begin() == []
    lanes.add("a", 1)  # comes later, and was earlier
    lanes.verify({1, 2})
    assert lanes.begin() == [1]
    assert lanes.begin() == []
    lanes.rest("a")
    lanes.finish("a")
    assert lanes.begin() == [2]


def test_one_that_was_not_asked_for_stays_unverified() -> None:
    lanes = _lanes(("a", 1), ("b", 2))
    lanes.verify({1})
    assert lanes.begin() == [1]
    assert not lanes.verified


def test_keys_go_side_by_side_up_to_the_parallelism() -> None:
    lanes = _lanes(("a", 1), ("a", 2), ("b", 3), ("c", 4), parallelism=2)
    lanes.verify({1, 2, 3, 4})
    assert lanes.begin() == [1, 3]
    lanes.rest("a")  # it waits for a retry: its key is held, its place is free
    lanes.rest("a")  # which is said for one place alone
    assert lanes.begin() == [4]
    assert lanes.calls == 2


def test_a_key_is_held_until_what_was_given_back_has_come_and_is_done_with() -> None:
    lanes = _lanes(("a", 1), ("a", 2))
    lanes.verify({1, 2})
    assert lanes.begin() == [1]
    lanes.rest("a")
    lanes.give_back("a")
    assert lanes.begin() == []
    lanes.add("a", 1)
    assert lanes.verified  # nothing can be before it
    assert lanes.begin() == [1]
    lanes.rest("a")
    lanes.finish("a")
    assert lanes.begin() == [2]


def test_a_key_is_free_once_what_was_given_back_is_done_with_by_somebody_else() -> None:
    lanes = _lanes(("a", 1), ("a", 2))
    lanes.verify({1, 2})
    assert lanes.begin() == [1]
    lanes.rest("a")
    lanes.give_back("a")
    lanes.verify({2})  # which is all that is out
    assert lanes.begin() == [2]


@pytest.mark.parametrize("begun", [False, True])
def test_one_that_is_taken_away_holds_nothing(begun: bool) -> None:
    lanes = _lanes(("a", 1), ("a", 2))
    lanes.verify({1, 2} if begun else {2})
    lanes.begin()
    lanes.remove("a", 2 if begun else 1)
    lanes.remove("a", 3)
    assert lanes.verified
    if begun:
        lanes.rest("a")
        lanes.finish("a")
    assert lanes.begin() == ([] if begun else [2])


@given(
    st.lists(st.sampled_from("abc"), max_size=20),
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from(["done", "back", "verify"]), st.integers(0, 2)), max_size=200),
)
def test_every_event_is_done_once_in_the_order_of_its_key(
    keys: list[str], parallelism: int, steps: list[tuple[str, int]]
) -> None:
    lanes = Lanes(parallelism)
    key_of = dict(enumerate(keys))
    done: list[int] = []
    running: list[int] = []
    for sequence, key in key_of.items():
        lanes.add(key, sequence)
    for what, which in [*steps, *[("verify", 0), ("done", 0)] * (len(keys) + 1)]:
        if what == "verify":
            lanes.verify(set(key_of))
        elif running:
            sequence = running.pop(which % len(running))
            lanes.rest(key_of[sequence])
            if what == "done":
                done.append(sequence)
                lanes.finish(key_of[sequence])
            else:
                lanes.give_back(key_of[sequence])
                lanes.add(key_of[sequence], sequence)
        running += lanes.begin()
        assert len(running) == lanes.calls <= parallelism
        assert len({key_of[each] for each in running}) == len(running)
    assert sorted(done) == sorted(key_of)
    for key in "abc":
        mine = [each for each in done if key_of[each] == key]
        assert mine == sorted(mine)
