"""How many events wait for a trigger, reckoned between two counts of the log, and what follows. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torpor.events.reckoning import Reckoning
from torpor.events.retry_after import Drain
from torpor.problems import Problem, ProblemType

if TYPE_CHECKING:
    from torpor.spec.models import Trigger

FULL_SECONDS = 0.05
"""How long a count that said that there is no room is taken for true, however many ask."""


class Level(Reckoning):
    """How many events wait for one trigger, of which ``limit`` may."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self._taken = 0
        self._drain = Drain()

    @property
    def waiting(self) -> int:
        """How many wait, as far as is known."""
        return self.amount

    @property
    def full(self) -> bool:
        """Whether no more may come."""
        return self.waiting >= self.limit

    @property
    def room_in_seconds(self) -> int:
        """In about how many seconds there is room again, by the counts of late."""
        return self._drain.seconds_until(self.limit - 1)

    def is_known(self, now: float) -> bool:
        """Whether :attr:`full` can be gone by; else it is to be counted."""
        if not self.full:
            return self.is_fresh(now)
        return self._seen >= self.limit and self.is_fresh(now, FULL_SECONDS)

    def counted(self, waiting: int, now: float) -> None:
        """The count that was begun last came to ``waiting``."""
        self.seen(waiting, now)
        self._drain.see(now, self.waiting, self._taken)

    def take(self, events: int) -> None:
        """``events`` are being taken in."""
        self._taken += events
        self.add(events)


def limit_of(trigger: Trigger, on_limit: Literal["reject", "deadLetterOldest"]) -> int | None:
    """How many may wait for ``trigger``, if that is what becomes of more."""
    backlog = trigger.spec.backlog
    return backlog.limit if backlog is not None and backlog.on_limit == on_limit else None


def problem(trigger_key: str, limit: int, waiting: int, room_in_seconds: int | None = None) -> Problem:
    """What a producer is told whose events would be too many, and what a dead letter carries for that."""
    detail = (
        f"{waiting} events wait for trigger {trigger_key}, of which the backlog may be {limit}; "
        "send it again once there is room"
    )
    more = {"trigger": trigger_key, "limit": limit, "waiting": waiting}
    return Problem(ProblemType.BACKLOG_FULL, detail, retry_after_seconds=room_in_seconds, extras=more)
