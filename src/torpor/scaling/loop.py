"""Feeds the autoscaler with what is observed and does what it decides.

It ticks only while something runs; at rest it waits for a poke and uses no processor.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torpor.clock import happens_within
from torpor.errors import TorporError
from torpor.scaling.kpa import Rules
from torpor.scaling.scaler import Scaler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from torpor.clock import Clock
    from torpor.scaling.load import Load
    from torpor.spec.models import FunctionSpec

# Knative samples every second and decides every two. Here windows may be as short as a second and a sample
# costs one read of Envoy's counters, some milliseconds of its time.
TICK_SECONDS = 0.5
# While there are no more than instances that nobody wanted when last looked at, such as parked ones.
RESTING_TICK_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Fleet(Protocol):
    """What runs the instances."""

    def scale(self, key: str, replicas: int) -> None:
        """Set how many instances of the function should run."""
        ...

    def ready(self, key: str) -> int:
        """How many instances of the function take requests."""
        ...


@dataclass(frozen=True, slots=True)
class ScalingState:
    """The last decision about a function; ``observed`` is the metric over the stable window."""

    desired: int
    observed: float | None
    panicking: bool
    reason: str


class Autoscaler:
    """Scales each function that it was told of by :meth:`set`; ``observe`` samples the traffic of all."""

    def __init__(
        self,
        clock: Clock,
        observe: Callable[[], Awaitable[Mapping[str, Load]]],
        fleet: Fleet,
        *,
        tick_seconds: float = TICK_SECONDS,
    ) -> None:
        self._clock = clock
        self._observe = observe
        self._fleet = fleet
        self._tick_seconds = tick_seconds
        self._scalers: dict[str, Scaler] = {}
        self._awake: set[str] = set()
        self._unobserved = ""
        self._news = asyncio.Event()  # something woke, and is looked at now rather than at the next tick

    def set(self, key: str, spec: FunctionSpec, *, running: int = 0) -> None:
        """Scale the function as ``spec`` declares, from now on. The fleet knows it already.

        ``running`` is how many instances there were before anything was decided here: they are kept until
        the traffic says otherwise.
        """
        now = self._clock.monotonic()
        rules = Rules.of(spec)
        scaler = self._scalers.get(key)
        if scaler is None:
            scaler = self._scalers[key] = Scaler(rules, self._tick_seconds, now, running)
        else:
            scaler.follow(rules, now)
        self._fleet.scale(key, scaler.replicas)
        self._wake(key)

    def forget(self, key: str) -> None:
        """Scale the function no more."""
        self._scalers.pop(key, None)
        self._awake.discard(key)

    def poke(self, key: str) -> None:
        """A request waits for an instance: start one at once if none is desired. May be called often."""
        scaler = self._scalers.get(key)
        if scaler is None:
            return
        before = scaler.replicas
        after = scaler.wake(self._clock.monotonic())
        if after != before:
            self._fleet.scale(key, after)
        if key not in self._awake or after != before:
            self._wake(key)

    def look(self, key: str) -> None:
        """Follow the function's traffic, for as long as it has an instance: it may have one that rests."""
        if key in self._scalers and key not in self._awake:
            self._wake(key)

    def is_awake(self, key: str) -> bool:
        """Whether the function's traffic is looked at."""
        return key in self._awake

    def explain(self, key: str) -> ScalingState | None:
        """Why the function has as many instances as it has; ``None`` if it is unknown."""
        scaler = self._scalers.get(key)
        if scaler is None:
            return None
        decision = scaler.decision
        return ScalingState(decision.replicas, decision.observed, decision.panicking, decision.reason)

    def explain_all(self) -> dict[str, ScalingState]:
        """What :meth:`explain` says of every function."""
        return {key: state for key in self._scalers if (state := self.explain(key)) is not None}

    async def run(self) -> None:
        """Tick for as long as it is let."""
        while True:
            if not self._awake:
                await self._news.wait()
            self._news.clear()
            await self.tick()
            if self._awake:
                await happens_within(self._clock, self._pause_seconds(), self._news)

    def _pause_seconds(self) -> float:
        wanted = any(self._scalers[key].replicas for key in self._awake if key in self._scalers)
        return self._tick_seconds if wanted else max(self._tick_seconds, RESTING_TICK_SECONDS)

    async def tick(self) -> None:
        """Look once at every function that is awake, and scale what has to be."""
        try:
            loads = await self._observe()
        except TorporError as error:  # without a sample nothing is known: all stays as it is
            if str(error) != self._unobserved:
                self._unobserved = str(error)
                _log.warning("the functions' traffic can't be observed: %s", error)
            return
        self._unobserved = ""
        now = self._clock.monotonic()
        for key in sorted(self._awake):
            self._look_at(key, loads.get(key), now)

    def _look_at(self, key: str, load: Load | None, now: float) -> None:
        scaler = self._scalers.get(key)
        if scaler is None:  # forgotten since the sample was taken
            self._awake.discard(key)
            return
        ready = self._fleet.ready(key)
        before = scaler.replicas
        after = scaler.sample(now, load, ready)
        if after != before:
            _log.info("%s: %d -> %d instances: %s", key, before, after, scaler.decision.reason)
            self._fleet.scale(key, after)
        if after == 0 and ready == 0:
            self._awake.discard(key)

    def _wake(self, key: str) -> None:
        self._awake.add(key)
        self._news.set()
