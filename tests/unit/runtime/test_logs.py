"""Log lines: one a record, JSON whatever is logged, with what they belong to."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from typing import Any

import pytest

from torpor import Context, function
from torpor.runtime import logs

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def lines() -> Any:
    """A logger called `x` that writes as functions do, and what was written."""
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(logs.JsonFormatter({"function": "fn", "namespace": "ns"}))
    loggers = [logging.getLogger("x"), logging.getLogger("fn")]
    for logger in loggers:
        logger.handlers[:], logger.propagate = [handler], False
        logger.setLevel("INFO")
    yield lambda: [json.loads(line) for line in output.getvalue().splitlines()]
    for logger in loggers:
        logger.handlers[:], logger.propagate = [], True
        logger.setLevel(logging.NOTSET)


def test_a_line_says_what_it_belongs_to(serve: Any, lines: Any) -> None:
    @function
    def handler(data: bytes, ctx: Context) -> None:
        ctx.logger.info("greeting %s", "Ada", extra={"size": 3})

    async def run() -> None:
        headers = {
            "ce-specversion": "1.0",
            "ce-id": "7",
            "ce-source": "/s",
            "ce-type": "t",
            "x-request-id": "r-1",
            "traceparent": TRACE,
        }
        await serve(handler).request(headers=headers)

    asyncio.run(run())
    [line] = lines()
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "fn",
        "message": "greeting Ada",
        "function": "fn",
        "namespace": "ns",
        "request": "r-1",
        "event": "7",
        "trace": TRACE[3:35],
        "span": TRACE[36:52],
        "size": 3,
    }


def test_a_failure_is_one_line_with_its_stack(lines: Any) -> None:
    error = LookupError("gone\nfor good")
    logging.getLogger("x").error("failed", exc_info=error)
    [line] = lines()
    assert line["message"] == "failed"
    assert "LookupError: gone\nfor good" in line["exception"]
    assert "request" not in line


@pytest.mark.parametrize(
    "extra",
    [{"a": object()}, {"a": 2**80}, {"a": "\ud800"}, {"a": {1: b"x"}}, {"level": "mine"}, {"a": {2**70}}],
)
def test_nothing_that_is_logged_breaks_the_line(lines: Any, extra: dict[str, Any]) -> None:
    logging.getLogger("x").warning("odd", extra=extra)
    [line] = lines()
    assert (line["message"], line["level"]) == ("odd", "warning")


@pytest.mark.parametrize(("message", "arguments"), [("%d", ("x",)), ("%s %s", ("x",)), ("\ud800", ())])
def test_messages_that_do_not_fit_are_shown_all_the_same(message: Any, arguments: Any) -> None:
    record = logging.LogRecord("x", logging.WARNING, __file__, 1, message, arguments, None)
    line = json.loads(logs.JsonFormatter({}).format(record))
    assert message.encode("utf-8", "backslashreplace").decode() in line["message"]


def test_a_very_long_message_is_cut(lines: Any) -> None:
    logging.getLogger("x").warning("x" * 100_000)
    [line] = lines()
    assert len(line["message"]) < 40_000
