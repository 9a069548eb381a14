"""One leads, and another takes over when it ends or is not heard of."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from torpor.providers.kubernetes.leader import LEASE_SECONDS, Leader
from torpor.providers.kubernetes.resources import LEASES
from torpor.testing.clock import MovableClock
from torpor.testing.kube import ApiServer

if TYPE_CHECKING:
    from torpor.providers.kubernetes.kube import Call


async def turns() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


class _World:
    def __init__(self) -> None:
        self.server = ApiServer()
        self.clock = MovableClock()
        self.working: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, *, outlasts: bool = False) -> Leader:
        leader = Leader(
            self.server.kube(),
            self.clock,
            namespace="torpor",
            name="lease",
            identity=name,
            outlasts=outlasts,
        )

        async def work() -> None:
            self.working.append(name)
            try:
                await asyncio.Event().wait()
            finally:
                self.working.remove(name)

        self.tasks[name] = asyncio.create_task(leader.run(work))
        return leader

    async def end(self, *names: str) -> None:
        for name in names or tuple(self.tasks):
            task = self.tasks.pop(name)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def holder(self) -> str:
        lease = self.server.read(LEASES, "torpor/lease")
        assert lease is not None
        return str(lease["spec"]["holderIdentity"])


def _holder(call: Call) -> str | None:
    """Who would hold the lease after ``call``."""
    holder: str | None = (call.body or {}).get("spec", {}).get("holderIdentity")
    return holder


def test_one_leads_and_gives_it_up_when_it_ends() -> None:
    async def case() -> None:
        world = _World()
        world.start("a")
        await turns()
        world.start("b")
        await world.clock.advance(60, turns)
        assert (world.working, world.holder()) == (["a"], "a")
        await world.end("a")
        await world.clock.advance(6, turns)
        assert (world.working, world.holder()) == (["b"], "b")
        await world.end()

    asyncio.run(case())


def test_one_that_is_not_heard_of_is_followed_after_its_lease() -> None:
    async def case() -> None:
        world = _World()
        world.start("a")
        await turns()
        world.server.fail = lambda call: 500 if call.method != "GET" and _holder(call) != "b" else None
        world.start("b")
        await world.clock.advance(LEASE_SECONDS - 1, turns)
        assert world.working in (["a"], [])  # never two
        await world.clock.advance(3 * LEASE_SECONDS, turns)
        assert world.working == ["b"]
        await world.end()

    asyncio.run(case())


def test_who_can_not_renew_stops_before_another_may_begin() -> None:
    async def case() -> None:
        world = _World()
        world.start("a")
        await turns()
        world.server.fail = lambda _: 503
        await world.clock.advance(LEASE_SECONDS - 0.5, turns)
        assert world.working == []
        world.server.fail = lambda _: None
        await world.clock.advance(10, turns)
        assert world.working == ["a"]
        await world.end()

    asyncio.run(case())


def test_renewing_is_one_request_and_a_lease_that_was_changed_is_read_anew() -> None:
    async def case() -> None:
        world = _World()
        world.start("a")
        await turns()
        before = len(world.server.calls)
        await world.clock.advance(60, turns)
        methods = [call.method for call in world.server.calls[before:]]
        assert methods == ["PUT"] * 12
        lease = world.server.read(LEASES, "torpor/lease")
        assert lease is not None
        world.server.put(LEASES, {**lease, "metadata": {**lease["metadata"], "labels": {"seen": "yes"}}})
        await world.clock.advance(5, turns)
        assert (world.working, world.holder()) == (["a"], "a")
        world.server.put(LEASES, {**lease, "spec": {**lease["spec"], "holderIdentity": "b"}})
        await world.clock.advance(6, turns)
        assert (world.working, world.holder()) == ([], "b")
        await world.end()

    asyncio.run(case())


def test_who_waits_asks_nothing_and_takes_over_at_once() -> None:
    async def case() -> None:
        world = _World()
        world.start("a")
        await turns()
        world.start("b")
        await turns()
        before = len(world.server.calls)
        await world.clock.advance(120, turns)
        assert [call.method for call in world.server.calls[before:]] == ["PUT"] * 24  # a's renewals
        await world.end("a")
        await turns()
        assert (world.working, world.holder()) == (["b"], "b")
        await world.end()

    asyncio.run(case())


def test_who_may_not_watch_asks_now_and_then() -> None:
    async def case() -> None:
        world = _World()
        world.start("a")
        await turns()
        world.server.fail = lambda call: 403 if "watch" in call.query else None
        world.start("b")
        await world.clock.advance(60, turns)
        assert world.working == ["a"]
        await world.end("a")
        await world.clock.advance(2 * LEASE_SECONDS, turns)
        assert world.working == ["b"]
        await world.end()

    asyncio.run(case())


def test_work_that_outlasts_the_lease_goes_on_until_another_is_seen_to_have_it() -> None:
    async def case() -> None:
        world = _World()
        world.start("a", outlasts=True)
        await turns()
        world.server.fail = lambda _: 503
        await world.clock.advance(10 * LEASE_SECONDS, turns)
        assert world.working == ["a"]
        lease = world.server.read(LEASES, "torpor/lease")
        assert lease is not None
        world.server.put(LEASES, {**lease, "spec": {**lease["spec"], "holderIdentity": "b"}})
        await world.clock.advance(LEASE_SECONDS, turns)
        assert world.working == ["a"]  # it can't see that
        world.server.fail = lambda _: None
        await world.clock.advance(10, turns)
        assert (world.working, world.holder()) == ([], "b")
        await world.end()

    asyncio.run(case())
