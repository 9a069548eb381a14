"""``torpor invoke --async`` and ``torpor calls``: what is sent, and what is shown of what became of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import Response

from torpor.spec.calls import CallbackStatus, CallResult, CallStatus

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
ID = f"shop.pay.{'a' * 32}"


def status(**changes: Any) -> CallStatus:
    waiting = CallStatus(
        id=ID, function="shop/pay", method="POST", path="/a\x1b", state="accepted", accepted_at=AT
    )
    return waiting.model_copy(update=changes)


def test_a_call_that_is_not_waited_for_prints_its_id(
    platform: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.answer = lambda: Response(status_code=202, headers={"x-call-id": ID})
    arguments = ("--data", "{}", "--async", "--callback", "https://a/b")
    assert platform.run("invoke", "pay.shop", *arguments) == 0
    method, target, headers, _ = platform.calls[0]
    assert (method, target) == ("POST", "/async-function/pay.shop/")
    assert headers["x-callback-url"] == "https://a/b"
    assert capsys.readouterr().out == f"{ID}\n"


def test_a_callback_needs_a_call_that_is_not_waited_for(
    platform: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform.run("invoke", "pay", "--callback", "https://a/b") == 2
    assert "--callback goes with --async" in capsys.readouterr().err
    assert platform.calls == []


def test_a_call_that_waits_is_shown_as_far_as_it_is(
    platform: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.backend.known_calls[ID] = status(attempts=1, reason="the function answered 503")
    assert platform.run("calls", "show", ID) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "POST /a\\x1b of shop/pay"
    assert lines[1] == "accepted after 1 attempt: the function answered 503"


def test_what_a_function_answered_is_shown(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = CallResult(status=200, headers={}, size_bytes=4, body="done\n\x1b")
    callback = CallbackStatus(url="https://a/b", state="failed", attempts=1, reason="no")
    done = status(state="succeeded", attempts=2, finished_at=AT, result=result, callback=callback)
    platform.backend.known_calls[ID] = done
    assert platform.run("calls", "show", ID, "--wait", "60") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "succeeded after 2 attempts"
    assert lines[3:] == ["callback to https://a/b failed: no", "", "HTTP 200, 4 bytes", "done", "\\x1b"]
    for changes, last in (
        ({"body": None, "blob": "b"}, "the body is the blob b: GET /api/v1/blobs/b"),
        ({"body": None, "body_base64": "/w=="}, "the body is no text: -o json has it in Base64"),
    ):
        update = {"result": result.model_copy(update={**changes, "truncated": True})}
        platform.backend.known_calls[ID] = done.model_copy(update=update)
        assert platform.run("calls", "show", ID) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[-2:] == ["HTTP 200, 4 bytes, of which the beginning was kept", last]


def test_a_call_that_failed_is_1_and_so_is_one_that_is_not_known(
    platform: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.backend.known_calls[ID] = status(state="failed", attempts=11, reason="gone")
    assert platform.run("calls", "show", ID, "-o", "json") == 1
    assert json.loads(capsys.readouterr().out)["reason"] == "gone"
    assert platform.run("calls", "show", "other") == 1
    assert "There is no call 'other'" in capsys.readouterr().err


@pytest.fixture
def known(platform: Any) -> None:
    result = CallResult(status=410, headers={}, size_bytes=4, body="gone")
    made = (
        status(id="a", function="default/pay", accepted_at=AT + timedelta(seconds=1)),
        status(
            id="b",
            state="failed",
            attempts=2,
            reason="no\x1b",
            result=result,
            accepted_at=AT + timedelta(seconds=2),
            finished_at=AT + timedelta(seconds=3),
        ),
        status(id="c", function="default/mail", state="running", accepted_at=AT + timedelta(seconds=4)),
    )
    platform.backend.known_calls = {each.id: each for each in made}


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        ([], ["c", "b", "a"]),
        (["pay"], ["a"]),
        (["pay.shop"], ["b"]),
        (["pay", "-n", "shop"], ["b"]),
        (["-n", "default"], ["c", "a"]),
        (["--state", "failed"], ["b"]),
        (["--state", "accepted", "--state", "running"], ["c", "a"]),
        (["--state", "succeeded"], []),
        (["--limit", "2"], ["c", "b"]),
    ],
)
@pytest.mark.usefixtures("known")
def test_calls_are_listed(
    platform: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], ids: list[str]
) -> None:
    assert platform.run("calls", "list", *arguments, "-o", "json") == 0
    assert [each["id"] for each in json.loads(capsys.readouterr().out)] == ids


@pytest.mark.usefixtures("known")
def test_people_see_a_table_of_calls(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert platform.run("calls", "list", "--limit", "2") == 0
    printed = capsys.readouterr()
    rows = [line.split() for line in printed.out.splitlines()]
    assert rows[0] == [
        "ID",
        "ACCEPTED",
        "FUNCTION",
        "REQUEST",
        "STATE",
        "ATTEMPTS",
        "STATUS",
        "ENDED",
        "REASON",
    ]
    assert (rows[1][0], rows[1][3:]) == ("c", ["mail", "POST", "/a\\x1b", "running", "-", "-", "-"])
    assert rows[2][3] == "pay.shop"
    assert (rows[2][6:9], rows[2][-1]) == (["failed", "2", "410"], "no\\x1b")
    assert printed.err == "There are more than 2; --limit shows more of them.\n"
    assert platform.run("calls", "list", "nobody") == 0
    assert capsys.readouterr().out == "There are no such calls.\n"


@pytest.mark.usefixtures("known")
def test_the_name_in_a_wrong_selection_is_called_as_it_was_given(
    platform: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform.run("calls", "list", "Pay") == 2
    says = "NAME is 'Pay', 1 to 63 lower-case letters, digits and '-' were expected"
    assert says in capsys.readouterr().err


def test_a_long_list_of_calls_comes_page_by_page(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    platform.backend.known_calls = {
        str(number): status(id=str(number), accepted_at=AT + timedelta(seconds=number))
        for number in range(250)
    }
    assert platform.run("calls", "list", "-n", "shop", "--limit", "240", "-o", "json") == 0
    ids = [each["id"] for each in json.loads(capsys.readouterr().out)]
    assert ids == [str(number) for number in reversed(range(10, 250))]


@pytest.mark.parametrize("arguments", [["A"], ["a/b"], ["--state", "done"], ["--limit", "0"], ["-n", "A"]])
def test_a_wrong_selection_of_calls_is_2(platform: Any, arguments: list[str]) -> None:
    assert platform.run("calls", "list", *arguments) == 2
