"""The server against a real gRPC client that does what Envoy does."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse

from torpor.errors import GatewayError
from torpor.gateway.ads import AdsServer
from torpor.testing.clock import MovableClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

T = "type.googleapis.com/thing"
METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


class Peer:
    """One stream of a client."""

    def __init__(self, channel: Any) -> None:
        self._call = channel.stream_stream(
            METHOD,
            request_serializer=DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=DeltaDiscoveryResponse.FromString,
        )()

    async def ask(self, *names: str, **more: Any) -> None:
        await self._call.write(DeltaDiscoveryRequest(type_url=T, resource_names_subscribe=names, **more))

    async def read(self) -> Any:
        return await asyncio.wait_for(self._call.read(), 30)

    async def ack(self, response: Any, error: str = "") -> None:
        request = DeltaDiscoveryRequest(type_url=T, response_nonce=response.nonce)
        if error:
            request.error_detail.message = error
        await self._call.write(request)

    def leave(self) -> None:
        self._call.cancel()


class World:
    def __init__(self, server: AdsServer, clock: MovableClock, channel: Any) -> None:
        self.server = server
        self.clock = clock
        self._channel = channel

    def connect(self) -> Peer:
        return Peer(self._channel)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[World]:
    clock = MovableClock()
    server = AdsServer(clock)
    address = f"unix:{folder / 'ads'}"
    await server.start(address)
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield World(server, clock, channel)
    finally:
        await server.close()


def run(folder: Path, body: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        async with serving(folder) as world:
            await body(world)

    asyncio.run(main())


def test_a_change_is_settled_when_it_is_acknowledged(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        world.server.client_alive(True)
        world.server.put(T, "a", b"1")
        peer = world.connect()
        await peer.ask("a")
        await peer.ack(await peer.read())
        change = world.server.put(T, "a", b"2")
        settled = asyncio.create_task(world.server.settle([change], timeout_seconds=10))
        response = await peer.read()
        assert response.resources[0].resource.value == b"2"
        assert not settled.done()
        await peer.ack(response)
        await settled
        await world.server.settle([change], timeout_seconds=10)

    run(tmp_path, check)


def test_a_refusal_is_raised(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        world.server.client_alive(True)
        change = world.server.put(T, "a", b"1")
        settled = asyncio.create_task(world.server.settle([change], timeout_seconds=10))
        peer = world.connect()
        await peer.ask("a")
        await peer.ack(await peer.read(), "no good")
        with pytest.raises(GatewayError, match="no good"):
            await settled

    run(tmp_path, check)


def test_what_nobody_subscribed_to_is_settled(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        world.server.client_alive(True)
        peer = world.connect()
        await peer.ask("a")
        await peer.read()
        await world.server.settle([world.server.put(T, "b", b"1")], timeout_seconds=10)

    run(tmp_path, check)


def test_no_client_runs_and_nobody_waits(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        change = world.server.put(T, "a", b"1")
        await world.server.settle([change], timeout_seconds=10)
        world.server.client_alive(True)
        waiting = asyncio.create_task(world.server.settle([change], timeout_seconds=10))
        await asyncio.sleep(0)
        assert not waiting.done()
        world.server.client_alive(False)
        await waiting

    run(tmp_path, check)


def test_a_client_that_says_nothing_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        world.server.client_alive(True)
        peer = world.connect()
        await peer.ask("a")
        await peer.read()
        change = world.server.put(T, "a", b"1")
        waiting = asyncio.create_task(world.server.settle([change], timeout_seconds=10))
        await peer.read()
        await world.clock.advance(9)
        assert not waiting.done()
        await world.clock.advance(2)
        with pytest.raises(GatewayError, match=r"\(a\) within 10 s"):
            await waiting

    run(tmp_path, check)


def test_a_client_that_comes_back_is_sent_what_it_lacks(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        world.server.client_alive(True)
        world.server.put(T, "a", b"1")
        world.server.put(T, "b", b"1")
        peer = world.connect()
        await peer.ask("a", "b")
        versions = {resource.name: resource.version for resource in (await peer.read()).resources}
        peer.leave()
        await world.until(lambda: not world.server.connected)
        change = world.server.put(T, "a", b"2")
        waiting = asyncio.create_task(world.server.settle([change], timeout_seconds=10))
        again = world.connect()
        await again.ask("a", "b", initial_resource_versions=versions)
        response = await again.read()
        assert [resource.name for resource in response.resources] == ["a"]
        await again.ack(response)
        await waiting

    run(tmp_path, check)
