"""When deliveries may be made under a rate limit: evenly, with a small burst after a rest. Pure.

The generic cell rate algorithm (ITU-T I.371, annex A) as a virtual schedule, in the form that books: each
delivery is given its moment at once, and the only state is when the next one would be due at an even pace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.spec.models import RateLimit

MAX_BURST = 10


@dataclass(frozen=True, slots=True)
class Pace:
    """One delivery each ``interval_seconds``; after a rest, ``burst`` of them at once."""

    interval_seconds: float
    burst: int

    def start(self, now: float) -> float:
        """The state of who begins: one delivery may be made at once, and no burst.

        So who takes over from another does not add a burst to what that one has sent.
        """
        return now + (self.burst - 1) * self.interval_seconds

    def book(self, due: float, now: float) -> tuple[float, float]:
        """When the next delivery may be made, at ``now`` or later, and the state after it.

        ``due`` is the state before. Times are in seconds, of one clock.
        """
        at = max(now, due - (self.burst - 1) * self.interval_seconds)
        return at, max(due, at) + self.interval_seconds


def pace(limit: RateLimit) -> Pace:
    """The pace that is declared; its burst is a tenth of the events, :data:`MAX_BURST` at most."""
    return Pace(limit.per_seconds / limit.events, min(max(limit.events // 10, 1), MAX_BURST))
