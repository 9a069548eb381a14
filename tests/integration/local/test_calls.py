"""Calls that nobody waits for, on a real platform: none is lost, whatever is killed, and callbacks come."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from tests.integration.local.conftest import until
from torpor.cli import run
from torpor.testing.running import PATIENCE_SECONDS, Running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torpor.api.client import Client

START_SECONDS = 240.0  # a Kafka takes its time
CODE = """
from pathlib import Path

from fastapi import FastAPI, Request, Response

app = FastAPI()


@app.api_route("/{path:path}", methods=["GET", "POST", "PUT"])
async def echo(path: str, request: Request) -> Response:
    body = await request.body()
    with Path("@RECORD@").open("a") as file:
        file.write(f"{request.headers['x-call-id']}\\n")
    if path == "closed" and not Path("@OPEN@").exists():
        return Response(status_code=503)
    if path == "never":
        return Response("no such thing", status_code=410)
    if path == "large":
        return Response(b"x" * 300_000, media_type="application/octet-stream")
    said = f"{request.method} {request.url.path}?{request.url.query} {request.headers.get('x-mine')} "
    return Response(said.encode() + body, media_type="text/plain", headers={"x-other": "dropped"})
"""
FUNCTION = """\
apiVersion: torpor.dev/v1alpha1
kind: Function
metadata: {name: echo}
spec:
  http: {methods: [GET, POST, PUT], maxBodyBytes: 1000000}
  scaling: {window: 1s, scaleToZeroGracePeriod: 0s}
