"""One table: what a person writes wrongly, and the exact line that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.declarations import (
    CRON_FAULTS,
    DOCUMENTS,
    FUNCTION,
    FUNCTION_FAULTS,
    RIGHT_FUNCTIONS,
    RIGHT_SCHEDULES,
    RIGHT_TRIGGERS,
    SCHEDULE,
    SCHEDULE_FAULTS,
    SCHEDULE_WITHOUT_CRON,
    TRIGGER,
    TRIGGER_FAULTS,
    Wrong,
)
from torpor.spec.load import inspect

if TYPE_CHECKING:
    from pathlib import Path


def faults(folder: Path, text: str) -> list[str]:
    folder.joinpath("main.py").write_text("")
    path = folder / "function.yaml"
    path.write_text(text)
    _, found = inspect([path], complete=False)
    return [str(fault).removeprefix(f"{folder}/") for fault in found]


@pytest.mark.parametrize("wrong", FUNCTION_FAULTS, ids=lambda wrong: wrong.line[:60])
def test_faults_of_a_functions_spec(tmp_path: Path, wrong: Wrong) -> None:
    expected = f"function.yaml:{wrong.fault}".replace("{folder}", str(tmp_path))
    assert faults(tmp_path, f"{FUNCTION}  {wrong.line}\n") == [expected]


@pytest.mark.parametrize("wrong", TRIGGER_FAULTS, ids=lambda wrong: wrong.line[:60])
def test_faults_of_a_triggers_spec(tmp_path: Path, wrong: Wrong) -> None:
    assert faults(tmp_path, f"{TRIGGER}  {wrong.line}\n") == [f"function.yaml:{wrong.fault}"]


@pytest.mark.parametrize("wrong", SCHEDULE_FAULTS, ids=lambda wrong: wrong.line[:60])
def test_faults_of_a_schedules_spec(tmp_path: Path, wrong: Wrong) -> None:
    assert faults(tmp_path, f"{SCHEDULE}  {wrong.line}\n") == [f"function.yaml:{wrong.fault}"]


@pytest.mark.parametrize("wrong", CRON_FAULTS, ids=lambda wrong: wrong.line[:60])
def test_faults_of_an_expression(tmp_path: Path, wrong: Wrong) -> None:
    assert faults(tmp_path, f"{SCHEDULE_WITHOUT_CRON}  {wrong.line}\n") == [f"function.yaml:{wrong.fault}"]


@pytest.mark.parametrize(("text", "expected", "_"), DOCUMENTS)
def test_faults_of_a_document(tmp_path: Path, text: str, expected: list[str], _: str) -> None:
    assert faults(tmp_path, text) == [f"function.yaml:{fault}" for fault in expected]


def test_every_fault_of_every_document_is_reported(tmp_path: Path) -> None:
    text = f"{FUNCTION}  timeoutSeconds: 0\n  imge: x\n---\n{TRIGGER}  parallelism: 0\n---\na: [\n"
    assert [fault.split(": ")[:2] for fault in faults(tmp_path, text)] == [
        ["function.yaml:5", "spec.timeoutSeconds"],
        ["function.yaml:6", "spec.imge"],
        ["function.yaml:13", "spec.parallelism"],
        ["function.yaml:16", "YAML"],
    ]


@pytest.mark.parametrize(
    "text",
    [
        *(FUNCTION.rstrip() + f" {spec}\n" for spec in RIGHT_FUNCTIONS),
        *(TRIGGER.partition("spec:")[0] + f"spec: {spec}\n" for spec in RIGHT_TRIGGERS),
        *(SCHEDULE.partition("spec:")[0] + f"spec: {spec}\n" for spec in RIGHT_SCHEDULES),
    ],
)
def test_what_is_right_has_no_fault(tmp_path: Path, text: str) -> None:
    assert [fault for fault in faults(tmp_path, text) if "source" not in fault] == []
