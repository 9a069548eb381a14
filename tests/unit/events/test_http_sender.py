"""A gateway that is away costs no attempt; one that stays away does, when the delivery's time is up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from torpor.endpoint import Endpoint
from torpor.errors import BrokenError, ConnectError, TimedOutError, TransportError
from torpor.events.http_sender import GatewaySender
from torpor.testing.clock import MovableClock
from torpor.transport import Response


class _Client:
    """Answers as it is told to, one outcome a call; the last one for ever."""

    def __init__(self, *outcomes: TransportError | int) -> None:
        self.outcomes = outcomes
        self.calls: list[float] = []

    async def request(self, *_: Any, timeout_seconds: float) -> Response:
        self.calls.append(timeout_seconds)
        outcome = self.outcomes[min(len(self.calls), len(self.outcomes)) - 1]
        if isinstance(outcome, TransportError):
            raise outcome
        return Response(outcome, [], b"")


async def _send(clock: MovableClock, client: Any, timeout_seconds: float = 10.0) -> int:
    sender = GatewaySender(client, clock, Endpoint("gateway", 80))
    sending = asyncio.ensure_future(sender.send("default/f", b"", b"", timeout_seconds))
    while not sending.done():
        await clock.advance(0.05, _settle)
    return (await sending).status


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_it_is_called_again_until_it_is_there() -> None:
    async def run() -> None:
        client = _Client(ConnectError("nobody"), BrokenError("gone"), ConnectError("nobody"), 503)
        assert await _send(MovableClock(), client) == 503  # an answer, whatever it says
        # 0.05 + 0.1 + 0.2 s of the delivery's 10 have gone by then.
        assert [round(each, 2) for each in client.calls] == [10.0, 9.95, 9.85, 9.65]

    asyncio.run(run())


def test_it_gives_up_when_the_time_is_over() -> None:
    async def run() -> None:
        client = _Client(ConnectError("nobody"))
        with pytest.raises(ConnectError):
            await _send(MovableClock(), client, timeout_seconds=3.0)
        assert len(client.calls) > 3
        assert all(each > 0 for each in client.calls)

    asyncio.run(run())


def test_a_function_that_takes_too_long_is_not_called_again() -> None:
    async def run() -> None:
        client = _Client(TimedOutError("too long"))
        with pytest.raises(TimedOutError):
            await _send(MovableClock(), client)
        assert len(client.calls) == 1

    asyncio.run(run())
