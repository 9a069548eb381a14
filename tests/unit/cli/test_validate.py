# ruff: noqa: E501 - a fault is one line, and shown here as it is printed
"""``torpor validate``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from torpor import cli
from torpor.cli import VERBS
from torpor.cli.validate import command

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "apiVersion: torpor.dev/v1alpha1\n"
WRONG = f"{HEAD}kind: Function\nmetadata: {{name: f}}\nspec:\n  timeoutSeconds: 0\n  zone: x\n"
RIGHT = f"{HEAD}kind: Function\nmetadata: {{name: f}}\n"
TRIGGER = f"{HEAD}kind: Trigger\nmetadata: {{name: t}}\nspec:\n  subscriber: {{function: g}}\n"
FAULTS = [
    "function.yaml:5: spec.timeoutSeconds: is 0, more than 0 was expected",
    "function.yaml:6: spec.zone: is not a field here, one of containerConcurrency, env, http, image, imagePullSecrets, resources, scaling, source, timeoutSeconds was expected",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("main.py").write_text("")


def test_prints_every_fault_and_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.joinpath("function.yaml").write_text(WRONG)
    assert cli.run(["validate"]) == 2
    output = capsys.readouterr()
    assert output.out.splitlines() == FAULTS
    assert output.err == "2 faults found\n"


def test_faults_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.joinpath("function.yaml").write_text(WRONG)
    assert cli.run(["validate", "-o", "json"]) == 2
    output = capsys.readouterr()
    document = json.loads(output.out)
    assert output.err == ""
    assert document["valid"] is False
    assert document["faults"][0] == {
        "file": "function.yaml",
        "line": 5,
        "field": "spec.timeoutSeconds",
        "message": "is 0, more than 0 was expected",
    }
    assert len(document["faults"]) == 2


def test_what_is_right_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.joinpath("function.yaml").write_text(RIGHT)
    assert cli.run(["validate", "."]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["Function", "default/f", "function.yaml:1"]
    assert cli.run(["validate", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "valid": True,
        "functions": ["default/f"],
        "triggers": [],
        "schedules": [],
        "faults": [],
    }


def test_a_folder_is_all_there_is_and_a_file_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.joinpath("t.yaml").write_text(TRIGGER)
    assert cli.run(["validate", "t.yaml"]) == 0
    assert cli.run(["validate", "."]) == 2
    assert "there is no function 'g'" in capsys.readouterr().out


def test_paths_that_are_not_there_are_faults(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["validate", "nowhere", "main.py"]) == 2
    assert capsys.readouterr().out.splitlines() == [
        "main.py: is neither a folder nor a YAML file, one of them was expected",
        "nowhere: does not exist, a folder or a YAML file was expected",
    ]


def test_its_help_is_the_one_in_the_list() -> None:
    assert command.short_help == VERBS["validate"]
