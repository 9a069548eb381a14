"""Says in a Schedule whether it fires, and when it did and will. The events part reads Schedules by itself,
and fires them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from torpor.controller.status import refused_status, schedule_status
from torpor.controller.triggers import write_status
from torpor.errors import DeclarationError
from torpor.providers.kubernetes import resources
from torpor.spec.cron import Cron
from torpor.spec.objects import schedule_of

if TYPE_CHECKING:
    from torpor.clock import Clock
    from torpor.controller.events import Recorder
    from torpor.controller.firings import Firings
    from torpor.controller.world import World
    from torpor.providers.kubernetes.kube import Kube

_SETTLED_SECONDS = 5.0
"""How long after a firing it is looked for."""
_LEAST_SECONDS = 60.0
_MOST_SECONDS = 3600.0


class ScheduleReconciler:
    """Looks at one schedule at a time, by its key, and again after its next firing; once a minute at most."""

    def __init__(self, kube: Kube, world: World, recorder: Recorder, clock: Clock, firings: Firings) -> None:
        self._kube = kube
        self._world = world
        self._recorder = recorder
        self._clock = clock
        self._firings = firings

    async def reconcile(self, key: str) -> float | None:
        """Write the status of the schedule ``key``. Raises :class:`~torpor.errors.ClusterError`."""
        item = self._world.schedules.items.get(key)
        if item is None or "deletionTimestamp" in item["metadata"]:
            return None
        before, generation = item.get("status", {}), item["metadata"].get("generation", 0)
        now = self._clock.now()
        again: float | None = None
        try:
            schedule = schedule_of(item)
        except DeclarationError as error:
            status = refused_status(generation, "Invalid", error.faults, before, _text(now))
        else:
            spec, report = schedule.spec, await self._firings.of(key)
            upcoming = None if spec.suspend else next(Cron(spec.cron, spec.time_zone).after(now), None)
            last = None if report is None or report.last is None else report.last.timestamp()
            status = schedule_status(
                generation,
                before,
                _text(now),
                suspended=spec.suspend,
                problem=report.problem if report is not None else "",
                last=before.get("lastFiringTime") if last is None else _text(last),
                upcoming=None if upcoming is None else _text(upcoming),
            )
            if upcoming is not None:
                wait = upcoming + spec.jitter_seconds + _SETTLED_SECONDS - now
                again = min(max(wait, _LEAST_SECONDS), _MOST_SECONDS)
        await write_status(
            self._kube, self._world.schedules, resources.SCHEDULES, self._recorder, item, status
        )
        return again


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
