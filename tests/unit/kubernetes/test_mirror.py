"""A mirror sees what is there, what changes, and goes on after whatever ends its watch."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from torpor.providers.kubernetes.mirror import Mirror
from torpor.providers.kubernetes.resources import CONFIG_MAPS, key
from torpor.testing.clock import MovableClock
from torpor.testing.kube import ApiServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from torpor.providers.kubernetes.resources import Object


def config(name: str, **data: str) -> Object:
    return {"metadata": {"name": name, "namespace": "n", "labels": {"mine": "yes"}}, "data": data}


class _Bench:
    def __init__(self) -> None:
        self.server = ApiServer()
        self.clock = MovableClock()
        self.changed: list[str] = []
        self.mirror = Mirror(
            self.server.kube(),
            CONFIG_MAPS,
            self.clock,
            lambda item: self.changed.append(key(item)),
            labels="mine",
            group=lambda item: str(item["data"].get("x", "")),
        )

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    def data(self) -> dict[str, Object]:
        return {name: item["data"] for name, item in self.mirror.items.items()}


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[_Bench]:
    bench = _Bench()
    bench.server.put(CONFIG_MAPS, config("a", x="1"))
    task = asyncio.create_task(bench.mirror.run())
    await bench.mirror.synced.wait()
    await bench.settle()
    try:
        yield bench
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_it_follows_changes_across_ends_of_its_watch() -> None:
    async def case() -> None:
        async with running() as bench:
            assert bench.data() == {"n/a": {"x": "1"}}
            bench.server.put(CONFIG_MAPS, config("b"))
            await bench.settle()
            bench.server.disconnect()
            await bench.settle()
            bench.server.put(CONFIG_MAPS, config("a", x="2"))
            bench.server.remove(CONFIG_MAPS, "n/b")
            await bench.settle()
            assert bench.data() == {"n/a": {"x": "2"}}
            assert bench.changed == ["n/a", "n/b", "n/a", "n/b"]
            lists = [call for call in bench.server.calls if "watch" not in call.query]
            assert len(lists) == 1

    asyncio.run(case())


def test_it_lists_anew_when_the_server_has_forgotten_where_it_was() -> None:
    async def case() -> None:
        async with running() as bench:
            bench.server.fail = lambda call: 503 if "watch" in call.query else None
            bench.server.disconnect()
            await bench.settle()
            bench.server.put(CONFIG_MAPS, config("b"))
            bench.server.remove(CONFIG_MAPS, "n/a")
            bench.server.bookmark()
            bench.server.compact()
            bench.server.fail = lambda _: None
            await bench.clock.advance(60, bench.settle)
            assert bench.data() == {"n/b": {}}
            assert sorted(set(bench.changed)) == ["n/a", "n/b"]

    asyncio.run(case())


def test_it_keeps_what_it_had_while_the_server_is_away() -> None:
    async def case() -> None:
        async with running() as bench:
            bench.server.fail = lambda _: 503
            bench.server.disconnect()
            await bench.clock.advance(60, bench.settle)
            assert bench.data() == {"n/a": {"x": "1"}}
            calls = len(bench.server.calls)
            bench.server.fail = lambda _: None
            await bench.clock.advance(20, bench.settle)
            bench.server.put(CONFIG_MAPS, config("a", x="3"))
            await bench.settle()
            assert bench.data() == {"n/a": {"x": "3"}}
            assert calls < 30

    asyncio.run(case())


def test_a_write_is_known_at_once_and_not_undone_by_what_was_before_it() -> None:
    async def case() -> None:
        async with running() as bench:
            kube = bench.server.kube()
            one = await kube.patch(CONFIG_MAPS, "n", "a", {"data": {"x": "2"}})
            two = await kube.patch(CONFIG_MAPS, "n", "a", {"data": {"x": "3"}})
            bench.mirror.wrote(two)
            bench.mirror.wrote(one)
            assert bench.data() == {"n/a": {"x": "3"}}
            await bench.settle()
            assert bench.data() == {"n/a": {"x": "3"}}

    asyncio.run(case())


def test_objects_are_found_by_their_group_and_move_with_it() -> None:
    async def case() -> None:
        async with running() as bench:

            def group(name: str) -> list[str]:
                return [item["metadata"]["name"] for item in bench.mirror.of(name)]

            for name in ("c", "b"):
                bench.server.put(CONFIG_MAPS, config(name, x="1"))
            await bench.settle()
            assert group("1") == ["a", "b", "c"]
            bench.server.put(CONFIG_MAPS, config("b", x="2"))
            bench.server.remove(CONFIG_MAPS, "n/c")
            await bench.settle()
            assert (group("1"), group("2"), group("3")) == (["a"], ["b"], [])
            bench.mirror.wrote(
                {**config("a", x="3"), "metadata": {**config("a")["metadata"], "resourceVersion": "999999"}}
            )
            assert (group("1"), group("3")) == ([], ["a"])

    asyncio.run(case())
