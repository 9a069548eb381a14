"""What is said again to JetStream, and for how long, without a server."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from torpor.errors import EventLogError
from torpor.events.jetstream_api import Api, ApiRefusedError
from torpor.events.nats_client import Client, Heard
from torpor.testing.clock import MovableClock

UNAVAILABLE = {
    "error": {"code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable"}
}


class _Api(Api):
    """Answers with what it is given, the last of it for ever."""

    def __init__(self, clock: MovableClock, *answers: dict[str, Any]) -> None:
        super().__init__(Client(), clock, 10.0)
        self._answers = list(answers)

    async def post(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None
    ) -> asyncio.Future[Heard]:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        future: asyncio.Future[Heard] = asyncio.get_running_loop().create_future()
        future.set_result(Heard("", "", orjson.dumps(answer), b""))
        return future


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_servers_that_have_no_leader_at_the_moment_are_asked_again() -> None:
    async def run() -> None:
        clock = MovableClock()
        asked = asyncio.create_task(_Api(clock, UNAVAILABLE, UNAVAILABLE, {"config": {}}).call("X"))
        await clock.advance(1.0, settle)
        assert await asked == {"config": {}}

    asyncio.run(run())


def test_servers_that_never_have_one_are_given_up() -> None:
    async def run() -> None:
        clock = MovableClock()
        asked = asyncio.create_task(_Api(clock, UNAVAILABLE).call("X"))
        await clock.advance(11.0, settle)
        with pytest.raises(EventLogError, match="temporarily unavailable"):
            await asked

    asyncio.run(run())


def test_any_other_refusal_is_told_at_once() -> None:
    refusal = {"error": {"code": 404, "err_code": 10014, "description": "consumer not found"}}
    with pytest.raises(ApiRefusedError, match="consumer not found"):
        asyncio.run(_Api(MovableClock(), refusal).call("X"))