"""


class _Receiver:
    """Takes callbacks: ``refusing`` of them are answered 503 first."""

    def __init__(self, refusing: int) -> None:
        self._refusing = refusing
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.refused = 0
        self.url = ""

    def answer(self, headers: dict[str, str], body: bytes) -> int:
        if self.refused < self._refusing:
            self.refused += 1
            return 503
        self.got.append((headers, body))
        return 202


@contextmanager
def _receiving(refusing: int = 0) -> Iterator[_Receiver]:
    receiver = _Receiver(refusing)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = receiver.answer({name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://localhost:{server.server_port}/done?token=secret"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Calls:
    def __init__(self, platform: Running, client: Client, folder: Path) -> None:
        self.platform = platform
        self.client = client
        self.folder = folder

    def open(self) -> None:
        (self.folder / "open").touch()

    def made(self) -> list[str]:
        """The ids of the calls that the function got, as often as it got them."""
        record = self.folder / "record"
        return record.read_text().split() if record.exists() else []

    def post(
        self, path: str = "", body: bytes = b"", *, method: str = "POST", **headers: str
    ) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"{self.platform.url}/async-function/{path}"
        return httpx.request(method, url, content=body, headers=sent, timeout=PATIENCE_SECONDS)

    def call(self, path: str, body: bytes = b"", **headers: str) -> str:
        response = self.post(path, body, **headers)
        assert response.status_code == 202, response.text
        return response.headers["x-call-id"]

    def get(self, query: str) -> dict[str, Any]:
        """A page of calls."""
        response = httpx.get(f"{self.platform.url}/api/v1/calls?{query}", timeout=PATIENCE_SECONDS)
        document: dict[str, Any] = response.json()
        return document

    def ended(self, call_id: str) -> None:
        until(lambda: self.client.call(call_id).state in ("succeeded", "failed"), "the end of the call")

    def kill(self, part: str) -> None:
        [pid] = [one.pid for one in self.client.status().parts if one.name == part]
        assert pid is not None
        process = psutil.Process(pid)
        process.kill()
        process.wait(PATIENCE_SECONDS)  # who writes to one that is about to end is answered 502


@pytest.fixture
def calls(tmp_path: Path, broker: str) -> Iterator[_Calls]:
    folder = tmp_path / "echo"
    folder.mkdir()
    code = CODE.replace("@RECORD@", str(tmp_path / "record")).replace("@OPEN@", str(tmp_path / "open"))
    (folder / "main.py").write_text(code)
    (folder / "function.yaml").write_text(FUNCTION)
    running = Running([folder], tmp_path / "run", broker=broker, start_seconds=START_SECONDS)
    with running as platform, platform.client() as client:
        yield _Calls(platform, client, tmp_path)


@pytest.mark.parametrize("broker", ["nats", "kafka"], indirect=True)
def test_a_call_wakes_the_function_and_its_answer_is_kept_and_called_back(calls: _Calls) -> None:
    until(lambda: not calls.client.function("echo").instances, "its rest at zero")
    with _receiving(refusing=1) as receiver:
        given = {"x_mine": "kept", "x_callback_url": receiver.url}
        call_id = calls.call("echo.default/a%20b/c?q=%2F&r", b"\x00body", method="PUT", **given)
        calls.ended(call_id)
        status = calls.client.call(call_id)
        assert (status.state, status.attempts, status.function) == ("succeeded", 1, "default/echo")
        assert (status.method, status.path) == ("PUT", "/a%20b/c?q=%2F&r")
        assert status.result is not None
        assert status.result.status == 200
        assert status.result.body == "PUT /function/echo.default/a b/c?q=%2F&r kept \x00body"
        assert status.result.headers == {"content-type": "text/plain; charset=utf-8"}
        until(lambda: receiver.got, "the callback")
        [(headers, body)] = receiver.got
        assert body == b"PUT /function/echo.default/a b/c?q=%2F&r kept \x00body"
        assert headers["content-type"] == "text/plain; charset=utf-8"
        assert (headers["x-call-id"], headers["x-function-name"]) == (call_id, "echo")
        assert headers["x-function-status"] == "200"
        assert float(headers["x-duration-seconds"]) > 0
        until(lambda: _called_back(calls, call_id) == ("delivered", 2), "the end of the callback")
        assert "secret" not in calls.client.call(call_id).model_dump_json()
        for log in ("torpor.log", "events/events.log"):
            assert b"secret" not in (calls.folder / "run" / "data" / log).read_bytes()
        assert calls.made() == [call_id]
        assert len(receiver.got) == 1
    steps = calls.client.explain(call_id).items[0].steps
    assert [(step.what, step.trigger) for step in steps] == [
        ("accepted", ""),
        ("delivery", "default/echo"),
        ("delivery", "callback"),
        ("delivery", "callback"),
    ]
    assert str(steps[1].instance).startswith("echo-00001-")


def _called_back(calls: _Calls, call_id: str) -> tuple[str, int] | None:
    callback = calls.client.call(call_id).callback
    return None if callback is None else (callback.state, callback.attempts)


def test_what_is_refused_is_refused_at_once(calls: _Calls) -> None:
    for response, status, said in (
        (calls.post("nobody"), 404, "there is no function 'default/nobody'; there are: default/echo"),
        (calls.post("echo.shop"), 404, "there is no function 'shop/echo'"),
        (calls.post("echo", method="DELETE"), 405, "takes GET, POST, PUT"),
        (calls.post("echo", b"x" * 1_000_001), 413, "the body has more than 1000000 bytes"),
        (calls.post("echo", x_callback_url="ftp://a"), 400, "an absolute http or https URL was expected"),
        (calls.post("echo", x_callback_url="http://169.254.169.254/"), 400, "callbacks may not go"),
    ):
        assert (response.status_code, response.headers["content-type"]) == (
            status,
            "application/problem+json",
        )
        assert said in response.json()["detail"]
    unknown = httpx.get(f"{calls.platform.url}/api/v1/calls/default.echo.{'0' * 32}")
    assert (unknown.status_code, unknown.json()["type"]) == (404, "https://torpor.dev/problems/not-found")
    assert calls.made() == []


def test_a_call_fails_with_the_functions_answer_and_a_large_answer_is_a_blob(calls: _Calls) -> None:
    failing, large = calls.call("echo/never"), calls.call("echo/large", b"y" * 300_000)
    again = calls.call("echo/never", idempotency_key="one")
    assert calls.call("echo/never", idempotency_key="one") == again
    for each in (failing, large, again):
        calls.ended(each)
    status = calls.client.call(failing)
    assert (status.state, status.attempts) == ("failed", 1)
    assert status.reason == "the function answered 410, which is final"
    assert status.result is not None
    assert (status.result.status, status.result.body) == (410, "no such thing")
    result = calls.client.call(large).result
    assert result is not None
    assert (result.size_bytes, result.body, result.truncated) == (300_000, None, False)
    assert result.blob is not None
    assert calls.client.get_blob(result.blob) == b"x" * 300_000
    assert sorted(calls.made()) == sorted([failing, large, again])


@pytest.mark.parametrize("broker", ["nats", "kafka"], indirect=True)
def test_calls_are_listed(calls: _Calls, capsys: pytest.CaptureFixture[str]) -> None:
    ended = [calls.call("echo/never"), *(calls.call(f"echo/{number}") for number in range(3))]
    for each in ended:
        calls.ended(each)
    waiting = calls.call("echo/closed")
    until(lambda: len(calls.made()) == 5, "its first attempt")
    place = ("--context", calls.platform.url, "-o", "json")

    def listed(*arguments: str) -> list[tuple[str, str]]:
        assert run(["calls", "list", *place, *arguments]) == 0
        found = json.loads(capsys.readouterr().out)
        return [(each["id"], "open" if each["finishedAt"] is None else each["state"]) for each in found]

    done = [(each, "succeeded") for each in reversed(ended[1:])]
    assert listed() == [(waiting, "open"), *done, (ended[0], "failed")]
    assert listed("echo", "--limit", "2") == [(waiting, "open"), done[0]]
    assert listed("--state", "failed") == [(ended[0], "failed")]
    assert listed("--state", "accepted", "--state", "running") == [(waiting, "open")]
    assert listed("echo.shop") == []
    pages = [calls.get("limit=3")]
    pages.append(calls.get(f"limit=3&after={pages[0]['next']}"))
    ids = [[each["id"] for each in page["items"]] for page in pages]
    assert ids == [[waiting, ended[3], ended[2]], [ended[1], ended[0]]]
    assert pages[1]["next"] is None
    calls.open()
    calls.ended(waiting)
    assert listed("--limit", "1") == [(waiting, "succeeded")]


@pytest.mark.parametrize("part", ["events", "nats"])
def test_no_accepted_call_is_lost_when_processes_are_killed(calls: _Calls, part: str) -> None:
    with _receiving(refusing=3) as receiver:
        ids = [calls.call("echo/closed", b"%d" % number, x_callback_url=receiver.url) for number in range(20)]
        until(calls.made, "a first attempt")
        calls.kill(part)
        ids += [
            calls.call("echo/closed", b"%d" % number, x_callback_url=receiver.url) for number in range(20, 40)
        ]
        calls.open()
        for each in ids:
            calls.ended(each)
        assert {calls.client.call(each).state for each in ids} == {"succeeded"}
        until(lambda: len({headers["x-call-id"] for headers, _ in receiver.got}) == 40, "every callback")
        assert {headers["x-call-id"]: body[-2:].strip() for headers, body in receiver.got} == {
            each: b"%d" % number for number, each in enumerate(ids)
        }
