"""What a module serves, and what its author is told when it can't be served."""

from __future__ import annotations

import re
import sys
import textwrap
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from torpor.errors import HandlerError
from torpor.runtime.declare import function, mark_of
from torpor.runtime.load import load
from torpor.runtime.plan import Style, Takes

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "from torpor import CloudEvent, Context, function\n"
ONE = HEAD + "@function\nasync def greet(data: dict, ctx: Context) -> dict:\n    return data\n"
TWO = ONE + "@function\ndef other(data: bytes):\n    yield data\n"
APP = "async def app(scope, receive, send):\n    pass\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a module of a name of its own; returns the name."""
    monkeypatch.setattr(sys, "path", sys.path[:])

    def make(code: str, name: str | None = None) -> str:
        name = name or f"m{uuid.uuid4().hex}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))
        return name

    return make


def test_finds_the_one_function(write: Any, tmp_path: Path) -> None:
    target = load(write(ONE), tmp_path)
    assert target.app is None
    assert target.plan is not None
    assert (target.plan.name, target.plan.takes, target.plan.context) == ("greet", Takes.DATA, "ctx")
    assert target.name == "greet"
    assert re.match(r"m\w+\.py:2$", target.plan.where)


def test_finds_an_app_and_a_function_beside_each_other(write: Any, tmp_path: Path) -> None:
    target = load(write(ONE + APP), tmp_path)
    assert target.app is not None
    assert target.plan is not None


@pytest.mark.parametrize(("name", "style"), [("greet", Style.COROUTINE), ("other", Style.GENERATOR)])
def test_takes_the_one_that_is_named(write: Any, tmp_path: Path, name: Any, style: Any) -> None:
    target = load(f"{write(TWO + APP)}:{name}", tmp_path)
    assert target.app is None
    assert target.plan is not None
    assert target.plan.style is style


def test_takes_an_app_that_is_named(write: Any, tmp_path: Path) -> None:
    target = load(f"{write(ONE + APP)}:app", tmp_path)
    assert (target.plan, target.app is not None) == (None, True)


def test_takes_an_app_that_is_an_object(write: Any, tmp_path: Path) -> None:
    code = "class App:\n    async def __call__(self, scope, receive, send):\n        pass\napp = App()\n"
    assert load(write(code), tmp_path).app is not None


def test_a_handler_that_is_imported_counts_where_there_is_no_other(write: Any, tmp_path: Path) -> None:
    inner = write(ONE)
    target = load(write(f"from {inner} import greet, greet as again\n"), tmp_path)
    assert target.plan is not None
    mixed = load(write(f"from {inner} import greet\n" + HEAD + "@function\ndef own(): ...\n"), tmp_path)
    assert mixed.plan is not None
    assert mixed.plan.name == "own"


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        ("x = 1\n", "", r"m\w+\.py: there is no function marked with @function"),
        (TWO, "", r"m\w+\.py: there are 2 functions .*\(greet, other\); name one: 'm\w+:greet'"),
        (TWO, ":gret", r"there is no 'gret' in module .* it has greet, other"),
        ("def plain(a): ...\n", ":plain", r"m\w+\.py:1: 'plain' is neither marked with @function"),
        ("def app(environ, start_response): ...\n", "", r"'app' is no ASGI app; wrap a WSGI app"),
        ("x = 1\n", ":x", "'x' is no function and no ASGI app"),
        ("import nowhere_at_all\n", "", r"m\w+\.py:1: No module named 'nowhere_at_all'; is it in req"),
        ("def broken(:\n", "", r"m\w+\.py:1: invalid syntax"),
        ("x = 1\nraise LookupError('gone')\n", "", r"m\w+\.py:2: LookupError: gone"),
        ("import json\njson.loads('{')\n", "", r"m\w+\.py:2: JSONDecodeError"),
        ("import sys\nsys.exit(1)\n", "", r"m\w+\.py:2: the module ends the process"),
        (HEAD + "@function\ndef f(data): ...\n", "", r"m\w+\.py:2: f does not say what 'data' is; annotate"),
        (HEAD + "@function\ndef f(data: Nope): ...\n", "", r"annotations of f can't be read: .*Nope"),
        (HEAD + "@function\ndef f(data: bytes, more): ...\n", "", r"f has a parameter 'more' that nothing"),
        (
            HEAD + "class C: ...\n@function\ndef f(data: C): ...\n",
            "",
            r"f takes .*, which can't be validated",
        ),
        (
            HEAD + "from starlette.requests import Request\n@function\ndef f(r: list[Request]): ...\n",
            "",
            "list of requests",
        ),
        (HEAD + "@function(emits='')\ndef f(data: bytes): ...\n", "", r"TypeError: emits is ''"),
        (HEAD + "@function\nclass F: ...\n", "", "TypeError: @function marks functions"),
    ],
)
def test_says_what_is_wrong_and_where(write: Any, tmp_path: Path, code: Any, name: Any, message: Any) -> None:
    module = write("from __future__ import annotations; " + code if "Nope" in code else code)
    with pytest.raises(HandlerError, match=message):
        load(module + name, tmp_path)


def test_says_that_there_is_no_such_module(tmp_path: Path, write: Any) -> None:
    write(ONE)
    with pytest.raises(HandlerError, match="there is no module 'absent_here'"):
        load("absent_here", tmp_path)
    with pytest.raises(HandlerError, match="'module' or 'module:name' was expected"):
        load("not a name", tmp_path)


def test_a_marked_function_stays_what_it_is() -> None:
    @function(emits="x.y")
    def double(data: int) -> int:
        return 2 * data

    mark = mark_of(double)
    assert double(2) == 4
    assert mark is not None
    assert mark.emits == "x.y"


def test_what_is_returned_may_be_known_to_type_checkers_alone(write: Any, tmp_path: Path) -> None:
    code = "from __future__ import annotations\n" + HEAD + "@function\ndef f(data: bytes) -> Unknown: ...\n"
    assert load(write(code), tmp_path).plan is not None


@pytest.mark.parametrize(
    ("annotation", "takes", "many"),
    [
        ("CloudEvent", Takes.EVENT, False),
        ("list[CloudEvent]", Takes.EVENT, True),
        ("bytes", Takes.BYTES, False),
        ("list[bytes]", Takes.BYTES, True),
        ("str", Takes.TEXT, False),
        ("list[str]", Takes.TEXT, True),
        ("dict", Takes.DATA, False),
        ("list[dict]", Takes.DATA, True),
        ("list", Takes.DATA, True),
        ("int | None", Takes.DATA, False),
    ],
)
def test_the_annotation_decides(write: Any, tmp_path: Path, annotation: Any, takes: Any, many: Any) -> None:
    head = "from __future__ import annotations\n" + HEAD
    target = load(write(f"{head}@function\nasync def f(data: {annotation}): ...\n"), tmp_path)
    plan: Any = target.plan
    assert (plan.takes, plan.many) == (takes, many)
