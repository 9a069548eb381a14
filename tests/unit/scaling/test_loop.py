from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from torpor.errors import TransportError
from torpor.scaling.load import Load
from torpor.scaling.loop import TICK_SECONDS, Autoscaler
from torpor.spec.models import FunctionSpec, Scaling
from torpor.testing.clock import MovableClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

KEY = "images/resize"
SPEC = FunctionSpec(
    scaling=Scaling(window_seconds=10.0, scale_to_zero_grace_period_seconds=5.0), container_concurrency=10
)


class World:
    """A fleet whose instances are ready at once, its traffic, and an autoscaler between them."""

    def __init__(self) -> None:
        self.clock = MovableClock()
        self.scaled: list[tuple[str, int]] = []
        self.loads: dict[str, Load] = {}
        self.looks = 0
        self.away = False
        self.autoscaler = Autoscaler(self.clock, self.observe, self)

    async def observe(self) -> Mapping[str, Load]:
        self.looks += 1
        if self.away:
            raise TransportError("it is away")
        return self.loads

    def scale(self, key: str, replicas: int) -> None:
        self.scaled.append((key, replicas))

    def ready(self, key: str) -> int:
        return next((replicas for name, replicas in reversed(self.scaled) if name == key), 0)

    async def settle(self) -> None:
        """Let all run that can, until everyone waits for time or news."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        await self.clock.advance(seconds, self.settle)


def run(scenario: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        world = World()
        running = asyncio.create_task(world.autoscaler.run())
        await world.settle()
        await scenario(world)
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(main())


def test_at_rest_nothing_is_looked_at() -> None:
    async def scenario(world: World) -> None:
        assert world.clock.next_due is None
        world.autoscaler.set(KEY, SPEC)
        await world.settle()
        looks = world.looks
        assert world.clock.next_due is None
        await world.advance(3600.0)
        assert world.looks == looks
        assert world.scaled == [(KEY, 0)]

    run(scenario)


def test_a_poke_wakes_at_once_and_the_function_rests_again() -> None:
    async def scenario(world: World) -> None:
        world.autoscaler.set(KEY, SPEC)
        await world.settle()
        world.loads[KEY] = Load(1.0, 1)
        world.autoscaler.poke(KEY)
        world.autoscaler.poke(KEY)
        assert world.scaled == [(KEY, 0), (KEY, 1)]  # before any time has passed
        await world.settle()
        world.loads[KEY] = Load(0.0, 1)
        await world.advance(14.0)
        assert world.scaled[-1] == (KEY, 1)
        await world.advance(2.0)  # a window of 10 s and a grace of 5 s after the request
        assert world.scaled[-1] == (KEY, 0)
        await world.advance(1.0)
        assert world.clock.next_due is None

    run(scenario)


def test_what_is_held_is_looked_at_when_the_function_wakes_not_at_the_next_tick() -> None:
    async def scenario(world: World) -> None:
        world.autoscaler.set(KEY, SPEC)
        await world.settle()
        world.loads[KEY] = Load(64.0, 64)
        world.autoscaler.poke(KEY)
        await world.settle()
        assert world.scaled == [(KEY, 0), (KEY, 1), (KEY, 10)]  # 64 at 7 an instance

    run(scenario)


def test_decisions_are_explained() -> None:
    async def scenario(world: World) -> None:
        assert world.autoscaler.explain(KEY) is None
        world.autoscaler.set(KEY, SPEC)
        world.loads[KEY] = Load(14.0, 14)
        world.autoscaler.poke(KEY)
        woken = world.autoscaler.explain(KEY)
        assert woken is not None
        assert (woken.desired, woken.observed, woken.reason) == (1, None, "woken by a request")
        await world.advance(2.0)
        state = world.autoscaler.explain(KEY)
        assert state is not None
        assert (state.desired, state.observed, state.panicking) == (2, 14.0, True)
        assert "14 concurrent requests" in state.reason

    run(scenario)


def test_without_a_sample_all_stays_as_it_is() -> None:
    async def scenario(world: World) -> None:
        world.autoscaler.set(KEY, SPEC)
        world.autoscaler.poke(KEY)
        await world.settle()
        world.away = True
        await world.advance(600.0)
        assert world.scaled[-1] == (KEY, 1)
        world.away = False
        await world.advance(TICK_SECONDS)
        assert world.scaled[-1] == (KEY, 0)

    run(scenario)


def test_the_initial_scale_is_started_at_once_and_the_least_is_kept() -> None:
    async def scenario(world: World) -> None:
        scaling = Scaling(window_seconds=10.0, initial_scale=4, min_scale=1)
        world.autoscaler.set(KEY, FunctionSpec(scaling=scaling))
        assert world.scaled == [(KEY, 4)]
        await world.advance(120.0)
        assert world.scaled[-1] == (KEY, 1)

    run(scenario)


def test_a_function_that_is_forgotten_is_scaled_no_more() -> None:
    async def scenario(world: World) -> None:
        world.autoscaler.set(KEY, SPEC)
        world.autoscaler.poke(KEY)
        await world.settle()
        world.autoscaler.forget(KEY)
        before = list(world.scaled)
        world.autoscaler.poke(KEY)
        await world.advance(100.0)
        assert world.scaled == before
        assert world.clock.next_due is None

    run(scenario)


def test_what_runs_already_is_kept_until_the_traffic_says_otherwise() -> None:
    async def scenario(world: World) -> None:
        world.autoscaler.set(KEY, SPEC, running=4)
        assert world.scaled == [(KEY, 4)]
        await world.advance(14.0)
        assert world.scaled[-1][1] > 0
        await world.advance(10.0)
        assert world.scaled[-1] == (KEY, 0)

    run(scenario)
