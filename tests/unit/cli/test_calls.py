"""``torpor invoke --async`` and ``torpor calls``: what is sent, and what is shown of what became of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastapi import Response

from torpor.spec.calls import CallbackStatus, CallResult, CallStatus

if TYPE_CHECKING:
    import pytest

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
    platform.backend.calls[ID] = status(attempts=1, reason="the function answered 503")
    assert platform.run("calls", "show", ID) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "POST /a\\x1b of shop/pay"
    assert lines[1] == "accepted after 1 attempt: the function answered 503"


def test_what_a_function_answered_is_shown(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = CallResult(status=200, headers={}, size_bytes=4, body="done\n\x1b")
    callback = CallbackStatus(url="https://a/b", state="failed", attempts=1, reason="no")
    done = status(state="succeeded", attempts=2, finished_at=AT, result=result, callback=callback)
    platform.backend.calls[ID] = done
    assert platform.run("calls", "show", ID, "--wait", "60") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "succeeded after 2 attempts"
    assert lines[3:] == ["callback to https://a/b failed: no", "", "HTTP 200, 4 bytes", "done", "\\x1b"]
    for changes, last in (
        ({"body": None, "blob": "b"}, "the body is the blob b: GET /api/v1/blobs/b"),
        ({"body": None, "body_base64": "/w=="}, "the body is no text: -o json has it in Base64"),
    ):
        update = {"result": result.model_copy(update={**changes, "truncated": True})}
        platform.backend.calls[ID] = done.model_copy(update=update)
        assert platform.run("calls", "show", ID) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[-2:] == ["HTTP 200, 4 bytes, of which the beginning was kept", last]


def test_a_call_that_failed_is_1_and_so_is_one_that_is_not_known(
    platform: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.backend.calls[ID] = status(state="failed", attempts=11, reason="gone")
    assert platform.run("calls", "show", ID, "-o", "json") == 1
    assert json.loads(capsys.readouterr().out)["reason"] == "gone"
    assert platform.run("calls", "show", "other") == 1
    assert "There is no call 'other'" in capsys.readouterr().err
