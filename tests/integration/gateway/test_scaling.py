"""A function goes to zero and comes back, and no caller notices."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from torpor.errors import TransportError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.spec.models import Function

KEY = "default/hello"


def test_constant_load_over_many_cycles_loses_nothing(run: Any, declare: Callable[..., Function]) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello")], events=[], api=[])
        outcome: Counter[str] = Counter()
        stop = False

        async def caller() -> None:
            while not stop:
                try:
                    response = await world.get("/function/hello/x")
                    outcome[str(response.status)] += 1
                except TransportError as error:
                    outcome[repr(error)] += 1

        async with asyncio.TaskGroup() as callers:
            for _ in range(16):
                callers.create_task(caller())
            for cycle in range(25):
                await world.until_woken()
                instance = await world.instance(f"instance-{cycle}")
                await world.gateway.publish(KEY, [instance.endpoint])
                await instance.until(lambda instance=instance: len(instance.seen) >= 50)
                world.on_wake.clear()
                await world.gateway.publish(KEY, [])
                await instance.drain()
            last = await world.instance("last")
            await world.gateway.publish(KEY, [last.endpoint])
            stop = True
        assert set(outcome) == {"200"}, outcome
        assert outcome["200"] >= 25 * 50

    run(check)


def test_instances_that_are_replaced_under_load_lose_nothing(
    run: Any, declare: Callable[..., Function]
) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello")], events=[], api=[])
        outcome: Counter[str] = Counter()
        stop = False

        async def caller() -> None:
            while not stop:
                try:
                    outcome[str((await world.get("/function/hello")).status)] += 1
                except TransportError as error:
                    outcome[repr(error)] += 1

        old = await world.instance("0")
        await world.gateway.publish(KEY, [old.endpoint])
        async with asyncio.TaskGroup() as callers:
            for _ in range(16):
                callers.create_task(caller())
            for number in range(20):
                new = await world.instance(str(number + 1))
                await world.gateway.publish(KEY, [old.endpoint, new.endpoint])
                await new.until(lambda new=new: len(new.seen) >= 20)
                await world.gateway.publish(KEY, [new.endpoint])
                await old.drain()
                old = new
            stop = True
        assert set(outcome) == {"200"}, outcome
        assert world.woken == []

    run(check)


def test_many_held_requests_go_to_the_one_instance_that_starts(
    run: Any, declare: Callable[..., Function]
) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello")], events=[], api=[])
        held = [
            asyncio.create_task(world.send(b"POST", "/function/hello/echo", body=b"%d" % n))
            for n in range(300)
        ]
        await world.until_held(300)
        assert (await world.gateway.observe())[KEY].concurrency == 300
        instance = await world.instance()
        await world.gateway.publish(KEY, [instance.endpoint])
        responses = await asyncio.gather(*held)
        assert [response.body for response in responses] == [b"%d" % n for n in range(300)]
        assert world.gateway.held == 0
        load = (await world.gateway.observe())[KEY]
        assert (load.concurrency, load.requests_total) == (0, 300)

    run(check)


def test_held_requests_are_spread_over_the_instances(run: Any, declare: Callable[..., Function]) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello")], events=[], api=[])
        held = [asyncio.create_task(world.get("/function/hello/slow")) for _ in range(30)]
        await world.until_held(30)
        instances = [await world.instance(str(number)) for number in range(3)]
        await world.gateway.publish(KEY, [instance.endpoint for instance in instances])
        for instance in instances:
            await instance.until(lambda instance=instance: instance.under_way == 10)
            instance.go_on.set()
        await asyncio.gather(*held)

    run(check)


def test_envoy_closes_its_connections_to_an_instance_that_is_withdrawn(
    run: Any, declare: Callable[..., Function]
) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello")], events=[], api=[])
        instance = await world.instance()
        await world.gateway.publish(KEY, [instance.endpoint])
        await asyncio.gather(*(world.get("/function/hello") for _ in range(8)))
        slow = asyncio.create_task(world.get("/function/hello/slow"))
        await instance.until(lambda: instance.under_way == 1)
        await world.gateway.publish(KEY, [])
        await instance.until(lambda: len(instance.connections) == 1)
        instance.go_on.set()
        assert (await slow).body == b"instance"
        await instance.drain()

    run(check)


def test_a_function_that_is_no_longer_declared_finishes_what_is_under_way(
    run: Any, declare: Callable[..., Function]
) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello"), declare("other")], events=[], api=[])
        instance = await world.instance()
        await world.gateway.publish(KEY, [instance.endpoint])
        slow = asyncio.create_task(world.get("/function/hello/slow"))
        await instance.until(lambda: instance.under_way == 1)
        await world.gateway.configure([declare("other")], events=[], api=[])
        assert (await world.get("/function/hello")).status == 404
        assert "default/hello" not in await world.gateway.observe()
        await world.gateway.publish(KEY, [])
        instance.go_on.set()
        assert (await slow).body == b"instance"
        await world.gateway.observe()
        await instance.drain()
        assert (await world.get("/function/hello")).status == 404
        await world.gateway.configure([declare("hello")], events=[], api=[])
        back = await world.instance("back")
        await world.gateway.publish(KEY, [back.endpoint])
        assert (await world.get("/function/hello")).body == b"back"

    run(check)


def test_a_caller_that_goes_away_frees_its_place(
    run: Any, declare: Callable[..., Function], raw: Any
) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello")], events=[], api=[])
        held = [asyncio.create_task(world.get("/function/hello")) for _ in range(5)]
        await world.until_held(5)
        for task in held[:3]:
            task.cancel()
        await world.until_held(2)
        instance = await world.instance()
        await world.gateway.publish(KEY, [instance.endpoint])
        assert [(await task).body for task in held[3:]] == [b"instance"] * 2
        assert len(instance.seen) == 2

    run(check)
