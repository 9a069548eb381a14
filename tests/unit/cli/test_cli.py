"""The command line's frame: exit codes, what is said on stderr, and that nothing is read too early."""

from __future__ import annotations

import subprocess
import sys
import types

import click
import pytest

from torpor import cli
from torpor.errors import DeclarationError, StartError


def give_verb(monkeypatch: pytest.MonkeyPatch, action: object, name: str = "list") -> None:
    """Put a verb in place whose body calls ``action``."""

    @click.command(name)
    @click.pass_obj
    def command(obj: cli.Globals) -> object:
        return action(obj) if callable(action) else None

    module = types.ModuleType(f"torpor.cli.{name}")
    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, f"torpor.cli.{name}", module)


def raising(error: BaseException) -> object:
    def action(_: object) -> None:
        raise error

    return action


def test_a_verb_that_ends_well_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    give_verb(monkeypatch, lambda _: None)
    assert cli.run(["list"]) == 0


@pytest.mark.parametrize(
    ("error", "code", "stderr"),
    [
        (StartError("port 8080 is taken"), 1, "Error: port 8080 is taken\n"),
        (DeclarationError(["a:1: x: y, z", "a:2: p: q, r"]), 2, "Error: a:1: x: y, z\nError: a:2: p: q, r\n"),
        (click.ClickException("no"), 1, "Error: no\n"),
        (KeyboardInterrupt(), 1, "\n"),
        (
            ModuleNotFoundError("No module named 'httpx'", name="httpx"),
            1,
            "Error: this needs pip install 'torpor[platform]': there is no module 'httpx'\n",
        ),
        (
            ModuleNotFoundError("No module named 'ruamel.yaml'", name="ruamel.yaml"),
            1,
            "Error: this needs pip install 'torpor[platform]': there is no module 'ruamel'\n",
        ),
    ],
)  # fmt: skip
def test_errors_are_said_in_a_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    stderr: str,
) -> None:
    give_verb(monkeypatch, raising(error))
    assert cli.run(["list"]) == code
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", stderr)


def test_a_mistake_of_ours_is_not_taken_for_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    give_verb(monkeypatch, raising(ModuleNotFoundError("No module named 'torpor.x'", name="torpor.x")))
    with pytest.raises(ModuleNotFoundError):
        cli.run(["list"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lst"], "Error: there is no command 'lst', did you mean 'list'?"),
        (
            ["xyzzy"],
            "Error: there is no command 'xyzzy', one of build, calls, dead-letters, deploy, describe, ",
        ),
        (["--nope"], "Error: No such option '--nope'"),
        (["list", "--nope"], "Error: No such option '--nope'"),
    ],
)
def test_wrong_usage_is_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    give_verb(monkeypatch, lambda _: None)
    assert cli.run(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help_lists_every_verb_and_reads_none(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert cli.run(arguments) == 0
    output = capsys.readouterr().out
    for name, meaning in cli.VERBS.items():
        assert f"  {name} " in output
        assert meaning in output


def test_the_context_is_what_is_given_else_the_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_verb(monkeypatch, lambda obj: click.echo(obj.context))
    monkeypatch.delenv("TORPOR_CONTEXT", raising=False)
    cli.run(["list"])
    monkeypatch.setenv("TORPOR_CONTEXT", "http://set:1")
    cli.run(["list"])
    cli.run(["--context", "http://given:1", "list"])
    assert capsys.readouterr().out.split() == ["local", "http://set:1", "http://given:1"]


def test_the_frame_reads_nothing_of_the_platform() -> None:
    code = (
        "import sys, torpor.cli; torpor.cli.run(['--help']);"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & set(torpor.cli._PLATFORM_MODULES)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
