"""``torpor up`` on real parts: serving, reloading, and ending without a trace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from tests.integration.local.conftest import HELLO, until
from torpor.errors import StartError
from torpor.local import ports
from torpor.testing.running import Running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _get(platform: Running, path: str = "/function/hello") -> httpx.Response:
    return httpx.get(f"{platform.url}{path}", timeout=30.0)


def _torpor(platform: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "torpor.cli", "--context", platform.url, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60.0,
    )


def test_a_folder_without_yaml_rests_at_zero_and_answers(hello: Path, tmp_path: Path) -> None:
    (hello / "function.yaml").unlink()
    with Running([hello], tmp_path / "run") as platform, platform.client() as client:
        until(lambda: not client.function("hello").instances, "the end of the instance that proved its start")
        before = client.function("hello")
        assert (before.ready, before.reason) == (True, "at rest")
        answer = _get(platform, "/function/hello?name=Ada")
        assert answer.json()["greeting"] == "Hello, Ada!"
        after = client.function("hello")
        assert [instance.pid for instance in after.instances] == [answer.json()["pid"]]
        assert after.start_method == "fork"


def test_the_docs_of_an_app_are_right_below_its_address(hello: Path, tmp_path: Path) -> None:
    with Running([hello], tmp_path / "run") as platform:
        page = _get(platform, "/function/hello/docs")
        assert page.status_code == 200
        assert "/function/hello/openapi.json" in page.text
        document = _get(platform, "/function/hello/openapi.json").json()
        assert document["servers"] == [{"url": "/function/hello"}]
        assert "/" in document["paths"]


def test_it_goes_to_zero_and_wakes_again(hello: Path, tmp_path: Path) -> None:
    with Running([hello], tmp_path / "run") as platform, platform.client() as client:
        pids = set()
        for _ in range(3):
            pids.add(_get(platform).json()["pid"])
            until(lambda: not client.function("hello").instances, "hello at zero")
        assert len(pids) == 3


def test_what_is_refused_while_it_is_sent_is_told_each_time(hello: Path, tmp_path: Path) -> None:
    def sent(platform: Running, method: str, path: str, **headers: str) -> int:
        def body() -> Iterator[bytes]:
            for _ in range(512):
                yield bytes(65_536)

        answer = httpx.request(
            method, f"{platform.url}{path}", content=body(), headers=headers, timeout=30.0, trust_env=False
        )
        return answer.status_code

    with Running([hello], tmp_path / "run") as platform, platform.client() as client:
        for _ in range(10):
            assert sent(platform, "PUT", "/api/v1/blobs", **{"content-length": str(1024**3)}) == 413
            assert sent(platform, "PUT", "/api/v1/blobs", host="elsewhere.example") == 421
        for _ in range(3):
            until(lambda: not client.function("hello").instances, "hello at zero")
            assert sent(platform, "POST", "/function/hello") == 405


def test_changed_code_takes_effect_and_broken_code_does_not(hello: Path, tmp_path: Path) -> None:
    with Running([hello], tmp_path / "run") as platform, platform.client() as client:
        assert _get(platform).json()["greeting"] == "Hello, world!"
        (hello / "main.py").write_text(HELLO.replace("Hello,", "Good day,"))
        platform.wait_for("applied", "default/hello", "revision hello-00002")
        until(lambda: _get(platform).json()["greeting"] == "Good day, world!", "the new greeting")
        (hello / "main.py").write_text(HELLO + "\nraise ValueError('not today')\n")
        broken = platform.wait_for("broken", "default/hello")
        assert "not today" in broken["text"]
        assert "main.py" in broken["text"]
        assert _get(platform).json()["greeting"] == "Good day, world!"
        assert "not today" in client.function("hello").reason
        assert any("not today" in fault for fault in client.status().faults)
        (hello / "main.py").write_text(HELLO)
        platform.wait_for("applied", "default/hello", "revision hello-00004")
        until(lambda: _get(platform).json()["greeting"] == "Hello, world!", "the first greeting")
        assert client.status().faults == ()


def test_a_wrong_file_is_shown_and_changes_nothing(hello: Path, tmp_path: Path) -> None:
    declaration = (hello / "function.yaml").read_text()
    with Running([hello], tmp_path / "run") as platform, platform.client() as client:
        (hello / "function.yaml").write_text(declaration.replace("maxScale", "maxScala"))
        fault = platform.wait_for("fault")
        assert "function.yaml:5" in fault["text"]
        assert "did you mean 'maxScale'?" in fault["text"]
        assert _get(platform).status_code == 200
        assert client.function("hello").revision == "hello-00001"
        (hello / "function.yaml").write_text(declaration.replace("maxScale: 3", "maxScale: 2"))
        until(lambda: client.function("hello").scaling.max_scale == 2, "the new declaration")


@pytest.mark.parametrize("declared", ["kind: Function\nmetadata: {name: Wrong Name}\n", None])
def test_a_platform_whose_first_declarations_are_wrong_answers_all_the_same(
    declared: str | None, hello: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "functions"
    folder.mkdir()
    if declared is not None:
        (folder / "function.yaml").write_text(declared)
    with Running([folder], tmp_path / "run") as platform, platform.client() as client:
        assert "nothing is served until this is put right" in client.status().faults
        assert client.functions() == []
        assert list(client.dead_letters()) == []
        assert _get(platform).status_code == 404
        given = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
        sent = httpx.post(f"{platform.url}/events/default/default", headers=given)
        assert (sent.status_code, sent.headers["retry-after"]) == (503, "1")
        shutil.copytree(hello, folder, dirs_exist_ok=True)
        until(lambda: _get(platform).status_code == 200, "the function that was put right")
        until(lambda: client.status().faults == (), "no faults any more")  # told once it serves
        assert httpx.post(f"{platform.url}/events/default/default", headers=given).status_code == 202


def test_a_function_that_comes_and_one_that_goes(hello: Path, tmp_path: Path) -> None:
    with Running([tmp_path / "hello"], tmp_path / "run") as platform:
        other = hello / "other"
        other.mkdir()
        (other / "function.yaml").write_text(
            "apiVersion: torpor.dev/v1alpha1\nkind: Function\nmetadata: {name: other}\n"
            "spec: {source: {path: ..}}\n"
        )
        platform.wait_for("applied", "default/other")
        until(lambda: _get(platform, "/function/other").status_code == 200, "other answers")
        (other / "function.yaml").unlink()
        platform.wait_for("removed", "default/other")
        gone = _get(platform, "/function/other")
        assert gone.status_code == 404
        assert gone.json()["type"].endswith("/unknown-function")


def test_a_function_that_never_started_says_why(hello: Path, tmp_path: Path) -> None:
    (hello / "main.py").write_text("import nothing_of_that_name\n" + HELLO)
    with Running([hello], tmp_path / "run") as platform:
        answer = _get(platform)
        assert answer.status_code == 503
        assert answer.json()["type"].endswith("/start-failed")
        assert "nothing_of_that_name" in answer.json()["detail"]
        (hello / "main.py").write_text(HELLO)
        platform.wait_for("applied", "default/hello")
        until(lambda: _get(platform).status_code == 200, "hello answers")


def test_a_taken_port_names_its_owner(hello: Path, tmp_path: Path) -> None:
    with ports.listen() as listener:
        port = ports.address(listener).port
        platform = Running([hello], tmp_path / "run", port=port)
        with pytest.raises(StartError, match=rf"port {port} .*pid {os.getpid()}"):
            platform.__enter__()
    assert platform.stop() == 1
    assert platform.census.left() == []


def test_a_second_platform_in_the_same_folder_is_refused(hello: Path, tmp_path: Path) -> None:
    with (
        Running([hello], tmp_path / "run") as platform,
        pytest.raises(StartError, match=rf"in use by another platform \(pid {platform.pid}\)"),
    ):
        Running([hello], tmp_path / "run").__enter__()


def test_the_end_of_a_part_is_told_and_that_it_is_back(hello: Path, tmp_path: Path) -> None:
    with Running([hello], tmp_path / "run") as platform, platform.client() as client:
        gateway = next(part for part in client.status().parts if part.name == "gateway")
        children = psutil.Process(platform.pid).children()
        [parent] = [child for child in children if child.name() == "torpor-parent"]
        for part, pid in (("gateway", gateway.pid or 0), ("torpor-parent", parent.pid)):
            os.kill(pid, signal.SIGKILL)
            platform.wait_for("part", part, "it was killed by SIGKILL and is started again.*")
        platform.wait_for("part", "gateway", "is back")
        assert _get(platform).status_code == 200
        platform.wait_for("part", "torpor-parent", "is back")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_and_leaves_nothing(hello: Path, tmp_path: Path, number: signal.Signals) -> None:
    with Running([hello], tmp_path / "run") as platform:
        assert _get(platform).status_code == 200
        assert platform.stop(number) == 0
    assert platform.census.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_that_its_broker_is_not_there_and_can_be_ended(
    hello: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with ports.listen() as taken:  # where nobody answers
        url = f"nats://secret@127.0.0.1:{ports.address(taken).port}"
        platform = Running([hello], tmp_path / "run", broker=url, awaits="part")
        with platform:
            [told] = platform.news
            assert (told["subject"], "waits for the broker at nats://***@127" in told["text"]) == (
                "events",
                True,
            )
            assert platform.stop(number) == 0
        assert platform.errors() == ""
    assert platform.census.left() == []


def test_it_leaves_nothing_when_it_is_killed(hello: Path, tmp_path: Path) -> None:
    with Running([hello], tmp_path / "run") as platform:
        assert _get(platform).status_code == 200
        platform.census.take()
        assert len(platform.census.left()) >= 5
        os.kill(platform.pid, signal.SIGKILL)
        until(lambda: not platform.census.left(), "no process left")


def test_the_command_line_sees_it_all_through_the_api(hello: Path, tmp_path: Path) -> None:
    with Running([hello], tmp_path / "run") as platform:
        invoked = _torpor(platform, "invoke", "hello", "--path", "/?name=Grace")
        assert json.loads(invoked.stdout)["greeting"] == "Hello, Grace!"
        [listed] = json.loads(_torpor(platform, "list", "-o", "json").stdout)
        assert (listed["name"], listed["ready"]) == ("hello", True)
        described = _torpor(platform, "describe", "hello")
        assert "Start method:" in described.stdout
        until(
            lambda: "greeting Grace" in _torpor(platform, "logs", "hello").stdout, "the line of the instance"
        )
        doctor = _torpor(platform, "doctor")
        assert "All is well." in doctor.stdout, doctor.stdout
