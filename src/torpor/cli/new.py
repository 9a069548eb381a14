"""``torpor new``: a folder with a function, its test, and nothing that the defaults say already."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import click

from torpor.errors import TorporError
from torpor.spec.discovery import function_name
from torpor.spec.values import MAX_NAME_LENGTH, shown

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

TEMPLATES = ("http", "event", "fan-out")
_SUFFIX = ".txt"  # so that no tool takes a template for what it makes
_README = "README.md"
_COMMENTED = re.compile(r"(\S.*?) {2,}# (.*)")
_LONGEST_NAME = MAX_NAME_LENGTH - len("-split")


@click.command("new", short_help="Make a folder with a new function and its test.")
@click.argument("name")
@click.option(
    "--template",
    type=click.Choice(TEMPLATES),
    default="http",
    show_default=True,
    help="An HTTP API, a function that events call, or a split and join of events.",
)
def command(name: str, template: str) -> None:
    """Make the folder NAME with a new function of that name and its test.

    NAME may be a path; its last part names the function.
    """
    folder = Path(name)
    _check_name(folder)
    try:
        written = _write(folder, render(template, folder.name))
    except FileExistsError:
        raise TorporError(f"{folder} exists already, a name that is free was expected") from None
    except OSError as error:
        raise TorporError(f"{error.filename} can't be written: {error.strerror}") from error
    click.echo(f"Made {folder} with {', '.join(path.name for path in written)}.\n")
    click.echo(_next_steps(folder, template))


def render(template: str, name: str) -> dict[str, str]:
    """The files, by name, of a function ``name`` made from ``template``."""
    folder = resources.files("torpor.cli") / "templates"
    test = f"test_{name.replace('-', '_')}.py"
    values = {"name": name, "test": test}
    sources: list[Traversable] = sorted((folder / template).iterdir(), key=lambda source: source.name)
    files = {
        source.name.removesuffix(_SUFFIX): Template(source.read_text("utf-8")).substitute(values)
        for source in sources
    }
    files[_README] = _aligned(files[_README])
    files[test] = files.pop("test.py")
    files["requirements.txt"] = (folder / "requirements.txt").read_text("utf-8")
    return files


def _aligned(text: str) -> str:
    """``text`` with the comments after its commands in one column, whatever the name of the function is."""
    lines = [(line, _COMMENTED.fullmatch(line)) for line in text.split("\n")]
    width = max((len(match[1]) for _, match in lines if match is not None), default=0)
    return "\n".join(line if match is None else f"{match[1]:<{width}}  # {match[2]}" for line, match in lines)


def _check_name(folder: Path) -> None:
    """Raise ``click.UsageError`` unless the folder's name can be a function's."""
    name = folder.name
    proper = function_name(folder)
    if proper != name:
        expected = f"such as {proper!r}" if proper else "such as 'hello'"
        rule = "lower-case letters, digits and inner '-' were expected"
        raise click.UsageError(f"{shown(name)} can't name a function: {rule}, {expected}")
    if len(name) > _LONGEST_NAME:
        raise click.UsageError(f"{name!r} has {len(name)} characters, at most {_LONGEST_NAME} were expected")


def _write(folder: Path, files: dict[str, str]) -> list[Path]:
    folder.mkdir(parents=True)
    paths = []
    for name, text in files.items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def _next_steps(folder: Path, template: str) -> str:
    call = {
        "http": f"torpor invoke {folder.name}",
        "event": 'torpor events send name.given --data \'{"name": "Ada"}\'',
        "fan-out": 'torpor events send text.submitted --data \'{"text": "the cat"}\'',
    }[template]
    steps = [
        (f"pytest {folder}", "runs its tests"),
        (f"torpor up {folder}", "runs it"),
        (call, "in another terminal, calls it"),
    ]
    width = max(len(step) for step, _ in steps)
    return "\n".join(f"  {step:<{width}}   {meaning}" for step, meaning in steps)
