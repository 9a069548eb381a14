"""A gateway raises what is at zero to one, and nothing else."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from torpor.cluster.waker import Waker
from torpor.providers.kubernetes.resources import DEPLOYMENTS
from torpor.testing.clock import MovableClock
from torpor.testing.kube import ApiServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEY, REVISION = "shop/f", "f-00001"


class World:
    """A cluster with one Deployment, and requests that wait or don't."""

    def __init__(self, replicas: int | None) -> None:
        self.clock = MovableClock()
        self.server = ApiServer()
        self.waiting = True
        self.revision: str | None = REVISION
        self.raised: list[str] = []
        if replicas is not None:
            metadata = {"name": REVISION, "namespace": "shop"}
            self.server.put(DEPLOYMENTS, {"metadata": metadata, "spec": {"replicas": replicas}})
        self.waker = Waker(
            self.server.kube(),
            self.clock,
            revision=lambda _: self.revision,
            waits=lambda _: self.waiting,
            raised=self.raised.append,
        )

    @property
    def replicas(self) -> Any:
        found = self.server.read(DEPLOYMENTS, f"shop/{REVISION}")
        return None if found is None else found["spec"]["replicas"]

    def scale(self, replicas: int) -> None:
        found = self.server.read(DEPLOYMENTS, f"shop/{REVISION}")
        assert found is not None
        self.server.put(DEPLOYMENTS, {**found, "spec": {**found["spec"], "replicas": replicas}})

    async def pass_time(self, seconds: float) -> None:
        await self.clock.advance(seconds, self.settle)

    @staticmethod
    async def settle() -> None:
        for _ in range(50):
            await asyncio.sleep(0)


@asynccontextmanager
async def world(replicas: int | None) -> AsyncIterator[World]:
    made = World(replicas)
    try:
        yield made
    finally:
        await made.waker.close()


@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 1), (7, 7)])
def test_zero_becomes_one_and_another_number_is_left_alone(before: int, after: int) -> None:
    async def run() -> None:
        async with world(before) as w:
            w.waker.wake(KEY)
            await w.settle()
            assert (w.replicas, w.raised) == (after, [KEY])
            assert len(w.server.writes) == (before == 0)

    asyncio.run(run())


def test_it_is_woken_once_however_many_ask() -> None:
    async def run() -> None:
        async with world(0) as w:
            for _ in range(100):
                w.waker.wake(KEY)
            await w.settle()
            assert (w.raised, len(w.server.writes)) == ([KEY], 1)

    asyncio.run(run())


def test_while_requests_wait_it_is_raised_again_and_then_left_alone() -> None:
    async def run() -> None:
        async with world(0) as w:
            w.waker.wake(KEY)
            await w.settle()
            w.scale(0)
            await w.pass_time(10)
            assert w.replicas == 1
            w.waiting = False
            await w.pass_time(10)
            w.scale(0)
            await w.pass_time(100)
            assert w.replicas == 0
            w.waker.wake(KEY)
            await w.settle()
            assert w.replicas == 1

    asyncio.run(run())


def test_what_is_not_known_yet_is_woken_as_soon_as_it_is() -> None:
    async def run() -> None:
        async with world(0) as w:
            w.revision = None
            w.waker.wake(KEY)
            await w.pass_time(5)
            assert (w.replicas, w.raised) == (0, [])
            w.revision = REVISION
            await w.pass_time(5)
            assert w.replicas == 1

    asyncio.run(run())


def test_a_deployment_that_is_not_there_is_waited_for() -> None:
    async def run() -> None:
        async with world(None) as w:
            w.waker.wake(KEY)
            await w.pass_time(5)
            assert w.raised == []
            metadata = {"name": REVISION, "namespace": "shop"}
            w.server.put(DEPLOYMENTS, {"metadata": metadata, "spec": {"replicas": 0}})
            await w.pass_time(5)
            assert (w.replicas, w.raised[0]) == (1, KEY)

    asyncio.run(run())


@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_a_cluster_that_fails_is_asked_again(caplog: pytest.LogCaptureFixture, method: str) -> None:
    async def run() -> None:
        async with world(0) as w:
            w.server.fail = lambda call: 500 if call.method == method else None
            w.waker.wake(KEY)
            await w.pass_time(5)
            assert (w.replicas, w.raised) == (0, [])
            w.server.fail = lambda _: None
            await w.pass_time(5)
            assert w.replicas == 1

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert "shop/f can't be woken yet" in caplog.text
