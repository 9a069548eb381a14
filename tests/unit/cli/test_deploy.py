"""``torpor deploy``: what is sent to a cluster, what is said of it, and how long it is waited for."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from torpor import cli
from torpor.cli import deployable
from torpor.cli.readiness import SETTLED_SECONDS, Name, Readiness
from torpor.providers.kubernetes.resources import FUNCTIONS, TRIGGERS
from torpor.spec.load import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DECLARED = """
apiVersion: torpor.dev/v1alpha1
kind: Function
metadata: {name: hello, labels: {team: blue}}
spec:
  source: {handler: main}
  scaling: {window: 90s, maxScale: 4}
  env: [{name: A, value: "1"}]
---
apiVersion: torpor.dev/v1alpha1
kind: Trigger
metadata: {name: greetings}
spec:
  filters: [{not: {exact: {type: a}}}]
  subscriber: {function: hello}
"""
APP = "from torpor import function\n\n\n@function\ndef hello() -> str:\n    return 'hello'\n"
IMAGE = "registry.example/hello:1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    code = tmp_path / "hello"
    code.mkdir()
    (code / "main.py").write_text(APP)
    (code / "function.yaml").write_text(DECLARED)
    return code


def ready(
    item: dict[str, Any], status: str = "True", reason: str = "AtRest", message: str = "it rests"
) -> Any:
    condition = {"type": "Ready", "status": status, "reason": reason, "message": message}
    condition["observedGeneration"] = item["metadata"]["generation"]
    return {**item, "status": {"conditions": [condition], "url": "http://gateway/function/hello.default"}}


@pytest.fixture
def controller(cluster: Any) -> Iterator[dict[str, tuple[str, str, str]]]:
    """Says of every object that it is ready, or what the test puts in by kind."""
    told: dict[str, tuple[str, str, str]] = {}
    ending = threading.Event()

    def look() -> None:
        for resource in (FUNCTIONS, TRIGGERS):
            for item in cluster.server.all(resource):
                seen = ready(item, *told.get(resource.kind, ()))
                if item.get("status") != seen["status"]:
                    cluster.server.put(resource, seen)

    def work() -> None:
        while not ending.wait(0.01):
            cluster.served.run(look)

    thread = threading.Thread(target=work)
    thread.start()
    yield told
    ending.set()
    thread.join()


# --- what is sent -----------------------------------------------------------------------------------------


def test_objects_have_what_was_written_down_and_no_more(folder: Path) -> None:
    declared = load([folder])
    function = deployable.function_object(declared.functions["default/hello"], IMAGE, None)
    assert function == {
        "apiVersion": "torpor.dev/v1alpha1",
        "kind": "Function",
        "metadata": {"name": "hello", "namespace": "default", "labels": {"team": "blue"}},
        "spec": {
            "image": IMAGE,
            "scaling": {"window": "90s", "maxScale": 4},
            "env": [{"name": "A", "value": "1"}],
        },
    }
    trigger = deployable.events_object(declared.triggers["default/greetings"], "images")
    assert trigger["metadata"] == {"name": "greetings", "namespace": "images"}
    assert trigger["spec"] == {
        "filters": [{"not": {"exact": {"type": "a"}}}],
        "subscriber": {"function": "hello"},
    }


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["hello"], "'hello' is no image of a function, NAME=REFERENCE was expected"),
        (["=x"], "NAME=REFERENCE was expected"),
        (["a=x", "a=y"], "the image of 'a' is given twice"),
        (["a=X Y"], "the image of 'a' is 'X Y'"),
        (["a="], "the image of 'a' is ''"),
    ],
)
def test_an_image_that_is_given_wrongly_is_said_to_be(texts: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        deployable.given(texts)


def test_the_image_given_is_before_the_one_built_and_that_before_the_declared_one(
    folder: Path,
) -> None:
    function = load([folder]).functions["default/hello"]
    own = function.model_copy(update={"spec": function.spec.model_copy(update={"image": "own:1"})})
    built = {"default/hello": "built:1"}
    assert deployable.image(function, {}, {}) is None
    assert deployable.image(own, {}, {}) == "own:1"
    assert deployable.image(own, {}, built) == "built:1"
    assert deployable.image(own, {"hello": "given:1"}, built) == "given:1"
    assert deployable.image(own, {"hello": "x", "hello.default": "given:1"}, built) == "given:1"


# --- the command ------------------------------------------------------------------------------------------


def test_what_is_declared_is_applied_and_waited_for(
    cluster: Any, controller: object, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cluster.run("deploy", str(folder), "--image", f"hello={IMAGE}") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:3] == [
        ["Function", "default/hello", "created"],
        ["Trigger", "default/greetings", "created"],
    ]
    assert lines[3] == ["Function", "default/hello", "is", "ready:", "http://gateway/function/hello.default"]
    stored = cluster.server.read(FUNCTIONS, "default/hello")
    assert stored["spec"]["image"] == IMAGE
    assert "source" not in stored["spec"]
    assert {write.manager for write in cluster.server.writes} == {"torpor-deploy"}
    assert cluster.run("deploy", str(folder), "--image", f"hello={IMAGE}") == 0
    assert capsys.readouterr().out.count("unchanged") == 2
    assert cluster.run("deploy", str(folder), "--image", "hello=registry.example/hello:2") == 0
    shown = capsys.readouterr().out
    assert (shown.count("configured"), shown.count("unchanged")) == (1, 1)


def test_what_build_prints_gives_the_images(
    cluster: Any,
    controller: object,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [
        {"function": "default/hello", "image": IMAGE, "seconds": 1.0},
        {"function": "default/other", "image": "registry.example/other:1", "seconds": 1.0},
    ]
    stdin = io.TextIOWrapper(io.BytesIO(json.dumps(rows).encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    assert cluster.run("deploy", str(folder), "--images", "-", "-n", "images", "-o", "json") == 0
    function, trigger = json.loads(capsys.readouterr().out)
    assert function == {
        "kind": "Function",
        "name": "hello",
        "namespace": "images",
        "image": IMAGE,
        "action": "created",
        "ready": True,
        "reason": "AtRest",
        "message": "it rests",
        "url": "http://gateway/function/hello.default",
    }
    assert (trigger["namespace"], trigger["image"]) == ("images", None)


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", '[{"function": 1}]', '[{"function": "a", "image": "X Y"}]']
)
def test_what_build_did_not_print_is_refused(
    cluster: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (tmp_path / "images.json").write_text(content)
    assert cluster.run("deploy", str(folder), "--images", str(tmp_path / "images.json")) == 2
    assert "images.json" in capsys.readouterr().err
    assert cluster.server.writes == []


def test_a_dry_run_changes_nothing(cluster: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster.run("deploy", str(folder), "--image", f"hello={IMAGE}", "--dry-run") == 0
    assert capsys.readouterr().out.count("created (dry run)") == 2
    assert cluster.server.all(FUNCTIONS) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "function.yaml:5: spec.image: is missing, an image for the cluster was expected"),
        (["--image", "helo=x"], "there is no function 'helo' to give an image to, did you mean 'hello'?"),
        (["--image", "hello"], "NAME=REFERENCE was expected"),
        (["--timeout", "0"], "--timeout"),
    ],
)
def test_wrong_usage_is_2_and_sends_nothing(
    cluster: Any, folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert cluster.run("deploy", str(folder), *arguments) == 2
    assert words in capsys.readouterr().err
    assert cluster.server.writes == []


def test_a_wrong_file_is_2(cluster: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "function.yaml").write_text(DECLARED.replace("maxScale: 4", "maxScale: 0"))
    assert cluster.run("deploy", str(folder), "--image", f"hello={IMAGE}") == 2
    assert "function.yaml:7: spec.scaling.maxScale: is 0" in capsys.readouterr().err


def test_another_namespace_than_a_file_names_is_refused(
    cluster: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = DECLARED.replace("{name: greetings}", "{name: greetings, namespace: default}")
    (folder / "function.yaml").write_text(text)
    assert cluster.run("deploy", str(folder), "--image", f"hello={IMAGE}", "-n", "images") == 2
    said = capsys.readouterr().err
    assert "metadata.namespace: is 'default', 'images' was expected, or no namespace" in said


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ("local", "on this machine, 'torpor up' watches files by itself"),
        ("http://127.0.0.1:1", "--context kube:NAME was expected, not 'http://127.0.0.1:1'"),
        ("kube:prid", "did you mean 'prod'?"),
    ],
)
def test_only_a_cluster_is_deployed_to(
    cluster: Any, folder: Path, capsys: pytest.CaptureFixture[str], context: str, words: str
) -> None:
    assert cli.run(["deploy", str(folder), "--context", context]) == 2
    assert words in capsys.readouterr().err


def test_what_is_refused_of_one_keeps_all_from_being_changed(
    cluster: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.api.forbids = lambda method, path: method == "PATCH" and "/triggers/" in path
    assert cluster.run("deploy", str(folder), "--image", f"hello={IMAGE}") == 1
    said = capsys.readouterr().err
    assert "Error: Trigger default/greetings: " in said
    assert 'User "somebody" cannot PATCH it' in said
    assert cluster.server.all(FUNCTIONS) == []


def test_a_field_that_another_has_declared_is_taken_only_when_told_so(
    cluster: Any, controller: object, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = {"apiVersion": FUNCTIONS.api, "kind": FUNCTIONS.kind}
    item = {**head, "metadata": {"name": "hello", "namespace": "default"}, "spec": {"image": "other:1"}}

    async def apply() -> None:
        await cluster.server.kube().apply(FUNCTIONS, item, manager="helm")

    asyncio.run_coroutine_threadsafe(apply(), cluster.served.loop).result(10)
    arguments = ("deploy", str(folder), "--image", f"hello={IMAGE}")
    assert cluster.run(*arguments) == 1
    said = capsys.readouterr().err
    assert 'conflict with "helm"' in said
    assert "--force-conflicts takes them over" in said
    assert cluster.run(*arguments, "--force-conflicts") == 0
    assert cluster.server.read(FUNCTIONS, "default/hello")["spec"]["image"] == IMAGE


def test_what_does_not_become_ready_is_1_with_the_condition_s_words(
    cluster: Any, controller: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    controller["Function"] = ("False", "Invalid", "spec.x: is wrong")
    assert cluster.run("deploy", str(folder), "--image", f"hello={IMAGE}", "-o", "json") == 1
    captured = capsys.readouterr()
    assert "Error: Function default/hello is not ready: spec.x: is wrong\n" in captured.err
    assert [one["ready"] for one in json.loads(captured.out)] == [False, True]


def test_who_does_not_wait_is_told_nothing_of_it(
    cluster: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cluster.run("deploy", str(folder), "--image", f"hello={IMAGE}", "--no-wait") == 0
    assert "ready" not in capsys.readouterr().out


def test_a_time_out_says_what_was_waited_for(
    cluster: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("deploy", str(folder), "--image", f"hello={IMAGE}", "--timeout", "1")
    assert cluster.run(*arguments) == 1
    assert (
        "Function default/hello is not ready: the controller has not looked at it yet"
        in capsys.readouterr().err
    )


# --- readiness --------------------------------------------------------------------------------------------

ITEM = {"kind": "Function", "metadata": {"name": "f", "namespace": "n", "generation": 1}}
NAME = Name("Function", "n/f")


def waiting() -> Readiness:
    readiness = Readiness()
    readiness.expect(ITEM)
    return readiness


def test_a_problem_counts_when_it_has_settled() -> None:
    readiness = waiting()
    assert not readiness.judge(0)
    readiness.see(ready(ITEM, "False", "ImageNotPulled", "no such image"), 10)
    readiness.see(ready(ITEM, "False", "ImageNotPulled", "no such image, really"), 12)
    assert not readiness.judge(9.9 + SETTLED_SECONDS)
    assert readiness.judge(10 + SETTLED_SECONDS)
    assert readiness.problems() == {NAME: "no such image, really"}


def test_a_problem_that_goes_away_is_none() -> None:
    readiness = waiting()
    readiness.see(ready(ITEM, "False", "CrashLoop", "it ends"), 0)
    readiness.see(ready(ITEM, "Unknown", "Starting", "again"), 10)
    assert not readiness.judge(100)
    assert readiness.progress() == "0 of 1 ready; Function n/f: again"
    readiness.see(ready(ITEM), 101)
    assert readiness.judge(101)
    assert readiness.problems() == {}


@pytest.mark.parametrize(("reason", "seconds"), [("Invalid", 0.0), ("Refused", 0.0), ("Unschedulable", None)])
def test_how_long_a_problem_is_borne(reason: str, seconds: float | None) -> None:
    readiness = waiting()
    readiness.see(ready(ITEM, "False", reason, "x"), 0)
    assert readiness.judge(0) is (seconds == 0.0)
    assert readiness.judge(10_000) is (seconds is not None)


def test_what_was_said_of_an_older_declaration_does_not_count() -> None:
    readiness = Readiness()
    readiness.expect({**ITEM, "metadata": {**ITEM["metadata"], "generation": 2}})  # type: ignore[dict-item]
    readiness.see(ready(ITEM), 0)
    assert not readiness.judge(0)


def test_an_object_that_is_deleted_meanwhile_is_waited_for_no_more() -> None:
    readiness = waiting()
    readiness.gone(ITEM)
    assert readiness.judge(0)
    assert readiness.problems() == {NAME: "it was deleted"}
