"""Pods are published once they take connections, and no longer than they are there."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from torpor.cluster.prober import LONGEST_PAUSE_SECONDS, PAUSE_SECONDS, Prober, connects
from torpor.endpoint import Endpoint
from torpor.testing.clock import MovableClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

ONE, TWO = Endpoint("10.0.0.1", 8080), Endpoint("10.0.0.2", 8080)
KEY = "default/f"


class World:
    """Pods that take connections or don't, and what was published of them."""

    def __init__(self) -> None:
        self.clock = MovableClock()
        self.up: set[Endpoint] = set()
        self.asked: list[float] = []
        self.published: list[tuple[Endpoint, ...]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.prober = Prober(self.clock, self._publish, self._connects)

    async def _connects(self, endpoint: Endpoint) -> bool:
        self.asked.append(self.clock.monotonic())
        return endpoint in self.up

    async def _publish(self, key: str, endpoints: Sequence[Endpoint]) -> None:
        assert key == KEY
        self.published.append(tuple(endpoints))
        await self.gate.wait()

    async def follow(self, **serving: bool) -> None:
        named = {"one": ONE, "two": TWO}
        self.prober.follow(KEY, {named[name]: value for name, value in serving.items()})
        await self.settle()

    async def pass_time(self, seconds: float) -> None:
        await self.clock.advance(seconds, self.settle)

    @staticmethod
    async def settle() -> None:
        for _ in range(20):
            await asyncio.sleep(0)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    made = World()
    try:
        yield made
    finally:
        await made.prober.close()


def test_a_pod_is_published_when_it_takes_connections_whatever_the_kubelet_says() -> None:
    async def run() -> None:
        async with world() as w:
            await w.follow(one=False)
            await w.pass_time(0.1)
            assert w.published == []
            w.up.add(ONE)
            await w.pass_time(PAUSE_SECONDS)
            assert w.published == [(ONE,)]
            asked = len(w.asked)
            await w.follow(one=True)
            await w.pass_time(10)
            assert (w.published, len(w.asked)) == ([(ONE,)], asked)  # once proved, it is not asked again

    asyncio.run(run())


def test_probes_become_rarer_the_longer_a_pod_takes() -> None:
    async def run() -> None:
        async with world() as w:
            await w.follow(one=False)
            await w.pass_time(1.0)
            assert w.asked[1] - w.asked[0] == pytest.approx(PAUSE_SECONDS)
            await w.pass_time(600.0)
            assert w.asked[-1] - w.asked[-2] == pytest.approx(LONGEST_PAUSE_SECONDS)

    asyncio.run(run())


def test_a_pod_that_goes_is_taken_back_and_its_probe_ends() -> None:
    async def run() -> None:
        async with world() as w:
            w.up.add(ONE)
            await w.follow(one=True, two=False)
            assert w.published == [(ONE,)]
            await w.follow()
            assert w.published == [(ONE,), ()]
            asked = len(w.asked)
            await w.pass_time(10)
            assert len(w.asked) == asked
            await w.follow(one=True)  # the same address, another pod: it is proved anew
            assert (w.published[-1], len(w.asked)) == ((ONE,), asked + 1)

    asyncio.run(run())


def test_a_pod_that_the_kubelet_finds_ready_no_longer_is_proved_anew() -> None:
    async def run() -> None:
        async with world() as w:
            w.up.add(ONE)
            await w.follow(one=True)
            w.up.clear()
            await w.follow(one=False)
            assert w.published == [(ONE,), ()]
            w.up.add(ONE)
            await w.pass_time(PAUSE_SECONDS)
            assert w.published[-1] == (ONE,)

    asyncio.run(run())


def test_what_was_true_last_is_told_last() -> None:
    async def run() -> None:
        async with world() as w:
            w.gate.clear()
            w.up |= {ONE, TWO}
            await w.follow(one=True)
            await w.follow(one=True, two=True)
            await w.follow(two=True)
            assert w.published == [(ONE,)]  # the first is still being told
            w.gate.set()
            await w.settle()
            assert w.published == [(ONE,), (TWO,)]

    asyncio.run(run())


def test_what_is_known_can_be_published_again() -> None:
    async def run() -> None:
        async with world() as w:
            w.prober.publish_again(KEY)  # nothing is known
            w.up.add(ONE)
            await w.follow(one=True)
            w.prober.publish_again(KEY)
            await w.settle()
            assert w.published == [(ONE,), (ONE,)]

    asyncio.run(run())


def test_a_connection_is_what_proves_a_pod() -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        endpoint = Endpoint(*server.sockets[0].getsockname())
        assert await connects(endpoint)
        server.close()
        await server.wait_closed()
        assert not await connects(endpoint)

    asyncio.run(run())
