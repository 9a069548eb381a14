"""The state of groups: which are whole, which overdue."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from torpor.events.join import MAX_OPEN, MAX_PARTS, Groups, Overdue, Part, Seen, Unfit, part_of


def _attributes(**given: str) -> dict[str, str]:
    return {"fanoutid": "g", "fanoutindex": "0", "fanoutsize": "2", **given}


def test_a_part() -> None:
    assert part_of(_attributes(fanoutindex="1")) == Part("g", 1, 2)


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({}, "no attribute 'fanoutid'"),
        (_attributes(fanoutid=""), "no attribute 'fanoutid'"),
        ({"fanoutid": "g", "fanoutsize": "2"}, "whole numbers"),
        ({"fanoutid": "g", "fanoutindex": "0"}, "whole numbers"),
        (_attributes(fanoutindex="-1"), "whole numbers"),
        (_attributes(fanoutindex="1.0"), "whole numbers"),
        (_attributes(fanoutindex="٣"), "whole numbers"),
        (_attributes(fanoutsize="9999999999"), "whole numbers"),
        (_attributes(fanoutindex="2"), "below 'fanoutsize' (2)"),
        (_attributes(fanoutsize="0"), "'fanoutsize' is 0"),
        (_attributes(fanoutsize=str(MAX_PARTS + 1)), "1 to 10000 was expected"),
    ],
)
def test_what_is_no_part(attributes: dict[str, str], says: str) -> None:
    found = part_of(attributes)
    assert isinstance(found, Unfit)
    assert says in found.reason


def test_a_group_is_whole_with_its_last_part() -> None:
    groups = Groups(10.0)
    assert groups.observe(Part("g", 0, 2), 0.0) is Seen.WAITING
    assert groups.observe(Part("g", 0, 2), 1.0) is Seen.WAITING
    assert groups.observe(Part("g", 1, 2), 2.0) is Seen.WHOLE
    assert groups.observe(Part("g", 1, 2), 3.0) is Seen.WHOLE
    assert groups.whole() == ["g"]
    groups.close("g")
    assert (len(groups), groups.next_due(), groups.whole()) == (0, None, [])


def test_a_group_of_one_is_whole_at_once() -> None:
    assert Groups(10.0).observe(Part("g", 0, 1), 0.0) is Seen.WHOLE


def test_the_time_counts_from_the_first_part() -> None:
    groups = Groups(10.0)
    groups.observe(Part("g", 0, 3), 5.0)
    groups.observe(Part("g", 1, 3), 9.0)
    assert groups.next_due() == 15.0
    assert groups.overdue(14.9) == []
    assert groups.overdue(15.0) == [Overdue("g", 2, 3)]


def test_parts_may_be_observed_out_of_order() -> None:
    groups = Groups(10.0)  # as when the log is read after a start, and a clock was put back
    groups.observe(Part("g", 0, 3), 9.0)
    groups.observe(Part("g", 1, 3), 5.0)
    assert groups.next_due() == 15.0


def test_sizes_must_agree() -> None:
    groups = Groups(10.0)
    groups.observe(Part("g", 0, 3), 0.0)
    assert groups.check(Part("g", 1, 3)) is None
    unfit = groups.check(Part("g", 1, 4))
    assert unfit is not None
    assert "earlier parts of the group say 3" in unfit.reason


def test_open_groups_are_bounded() -> None:
    groups = Groups(10.0, max_open=1)
    assert groups.reserve(Part("g", 0, 2), 0.0)
    assert not groups.reserve(Part("h", 0, 2), 0.0)
    assert groups.reserve(Part("g", 1, 2), 0.0)
    assert (
        groups.observe(Part("h", 0, 2), 0.0) is Seen.WAITING
    )  # it is stored: that can't be refused any more
    groups.close("g")
    groups.close("h")
    assert groups.reserve(Part("h", 0, 2), 0.0)


_parts = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 100)), min_size=1, max_size=40
)


@given(_parts)
def test_any_order_and_any_repetition_makes_the_same_groups(parts: list[tuple[str, int, int]]) -> None:
    groups = Groups(10.0)
    for group, index, at in parts:
        groups.observe(Part(group, index, 4), at)
    seen = {group: {i for g, i, _ in parts if g == group} for group in {g for g, _, _ in parts}}
    assert sorted(groups.whole()) == sorted(group for group, indexes in seen.items() if len(indexes) == 4)
    firsts = {group: min(at for g, _, at in parts if g == group) for group in seen}
    assert groups.next_due() == min(firsts.values()) + 10.0
    overdue = groups.overdue(60.0)
    assert {each.group for each in overdue} == {group for group, at in firsts.items() if at + 10.0 <= 60.0}
    assert [firsts[each.group] for each in overdue] == sorted(firsts[each.group] for each in overdue)


class _Model(RuleBasedStateMachine):
    """Groups beside what they mean: a table that is searched from end to end."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = Groups(10.0, max_open=3)
        self.open: dict[str, tuple[float, set[int]]] = {}
        self.now = 0.0

    def _enter(self, group: str) -> set[int]:
        due, indexes = self.open.get(group, (math.inf, set()))
        self.open[group] = (min(due, self.now + 10.0), indexes)
        return indexes

    @rule(group=st.sampled_from("abcde"), index=st.integers(0, 3))
    def reserve(self, group: str, index: int) -> None:
        has_room = group in self.open or len(self.open) < 3
        assert self.groups.reserve(Part(group, index, 4), self.now) is has_room
        if has_room:
            self._enter(group)

    @rule(group=st.sampled_from("abcde"), index=st.integers(0, 3))
    def observe(self, group: str, index: int) -> None:
        indexes = self._enter(group)
        indexes.add(index)
        seen = self.groups.observe(Part(group, index, 4), self.now)
        assert (seen is Seen.WHOLE) == (len(indexes) == 4)

    @rule(group=st.sampled_from("abcde"))
    def close(self, group: str) -> None:
        self.groups.close(group)
        self.open.pop(group, None)

    @rule(seconds=st.integers(-5, 12))
    def let_pass(self, seconds: int) -> None:
        self.now += seconds  # a clock may be put back

    @invariant()
    def agree(self) -> None:
        assert self.groups.names() == list(self.open)
        assert self.groups.next_due() == min((due for due, _ in self.open.values()), default=None)
        assert self.groups.whole() == [name for name, (_, indexes) in self.open.items() if len(indexes) == 4]
        ended = [Overdue(n, len(i), 4) for n, (due, i) in self.open.items() if due <= self.now]
        found = self.groups.overdue(self.now)
        assert sorted(found, key=str) == sorted(ended, key=str)
        dues = [self.open[each.group][0] for each in found]
        assert dues == sorted(dues)


TestGroups = _Model.TestCase
TestGroups.settings = settings(max_examples=50, stateful_step_count=30)


def test_what_is_remembered_of_closed_groups_is_bounded() -> None:
    groups = Groups(7 * 86_400.0)
    for number in range(1000):
        groups.observe(Part(f"g{number}", 0, 1), float(number))
        groups.close(f"g{number}")
    assert len(groups._dues) <= 64 + 1


def test_a_hundred_thousand_groups_of_ten_thousand_parts() -> None:
    groups = Groups(10.0)
    for number in range(MAX_OPEN):
        assert groups.observe(Part(f"g{number}", 0, MAX_PARTS), float(number)) is Seen.WAITING
    assert not groups.reserve(Part("another", 0, 2), 0.0)
    assert groups.overdue(10.0) == [Overdue("g0", 1, MAX_PARTS)]
    for index in range(MAX_PARTS - 1):
        assert groups.observe(Part("g7", index, MAX_PARTS), 0.0) is Seen.WAITING
    assert groups.observe(Part("g7", MAX_PARTS - 1, MAX_PARTS), 0.0) is Seen.WHOLE
    assert groups.whole() == ["g7"]
