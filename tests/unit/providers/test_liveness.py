from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from torpor.endpoint import Endpoint
from torpor.errors import ConnectError, TimedOutError
from torpor.providers.process.liveness import GRACE_SECONDS, INTERVAL_SECONDS, Liveness, Silence
from torpor.testing.clock import MovableClock

ENDPOINT = Endpoint("127.0.0.1", 1)


class FakeClient:
    """Answers, refuses, or says nothing."""

    def __init__(self, clock: MovableClock) -> None:
        self.clock = clock
        self.mode = "answers"
        self.asked: list[float] = []
        self.forgotten = 0

    async def request(self, *_: Any, timeout_seconds: float, **__: Any) -> None:
        self.asked.append(self.clock.monotonic())
        if self.mode == "refuses":
            raise ConnectError("refused")
        if self.mode == "hangs":
            await self.clock.sleep(timeout_seconds)
            raise TimedOutError("no answer")

    def forget(self, _: Endpoint) -> None:
        self.forgotten += 1


class Bench:
    """A watch over one instance, in which a call may take 10 s."""

    def __init__(self) -> None:
        self.clock = MovableClock()
        self.client = FakeClient(self.clock)
        self.wedged: list[tuple[str, float]] = []
        client: Any = self.client
        self.liveness = Liveness(
            self.clock, client, lambda identity, seconds: self.wedged.append((identity, seconds))
        )
        self.liveness.watch("one", ENDPOINT, 10.0)

    async def advance(self, seconds: float) -> None:
        await self.clock.advance(seconds, _settle)


def test_an_instance_that_answers_is_asked_every_few_seconds() -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.advance(100.0)
        assert bench.wedged == []
        assert len(bench.client.asked) == 1 + 100 // INTERVAL_SECONDS
        assert bench.client.forgotten == len(bench.client.asked)
        bench.liveness.forget("one")

    asyncio.run(scenario())


def test_an_instance_is_wedged_after_its_time_and_the_grace_and_not_before() -> None:
    for mode in ("hangs", "refuses"):

        async def scenario(mode: str = mode) -> None:
            bench = Bench()
            await bench.advance(0.0)
            bench.client.mode = mode
            await bench.advance(INTERVAL_SECONDS + 10.0 + GRACE_SECONDS - 0.001)
            assert bench.wedged == []
            await bench.advance(0.001)
            assert bench.wedged == [("one", 10.0 + GRACE_SECONDS)]
            await bench.advance(100.0)
            assert len(bench.wedged) == 1
            bench.liveness.forget("one")

        asyncio.run(scenario())


def test_an_answer_ends_the_silence() -> None:
    async def scenario() -> None:
        bench = Bench()
        for _ in range(5):
            bench.client.mode = "refuses"
            await bench.advance(10.0 + GRACE_SECONDS - 1.0)
            bench.client.mode = "answers"
            await bench.advance(INTERVAL_SECONDS)
        assert bench.wedged == []
        bench.liveness.forget("one")

    asyncio.run(scenario())


def test_who_is_forgotten_is_not_asked() -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.advance(0.0)
        bench.liveness.forget("one")
        bench.liveness.forget("one")
        await bench.advance(100.0)
        assert len(bench.client.asked) == 1
        assert bench.clock.next_due is None

    asyncio.run(scenario())


@given(st.floats(0.001, 3600.0), st.lists(st.floats(0.0, 10_000.0), max_size=30))
def test_silence_is_no_longer_than_what_passed_and_its_last_question_is_a_new_one(
    timeout_seconds: float, waits: list[float]
) -> None:
    silence = Silence(timeout_seconds + GRACE_SECONDS)
    questions = 0
    for elapsed in waits:
        if silence.wedged:
            break
        assert silence.patience_seconds > 0
        silence = silence.unanswered(elapsed)
        questions += 1
    assert silence.seconds <= sum(waits) + 1e-6
    assert not silence.wedged or questions >= 2  # a single gap, however long, wedges nothing


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
