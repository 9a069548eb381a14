"""Lets producers' events in while there is room in the backlogs of the triggers that match.

Only a trigger whose backlog rejects is looked at, and only by who sends an event for it. How many wait is
counted by the log, for all that ask at the same time together; in between it is reckoned
(:class:`torpor.events.backlog.Level`). What several processes take in beside each other is seen by the next
count: together they may go over a limit by what came in that time, and one request goes in whole.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from torpor.clock import Together
from torpor.events.backlog import Level, limit_of, problem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence

    from torpor.binding import WireEvent
    from torpor.clock import Clock
    from torpor.events.courier import Route
    from torpor.events.stats import Stats
    from torpor.problems import Problem


class BacklogFullError(Exception):
    """Events were not taken in, since as many wait for a trigger as may; ``problem`` says so."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


@dataclass(slots=True)
class _Gate:
    """A trigger whose backlog rejects."""

    route: Route
    level: Level
    count: Together
    """Have what waits counted."""


class Admission:
    """The backlogs of all triggers; ``pending`` counts what waits for one, by its key.

    ``pending`` answers ``None`` for a trigger that is not at work, and raises
    :class:`~torpor.errors.EventLogError`.
    """

    def __init__(self, clock: Clock, stats: Stats, pending: Callable[[str], Awaitable[int | None]]) -> None:
        self._clock = clock
        self._stats = stats
        self._pending = pending
        self._gates: dict[str, list[_Gate]] = {}

    def set_routes(self, routes: Iterable[Route]) -> None:
        """Which triggers there are."""
        before = {gate.route.key: gate.level for gates in self._gates.values() for gate in gates}
        self._gates = {}
        for route in routes:
            limit = limit_of(route.trigger, "reject")
            if limit is not None:
                level = before.get(route.key) or Level(limit)
                level.limit = limit
                count = Together(partial(self._count, route.key, level))
                self._gates.setdefault(route.broker_key, []).append(_Gate(route, level, count))

    @asynccontextmanager
    async def admitted(self, broker_key: str, events: Sequence[WireEvent]) -> AsyncGenerator[None, None]:
        """``events`` are appended to the broker within the block.

        Raises :class:`BacklogFullError`, and :class:`~torpor.errors.EventLogError` when it can't be known.
        """
        gates = [
            (gate, number)
            for gate in self._gates.get(broker_key, ())
            if (number := sum(map(gate.route.matcher.matches, events)))
        ]
        for gate, _ in gates:
            if not gate.level.is_known(self._clock.monotonic()):
                await gate.count()
        for gate, number in gates:
            if gate.level.full:
                self._stats.of(gate.route.key).backlog_refused += number
                level = gate.level
                told = problem(gate.route.key, level.limit, level.waiting, level.room_in_seconds)
                raise BacklogFullError(told)
        for gate, number in gates:
            gate.level.take(number)
        try:
            yield
        finally:
            for gate, number in gates:
                gate.level.done(number)

    async def _count(self, trigger_key: str, level: Level) -> None:
        began = self._clock.monotonic()
        level.begin()
        level.counted(await self._pending(trigger_key) or 0, began)
