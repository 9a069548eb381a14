# ruff: noqa: E501 - tables are read by the line
"""Which revision serves: one table."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.controller.rollout import Known, Plan, plan


def known(number: int, replicas: int | None = 0, ready: int = 0) -> Known:
    return Known(f"f-{number}", number, f"d{number}", replicas, ready)


def decide(digest: str, revisions: list[Known], serving: str | None, **given_: Any) -> Plan:
    options = {"desired": 0, "least": 0, "kept": 5} | given_
    name = f"f-{1 + max((one.number for one in revisions), default=0)}"
    return plan(digest, revisions, serving, name=name, **options)


@pytest.mark.parametrize(
    ("digest", "revisions", "serving", "options", "wanted"),
    [
        # the first revision serves at once, though it has not been seen to run
        ("d1", [], None, {}, Plan("f-1", 1, "f-1", {}, ())),
        ("d1", [known(1, None)], None, {}, Plan("f-1", None, "f-1", {}, ())),
        ("d1", [known(1, 2, 2)], "f-1", {}, Plan("f-1", None, "f-1", {}, ())),
        # a second one is made, has no Deployment yet, is started, is waited for, serves
        ("d2", [known(1, 2, 2)], "f-1", {}, Plan("f-2", 2, "f-1", {}, ())),
        ("d2", [known(1, 2, 2), known(2, None)], "f-1", {}, Plan("f-2", None, "f-1", {}, ())),
        ("d2", [known(1, 2, 2), known(2, 0)], "f-1", {}, Plan("f-2", None, "f-1", {"f-2": 2}, ())),
        ("d2", [known(1, 2, 2), known(2, 2, 1)], "f-1", {}, Plan("f-2", None, "f-1", {}, ())),
        ("d2", [known(1, 2, 2), known(2, 2, 2)], "f-1", {}, Plan("f-2", None, "f-2", {"f-1": 0}, ())),
        ("d2", [known(1, 2, 2), known(2, 2, 2)], "f-2", {}, Plan("f-2", None, "f-2", {"f-1": 0}, ())),
        # it is proved by one pod at least, and by as many as it has to start with
        ("d2", [known(1, 0), known(2, 0)], "f-1", {}, Plan("f-2", None, "f-1", {"f-2": 1}, ())),
        ("d2", [known(1, 1), known(2, 0)], "f-1", {"least": 3}, Plan("f-2", None, "f-1", {"f-2": 3}, ())),
        ("d2", [known(1, 1), known(2, 0)], "f-1", {"desired": 4}, Plan("f-2", None, "f-1", {"f-2": 4}, ())),
        # a third takes the place of a second that never became ready
        ("d3", [known(1, 2, 2), known(2, 2)], "f-1", {}, Plan("f-3", 3, "f-1", {"f-2": 0}, ())),
        # a former spec is a former revision
        ("d1", [known(1, 0), known(2, 2, 2)], "f-2", {}, Plan("f-1", None, "f-2", {"f-1": 2}, ())),
        # what serves was taken away by somebody
        ("d2", [known(2, 0)], "f-1", {}, Plan("f-2", None, "f-2", {}, ())),
        # old ones go, but none that still has pods
        ("d3", [known(1), known(2), known(3, 1, 1)], "f-3", {"kept": 1}, Plan("f-3", None, "f-3", {}, ("f-1",))),
        ("d3", [known(1, 0, 1), known(2), known(3, 1, 1)], "f-3", {"kept": 0}, Plan("f-3", None, "f-3", {}, ("f-2",))),
        ("d3", [known(1, None), known(2), known(3, 1, 1)], "f-3", {"kept": 0}, Plan("f-3", None, "f-3", {}, ("f-2", "f-1"))),
    ],
)  # fmt: skip
def test_plans(
    digest: str, revisions: list[Known], serving: str | None, options: dict[str, int], wanted: Plan
) -> None:
    assert decide(digest, revisions, serving, **options) == wanted


_REVISIONS = st.lists(st.tuples(st.none() | st.integers(0, 5), st.integers(0, 5)), max_size=5).map(
    lambda each: [known(index + 1, *one) for index, one in enumerate(each)]
)


@given(_REVISIONS, st.integers(1, 6), st.integers(0, 6), st.integers(0, 5), st.integers(0, 3))
def test_what_serves_is_never_ended_nor_dropped(
    revisions: list[Known], digest: int, serving: int, desired: int, kept: int
) -> None:
    decided = decide(f"d{digest}", revisions, f"f-{serving}", desired=desired, kept=kept)
    assert decided.scale.get(decided.serving) != 0
    assert not {decided.serving, decided.latest} & set(decided.drop)
    by_name = {one.name: one for one in revisions}
    before = by_name.get(f"f-{serving}")
    if before is not None and before.replicas is not None and decided.serving != before.name:
        assert by_name[decided.serving].ready > 0
