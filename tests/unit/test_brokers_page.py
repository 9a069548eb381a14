"""The matrix of brokers names cases and tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

from torpor.testing.contracts.event_log import CASES

ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\|(.*)\|\s*$", re.MULTILINE)


def test_every_row_is_held_by_cases_that_there_are() -> None:
    text = (ROOT / "docs" / "brokers.md").read_text("utf-8")
    matrix = text[text.index("## What each guarantees") : text.index("## What Kafka costs")]
    cases = {case.__name__ for case in CASES}
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    named = {
        name for row in _ROW.findall(matrix) for name in re.findall(r"`(\w+(?:\.py)?)`", row.split("|")[-1])
    }
    assert named
    assert named - cases - tests == set()


def test_the_contract_has_its_cases() -> None:
    assert len(CASES) >= 60
    assert len({case.__name__ for case in CASES}) == len(CASES)
