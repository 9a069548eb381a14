# ruff: noqa: E501 - a fault is one line, and shown here as it is printed
"""``torpor new``: what it makes is right by every check there is, and it never writes over anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from torpor import cli
from torpor.cli import VERBS
from torpor.cli.new import TEMPLATES, command, render
from torpor.spec.load import load

RULES = "E,F,W,I,N,UP,B,A,C4,D1,PT,RET,RUF,SIM,ARG,PL,TRY"
ALLOWED = "D100,D103,PLR2004"  # tests need no docstrings, and compare with numbers


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("template", "functions", "triggers"),
    [
        ("http", {"default/a-b"}, set()),
        ("event", {"default/a-b"}, {"default/a-b"}),
        (
            "fan-out",
            {"default/a-b-split", "default/a-b-count", "default/a-b-total"},
            {"default/a-b-split", "default/a-b-count", "default/a-b-total"},
        ),
    ],
)
def test_what_it_makes_is_declared_right(template: str, functions: set[str], triggers: set[str]) -> None:
    assert cli.run(["new", "a-b", "--template", template]) == 0
    declared = load([Path("a-b")])
    assert declared.functions.keys() == functions
    assert declared.triggers.keys() == triggers
    for function in declared.functions.values():
        assert function.spec.code.requirements is None  # so that it starts without an environment to build


@pytest.mark.parametrize("name", ["a", "a-b", "a" * 44])
@pytest.mark.parametrize("template", TEMPLATES)
def test_what_it_makes_is_clean(name: str, template: str) -> None:
    assert cli.run(["new", name, "--template", template]) == 0
    ruff = [sys.executable, "-m", "ruff"]
    check = [*ruff, "check", "--isolated", "--no-cache", "--select", RULES, "--ignore", ALLOWED, name]
    assert subprocess.run(check, capture_output=True, text=True, check=False).stdout == "All checks passed!\n"
    form = [*ruff, "format", "--isolated", "--no-cache", "--check", name]
    assert subprocess.run(form, capture_output=True, text=True, check=False).returncode == 0


def test_the_default_is_the_http_template_without_any_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["new", "hello"]) == 0
    made = sorted(path.name for path in Path("hello").iterdir())
    assert made == ["README.md", "main.py", "requirements.txt", "test_hello.py"]
    output = capsys.readouterr().out
    for line in (*made, "  pytest hello", "  torpor up hello", "  torpor invoke hello"):
        assert line in output


@pytest.mark.parametrize("name", ["a", "greet", "greeting-cards"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_comments_of_its_readme_stand_in_one_column(name: str, template: str) -> None:
    commands = [line for line in render(template, name)["README.md"].split("\n") if "  # " in line]
    assert len(commands) >= 3
    assert len({line.index("  # ") for line in commands}) == 1


def test_a_path_names_its_last_part() -> None:
    assert cli.run(["new", "services/eu/hello"]) == 0
    assert load([Path("services")]).functions.keys() == {"default/hello"}


def test_nothing_is_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    Path("hello").mkdir()
    assert cli.run(["new", "hello"]) == 1
    assert list(Path("hello").iterdir()) == []
    assert capsys.readouterr().err == "Error: hello exists already, a name that is free was expected\n"


def test_a_place_that_can_not_be_written_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("")
    assert cli.run(["new", "file/hello"]) == 1
    assert capsys.readouterr().err.startswith("Error: file/hello can't be written: ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Hello_World", "'Hello_World' can't name a function: lower-case letters, digits and inner '-' were expected, such as 'hello-world'"),
        ("..", "'..' can't name a function: lower-case letters, digits and inner '-' were expected, such as 'hello'"),
        ("a\n", "'a\\n' can't name a function: lower-case letters, digits and inner '-' were expected, such as 'a'"),
        ("a" * 45, f"'{'a' * 45}' has 45 characters, at most 44 were expected"),
    ],
)  # fmt: skip
def test_names_that_functions_can_not_have(
    capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    assert cli.run(["new", name]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"Error: {message}"
    assert list(Path().iterdir()) == []


def test_its_help_is_the_one_in_the_list() -> None:
    assert command.short_help == VERBS["new"]
