"""How many events wait for a trigger, reckoned between two counts of the log, and what follows. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torpor.events.retry_after import Drain
from torpor.problems import Problem, ProblemType

if TYPE_CHECKING:
    from torpor.spec.models import Trigger

FRESH_SECONDS = 0.5
"""How long a count holds: in that time other processes may have taken in events that it has not."""
FULL_SECONDS = 0.05
"""How long a count that said that there is no room is taken for true, however many ask."""


class Level:
    """How many events wait for one trigger, of which ``limit`` may.

    It is never below what the log had when it was counted last and what this process has taken in since; what
    was delivered since is known by the next count. Times are in seconds, of one clock.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._counted = 0
        self._at: float | None = None
        self._under_way = 0
        self._unseen = 0  # taken in, and maybe not in the last count
        self._unseen_next = 0  # the same of the count that is under way
        self._taken = 0
        self._drain = Drain()

    @property
    def waiting(self) -> int:
        """How many wait, as far as is known."""
        return self._counted + self._unseen

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
        if self._at is None or now - self._at >= FRESH_SECONDS:
            return False
        return not self.full or (self._counted >= self.limit and now - self._at < FULL_SECONDS)

    def begin(self) -> None:
        """A count begins: what is under way now may not be in it."""
        self._unseen_next = self._under_way

    def counted(self, waiting: int, now: float) -> None:
        """The count that was begun last came to ``waiting``."""
        self._counted, self._at, self._unseen = waiting, now, self._unseen_next
        self._drain.see(now, self.waiting, self._taken)

    def take(self, events: int) -> None:
        """``events`` are being taken in."""
        self._taken += events
        self._under_way += events
        self._unseen += events
        self._unseen_next += events

    def done(self, events: int) -> None:
        """They are in the log, or will never be."""
        self._under_way -= events


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
