"""``torpor invoke``: what it sends, and how it shows what comes back."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import Response
from starlette.responses import StreamingResponse

from torpor import cli
from torpor.testing.backend import function_status

if TYPE_CHECKING:
    from pathlib import Path

MakeProblem = Callable[[str, int, str, str], Response]


def test_without_a_body_it_is_a_get(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    platform.answer = lambda: Response('{"greeting": "Hello"}', media_type="application/json")
    assert platform.run("invoke", "hello") == 0
    assert capsys.readouterr().out == '{"greeting": "Hello"}'
    assert platform.calls[0][:2] == ("GET", "/function/hello.default/")


def test_a_body_is_posted_as_json(platform: Any) -> None:
    assert (
        platform.run("invoke", "hello", "-n", "images", "--data", '{"name": "Ada"}', "--path", "/a?b=c") == 0
    )
    method, target, headers, body = platform.calls[0]
    assert (method, target) == ("POST", "/function/hello.images/a?b=c")
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {"name": "Ada"}


def test_headers_and_method_are_sent_as_given(platform: Any) -> None:
    arguments = ("-X", "put", "-H", "content-type: text/plain", "-H", "x-a: b: c", "--data", "Ada")
    assert platform.run("invoke", "hello", *arguments) == 0
    method, _, headers, body = platform.calls[0]
    assert (method, body) == ("PUT", b"Ada")
    assert (headers["content-type"], headers["x-a"]) == ("text/plain", "b: c")


def test_a_file_is_sent_with_the_type_of_its_name(platform: Any, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG" * 100_000)
    assert platform.run("invoke", "hello", "--file", str(picture)) == 0
    assert platform.calls[0][2]["content-type"] == "image/png"
    assert platform.calls[0][3] == picture.read_bytes()


def test_what_a_pipe_brings_is_sent_whole(platform: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(b'{"name": "Ada"}')
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert platform.run("invoke", "hello", "--file", "-") == 0
    assert platform.calls[0][3] == b'{"name": "Ada"}'


@pytest.mark.parametrize("header", ["x-é: 1", "no colon", ": empty", "two words: 1"])
def test_what_is_no_header_is_refused(platform: Any, header: str) -> None:
    assert platform.run("invoke", "hello", "-H", header) == 2
    assert platform.calls == []


def test_an_event_is_sent_as_one(platform: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    event = b'{"specversion": "1.0", "id": "1", "source": "/a", "type": "b"}'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(event)))
    assert platform.run("invoke", "hello", "--event", "-") == 0
    assert platform.calls[0][2]["content-type"] == "application/cloudevents+json"
    assert platform.calls[0][3] == event


def test_an_answer_is_shown_byte_by_byte(platform: Any, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    def parts() -> Iterator[bytes]:
        yield b"\x00\xff"
        yield b"\r\n\x80"

    platform.answer = lambda: StreamingResponse(parts(), media_type="application/octet-stream")
    assert platform.run("invoke", "hello") == 0
    assert capfdbinary.readouterr().out == b"\x00\xff\r\n\x80"


def test_json_is_laid_out_for_a_terminal(
    platform: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    platform.answer = lambda: Response('{"a":1}', media_type="application/json")
    assert platform.run("invoke", "hello") == 0
    assert capsys.readouterr().out == '{\n  "a": 1\n}\n'


def test_status_and_headers_are_shown_when_asked_for(
    platform: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.answer = lambda: Response("body", headers={"x-a": "b"})
    assert platform.run("invoke", "hello", "-i") == 0
    head, _, body = capsys.readouterr().out.partition("\n\n")
    assert head.startswith("HTTP 200 OK\n")
    assert "x-a: b" in head.splitlines()
    assert body == "body"


def test_a_problem_is_shown_as_a_person_wants_it(
    platform: Any, make_problem: MakeProblem, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.answer = lambda: make_problem("timed-out", 504, "It was late", "30 s were allowed.")
    assert platform.run("invoke", "hello") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "error: It was late (504)",
        "  30 s were allowed.",
        "  type: https://torpor.dev/problems/timed-out",
        "  request: r-1",
    ]


def test_an_error_of_the_function_s_own_is_its_body_and_1(
    platform: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.answer = lambda: Response("my own words", 418)
    assert platform.run("invoke", "hello") == 1
    captured = capsys.readouterr()
    assert captured.out == "my own words"
    assert captured.err == "the function answered 418\n"


def test_a_redirection_is_said_and_not_followed(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    platform.answer = lambda: Response(status_code=303, headers={"location": "/b"})
    assert platform.run("invoke", "hello") == 0
    assert capsys.readouterr().err == "the function answered 303 to /b\n"
    assert len(platform.calls) == 1


def test_it_waits_for_the_function_when_told_to(platform: Any) -> None:
    asked = 0
    real = platform.backend.function

    async def late(key: str) -> Any:
        nonlocal asked
        asked += 1
        if asked == 3:
            platform.backend.add(function_status("hello"))
        return await real(key)

    platform.backend.function = late
    assert platform.run("invoke", "hello", "--wait", "60") == 0
    assert asked == 3


def test_it_gives_up_waiting(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert platform.run("invoke", "hello", "--wait", "0.01") == 1
    assert "There is no function 'default/hello'." in capsys.readouterr().err
    assert platform.calls == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "Ada"], "--data is not JSON"),
        (["--data", "1", "--file", "x"], "one body was expected"),
        (["-H", "no colon"], "'NAME: VALUE' was expected"),
        (["-H", "a: b\r\nc: d"], "'NAME: VALUE' was expected"),
        (["--file", "/does/not/exist"], "/does/not/exist can't be read: No such file or directory"),
        (["--event", __file__], "is not a CloudEvent in JSON"),
    ],
)
def test_wrong_usage_is_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["invoke", "hello", *arguments]) == 2
    assert words in capsys.readouterr().err
