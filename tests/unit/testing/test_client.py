"""The client for tests of one function, as an author uses it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from torpor.errors import HandlerError
from torpor.testing.client import CallError, function_client

if TYPE_CHECKING:
    from pathlib import Path

MAIN = """
import os
from contextlib import asynccontextmanager
from collections.abc import Iterator
from fastapi import FastAPI, Request
from pydantic import BaseModel
from torpor import CloudEvent, Context, function
import helper

class Person(BaseModel):
    name: str

@function(emits="name.greeted")
async def greet(person: Person, ctx: Context) -> dict:
    if person.name == "fail":
        raise LookupError("nobody")
    return {"greeting": f"{helper.HELLO}, {person.name}!", "key": ctx.attributes.get("partitionkey")}

@function
def split(data: dict) -> Iterator[int]:
    yield from data["items"]

@function
async def join(items: list[int]) -> int:
    return sum(items)

@function
async def settings(data: dict) -> list:
    return [os.environ.get("COLOR")]

@asynccontextmanager
async def lifespan(app):
    app.state.started = True
    yield

app = FastAPI(lifespan=lifespan)

@app.get("/started")
async def started() -> bool:
    return app.state.started
"""
YAML = "\n---\n".join(
    f"apiVersion: torpor.dev/v1alpha1\nkind: Function\nmetadata: {{name: {name}}}\n"
    f"spec:\n  source: {{handler: 'main:{handler}'}}\n  env: [{{name: COLOR, value: red}}]"
    for name, handler in (
        ("greeter", "greet"),
        ("splitter", "split"),
        ("joiner", "join"),
        ("painter", "settings"),
    )
)


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    folder = tmp_path / "fn"
    folder.mkdir()
    (folder / "main.py").write_text(MAIN)
    (folder / "helper.py").write_text("HELLO = 'Hello'\n")
    return folder


@pytest.fixture
def call(folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda name=None, **settings: function_client(folder, name, tmp_path, monkeypatch.setenv, settings)


def test_sends_events_and_returns_replies(call: Any) -> None:
    with call("greet") as client:
        [reply] = client.send("name.given", {"name": "Ada"}, partitionkey="k", id="7")
    assert reply.get_type() == "name.greeted"
    assert reply.get_data() == {"greeting": "Hello, Ada!", "key": "k"}
    assert reply.get_id().startswith("7.")


def test_fans_out_and_joins(call: Any) -> None:
    with call("split") as client:
        replies = client.send("list", {"items": [1, 2, 3]})
    with call("join") as client:
        [total] = client.send_group("part", [reply.get_data() for reply in replies])
        assert total.get_data() == 6
        assert client.send_event(replies[0])[0].get_data() == 1


def test_raises_what_the_handler_raises(call: Any) -> None:
    with call("greet") as client, pytest.raises(LookupError, match="nobody"):
        client.send("name.given", {"name": "fail"})


def test_says_why_an_event_is_refused(call: Any) -> None:
    with call("greet") as client:
        with pytest.raises(CallError, match=r"the function answered 422: name: Field required") as caught:
            client.send("name.given", {})
        assert caught.value.status == 422
        with pytest.raises(CallError, match="answered 415"):
            client.send("name.given", "text")


def test_is_an_http_client_with_the_apps_lifespan(call: Any) -> None:
    with call("app") as client:
        assert client.get("/started").json() is True
        assert client.post("/started").status_code == 405
        assert client.get("/healthz/ready").status_code == 200


def test_settings_can_be_given(call: Any) -> None:
    with call("greet", max_body_bytes=4) as client, pytest.raises(CallError, match="413"):
        client.send("name.given", {"name": "Ada"})


def test_a_declared_function_is_chosen_by_name_and_has_its_environment(call: Any, folder: Any) -> None:
    (folder / "function.yaml").write_text(YAML)
    with call("painter") as client:
        [reply] = client.send("x", {})
        assert (reply.get_data(), reply.get_source()) == (["red"], "/default/painter")
    with pytest.raises(HandlerError, match=r"4 functions in .*greeter, joiner, painter, splitter"), call():
        pass
    with pytest.raises(HandlerError, match="no function 'absent'"), call("absent"):
        pass


def test_folders_with_modules_of_the_same_names_do_not_meet(
    call: Any, folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "main.py").write_text(MAIN)
    (other / "helper.py").write_text("HELLO = 'Bonjour'\n")
    before = (set(sys.modules), sys.path[:])
    for greeting, where in (("Hello", folder), ("Bonjour", other), ("Hello", folder)):
        with function_client(where, "greet", tmp_path, monkeypatch.setenv) as client:
            [reply] = client.send("name.given", {"name": "Ada"})
        assert reply.get_data() == {"greeting": f"{greeting}, Ada!", "key": None}
    assert "helper" not in set(sys.modules) - before[0]
    assert sys.path == before[1]


# --- the plugin -------------------------------------------------------------------------------------------

TESTS = """
import pytest

@pytest.mark.torpor_function("greeter")
def test_greets(client):
    [reply] = client.send("name.given", {"name": "Ada"})
    assert reply.get_data()["greeting"] == "Hello, Ada!"

def test_fans_out_and_joins(client_for):
    parts = client_for("splitter").send("list", {"items": [1, 2]})
    [total] = client_for("joiner").send_group("part", [part.get_data() for part in parts])
    assert total.get_data() == 3

def test_needs_a_name(client):
    pass
"""


def test_the_fixtures_in_a_run_of_their_own(folder: Any) -> None:
    (folder / "function.yaml").write_text(YAML)
    (folder / "test_fn.py").write_text(textwrap.dedent(TESTS))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-W", "error", "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "2 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "choose one by @pytest.mark.torpor_function('NAME')" in done.stdout


def test_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import pytest, sys\nbefore = set(sys.modules)\nimport torpor.testing.plugin\n"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "['torpor', 'torpor.testing', 'torpor.testing.plugin']"
