"""When a schedule fires: from where it stands and the time to what is due and when to look again. Pure.

Planned times are whole seconds since the epoch. They are fired in their order, so that one number says which
were: all up to it. Jitter puts each off by what its schedule and its planned time give, the same in every
process, but never before one that is planned earlier.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import accumulate, islice, takewhile
from typing import TYPE_CHECKING

from torpor.spec.cron import Cron

if TYPE_CHECKING:
    from torpor.spec.models import Schedule

MISSED_AFTER_SECONDS = 60.0
"""How late a firing may be noticed and still count as on time: a restart takes less."""
MOST_MADE_UP_FOR = 100
"""How many missed firings ``run-all`` makes up for: the newest, as many as a CronJob of Kubernetes bears."""
MOST_PENDING = 1000
"""How many firings of one schedule wait for a broker that is away; beyond it the oldest are missed."""
_MOST_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a schedule stands: what is planned up to ``seen`` was noticed, and ``pending`` is to be fired."""

    seen: int
    pending: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the clock says.

    ``missed`` is how many firings are left out, as far as they were counted: up to 400 at a time.
    ``next_planned`` is the next time to come, and ``wake_at`` when to look again; neither, if there is none.
    """

    standing: Standing
    missed: int
    next_planned: int | None
    wake_at: float | None


class Timing:
    """When one schedule fires, compiled once."""

    def __init__(self, schedule: Schedule) -> None:
        spec = schedule.spec
        self._cron = Cron(spec.cron, spec.time_zone)
        self._key = schedule.key
        self._jitter_seconds = spec.jitter_seconds
        self._missed = spec.missed

    def due(self, planned: int) -> float:
        """When the firing that is planned for that time comes due, jitter included."""
        if not self._jitter_seconds:
            return float(planned)
        digest = hashlib.sha256(f"{self._key}@{planned}".encode()).digest()
        return planned + self._jitter_seconds * int.from_bytes(digest[:8]) / 2**64

    def look(self, standing: Standing, now: float) -> Look:
        """Notice what has come due by ``now``, and what of it was missed."""
        planned = self._looked_at(standing.seen, now)
        due_at = list(accumulate(map(self.due, planned), max))  # none before an earlier one
        due = planned[: sum(at <= now for at in due_at)]
        late = due[: sum(at < now - MISSED_AFTER_SECONDS for at in due_at)]
        made_up_for = self._made_up_for(late)
        pending = (*standing.pending, *made_up_for, *due[len(late) :])
        kept = pending[-MOST_PENDING:]
        seen = due[-1] if due else standing.seen
        next_planned = next(self._cron.after(seen), None)
        return Look(
            Standing(seen, kept),
            missed=len(late) - len(made_up_for) + len(pending) - len(kept),
            next_planned=next_planned,
            wake_at=None if next_planned is None else self.due(next_planned),
        )

    def _made_up_for(self, late: list[int]) -> list[int]:
        most = {"skip": 0, "run-once": 1, "run-all": MOST_MADE_UP_FOR}[self._missed]
        return late[-most:] if most else []

    def _looked_at(self, after: int, now: float) -> list[int]:
        """The planned times after ``after`` to look at.

        Of those that are due whatever their jitter the newest 200, and of those whose jitter may still put
        them off the oldest 200: they come due in their order.
        """
        surely_due = now - self._jitter_seconds
        found = self._between(after, surely_due)
        if self._jitter_seconds:
            found += self._some(max(after, int(surely_due // 1)), now)[:_MOST_AT_ONCE]
        return found

    def _between(self, after: int, until: float) -> list[int]:
        """The planned times after ``after`` up to ``until``, of many the newest."""
        found = self._some(after, until)
        if len(found) <= _MOST_AT_ONCE:
            return found
        # The moment from which on there are just not too many: each second has one at most.
        too_early, late_enough = after, int(until // 1)
        while late_enough - too_early > 1:
            middle = (too_early + late_enough) // 2
            if len(self._some(middle, until)) > _MOST_AT_ONCE:
                too_early = middle
            else:
                late_enough = middle
        return self._some(late_enough, until)

    def _some(self, after: int, until: float) -> list[int]:
        times = takewhile(lambda planned: planned <= until, self._cron.after(after))
        return list(islice(times, _MOST_AT_ONCE + 1))
