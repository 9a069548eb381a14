"""Bytes that flow while a request is under way, to a warm instance and through the activator."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.spec.models import Function

KEY = "default/hello"
WARM_OR_HELD = pytest.mark.parametrize("warm", [True, False], ids=["warm", "held"])
UPGRADE = (
    b"GET /function/hello/ws HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def prepare(world: Any, declare: Callable[..., Function], *, warm: bool) -> Any:
    await world.gateway.configure([declare("hello")], events=[], api=[])
    instance = await world.instance()
    if warm:
        await world.gateway.publish(KEY, [instance.endpoint])
    return instance


async def start(world: Any, instance: Any, *, warm: bool) -> None:
    if not warm:
        await world.until_held(1)
        await world.gateway.publish(KEY, [instance.endpoint])


@WARM_OR_HELD
def test_an_answer_streams(run: Any, declare: Callable[..., Function], raw: Any, *, warm: bool) -> None:
    async def check(world: Any) -> None:
        instance = await prepare(world, declare, warm=warm)
        reader, writer = await raw(world.gateway.address)
        writer.write(b"GET /function/hello/stream HTTP/1.1\r\nhost: x\r\n\r\n")
        await start(world, instance, warm=warm)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert await reader.readuntil(b"one\r\n") == b"3\r\none\r\n"
        assert not instance.go_on.is_set()
        instance.go_on.set()
        assert await reader.readuntil(b"0\r\n\r\n") == b"3\r\ntwo\r\n0\r\n\r\n"
        writer.close()

    run(check)


@WARM_OR_HELD
def test_a_request_streams(run: Any, declare: Callable[..., Function], raw: Any, *, warm: bool) -> None:
    async def check(world: Any) -> None:
        instance = await prepare(world, declare, warm=warm)
        reader, writer = await raw(world.gateway.address)
        writer.write(
            b"POST /function/hello/echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n"
        )
        await start(world, instance, warm=warm)
        await instance.until(lambda: instance.seen and instance.seen[0].body == b"one")
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(6) == b"onetwo"
        writer.close()

    run(check)


@WARM_OR_HELD
def test_bytes_after_an_upgrade_go_both_ways(
    run: Any, declare: Callable[..., Function], raw: Any, *, warm: bool
) -> None:
    async def check(world: Any) -> None:
        instance = await prepare(world, declare, warm=warm)
        reader, writer = await raw(world.gateway.address)
        writer.write(UPGRADE)
        await start(world, instance, warm=warm)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        assert instance.seen[0].headers[b"sec-websocket-key"] == b"dGhlIHNhbXBsZSBub25jZQ=="
        for message in (b"hello", b"x" * 500_000):
            writer.write(message)
            assert await reader.readexactly(len(message)) == message
        writer.close()
        await instance.until(lambda: not instance.connections)

    run(check)


@WARM_OR_HELD
def test_large_bodies_both_ways(run: Any, declare: Callable[..., Function], *, warm: bool) -> None:
    async def check(world: Any) -> None:
        instance = await prepare(world, declare, warm=warm)
        body = bytes(range(256)) * 40_000
        answer = asyncio.create_task(world.send(b"POST", "/function/hello/echo", body=body))
        await start(world, instance, warm=warm)
        assert (await answer).body == body

    run(check)


@WARM_OR_HELD
@pytest.mark.parametrize("method", [b"HEAD", b"OPTIONS", b"DELETE", b"PATCH"])
def test_other_methods(run: Any, declare: Callable[..., Function], method: bytes, *, warm: bool) -> None:
    async def check(world: Any) -> None:
        instance = await prepare(world, declare, warm=warm)
        for _ in range(2):
            answer = asyncio.create_task(world.send(method, "/function/hello/x?q=1"))
            await start(world, instance, warm=warm or bool(instance.seen))
            assert (await answer).status == 200
        assert {seen.method for seen in instance.seen} == {method}

    run(check)


def test_a_caller_that_leaves_ends_the_work(run: Any, declare: Callable[..., Function]) -> None:
    async def check(world: Any) -> None:
        instance = await prepare(world, declare, warm=False)
        call = asyncio.create_task(world.get("/function/hello/slow"))
        await start(world, instance, warm=False)
        await instance.until(lambda: instance.under_way == 1)
        call.cancel()
        await instance.until(lambda: not instance.connections)

    run(check)
