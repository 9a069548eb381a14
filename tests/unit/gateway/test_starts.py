# ruff: noqa: E501 - tables are read by the line
"""Phases of a cold start as a gateway sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import generate_latest

from torpor.gateway.starts import Start, Starts, waited
from torpor.scaling.coldstart import ColdStarts

if TYPE_CHECKING:
    from torpor.scaling.coldstart import Phase

HELD = "held"
ALL = [
    ("decide", 0.01),
    ("pod", 1.0),
    ("boot", 0.5),
    ("ready", 0.02),
    ("first_byte", 0.1),
    ("total", 1.63),
]


def follow(*told: tuple[str, float]) -> list[tuple[str, Any]]:
    """The phases observed of what is told, at these times."""
    found: list[tuple[str, Any]] = []

    def observe(function: str, phase: Phase, seconds: float) -> None:
        assert function == "default/f"
        found.append((phase, pytest.approx(seconds)))

    starts = Starts(observe)
    for what, at in told:
        if what == HELD:
            starts.held("default/f", at)
        else:
            starts.reached("default/f", what, at)  # type: ignore[arg-type]
    return found


WHOLE = [(HELD, 0.0), ("decide", 0.01), ("pod", 1.01), ("boot", 1.51), ("ready", 1.53), ("first_byte", 1.63)]


@pytest.mark.parametrize(
    ("told", "phases"),
    [
        (WHOLE, ALL),
        ([*WHOLE, *((what, at) for what, at in WHOLE if what != HELD)], ALL),  # warm: nothing more
        ([(what, at) for what, at in WHOLE for _ in range(3)], ALL),
        # Others were quicker to raise it, or its pod was there.
        ([(HELD, 0.0), ("boot", 0.5), ("first_byte", 0.6)], [("boot", 0.5), ("first_byte", 0.1), ("total", 0.6)]),
        # A phase that comes late says nothing.
        ([(HELD, 0.0), ("pod", 0.5), ("decide", 0.6), ("boot", 1.0)], [("pod", 0.5), ("boot", 0.5)]),
        ([("pod", 0.5), ("boot", 0.6), ("first_byte", 0.7)], []),  # nobody waits
        ([(HELD, 0.0), ("pod", 1.0), (HELD, 80.0), ("boot", 81.0)], [("pod", 1.0), ("boot", 80.0)]),
        ([(HELD, 0.0), ("pod", 1.0), (HELD, 91.0), ("boot", 92.0)], [("pod", 1.0), ("boot", 1.0)]),  # given up
    ],
)  # fmt: skip
def test_phases(told: list[tuple[str, float]], phases: list[tuple[str, float]]) -> None:
    assert follow(*told) == phases


WHOLE_START = Start(0.0, {"decide": 0.1, "pod": 1.0, "boot": 1.5, "first_byte": 1.6})


@pytest.mark.parametrize(
    ("since", "until", "answered", "phases"),
    [
        (0.0, 1.6, True, [("decide", 0.0, 0.1), ("pod", 0.1, 1.0), ("boot", 1.0, 1.5), ("first_byte", 1.5, 1.6)]),
        # It came later: what was over then is not its own, and of what was under way it has what was left.
        (0.4, 1.7, True, [("pod", 0.4, 1.0), ("boot", 1.0, 1.5), ("first_byte", 1.5, 1.7)]),
        (1.55, 1.7, True, [("first_byte", 1.55, 1.7)]),
        # It was given up: the phase that was under way never ended for it.
        (0.0, 1.2, False, [("decide", 0.0, 0.1), ("pod", 0.1, 1.0)]),
        (0.0, 0.05, False, []),
    ],
)  # fmt: skip
def test_what_each_request_waited_for(
    since: float, until: float, answered: bool, phases: list[tuple[str, float, float]]
) -> None:
    assert waited(WHOLE_START, since, until, answered=answered) == phases


def test_those_that_wait_together_wait_for_one_start_and_the_next_for_another() -> None:
    starts = Starts()
    first = starts.held("default/f", 0.0)
    assert starts.held("default/f", 1.0) is first
    assert starts.held("default/g", 1.0) is not first
    starts.reached("default/f", "first_byte", 2.0)
    assert starts.held("default/f", 3.0).began == 3.0
    starts.keep({"default/g"})
    assert starts.held("default/f", 4.0).began == 4.0
    assert starts.held("default/g", 4.0).began == 1.0


def test_a_functions_figures_go_with_it() -> None:
    starts = ColdStarts()
    starts.observe("default/f", "boot", 0.3)
    starts.observe("default/g", "boot", 0.3)
    line = 'torpor_cold_start_seconds_count{function="default/f",phase="boot"} 1.0'
    assert line in generate_latest(starts).decode()
    starts.forget("default/f")
    text = generate_latest(starts).decode()
    assert "default/f" not in text
    assert 'le="0.5"' in text
