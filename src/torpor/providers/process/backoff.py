"""When a function's instances may be started again after they died: pure.

The first death is made good at once. If the replacement dies too, the wait doubles from ``first_seconds`` up
to ``most_seconds``; an instance that was ready for ``healthy_seconds`` ends the series.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Policy:
    """How the wait grows, in seconds."""

    first_seconds: float = 0.25
    most_seconds: float = 10.0
    healthy_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """A series of deaths. Times are monotonic seconds.

    ``failures`` is its length, ``failed_starts`` how many of the last deaths in a row came before readiness.
    """

    policy: Policy = Policy()
    failures: int = 0
    failed_starts: int = 0
    last_at: float = float("-inf")

    def died(self, now: float, started_at: float, ready_at: float | None) -> Backoff:
        """The series after an instance has died that was started and, maybe, became ready at these times.

        Instances that were started before the last death don't lengthen it: that they die together, as when
        their template ends, says nothing about the restart.
        """
        if ready_at is not None and now - ready_at >= self.policy.healthy_seconds:
            return replace(self, failures=1, failed_starts=0, last_at=now)
        if self.failures and started_at < self.last_at:
            return self
        return replace(
            self,
            failures=self.failures + 1,
            failed_starts=self.failed_starts + 1 if ready_at is None else 0,
            last_at=now,
        )

    def became_ready(self) -> Backoff:
        """The series after an instance became ready; it ends only when that instance lasts."""
        return replace(self, failed_starts=0)

    def wait_seconds(self, now: float) -> float:
        """How long from ``now`` until an instance may be started."""
        if self.failures <= 1:
            return 0.0
        doublings = min(self.failures - 2, 32)
        delay = min(self.policy.first_seconds * float(2**doublings), self.policy.most_seconds)
        # The sum of floats may round up beyond the delay itself.
        return min(max(0.0, self.last_at + delay - now), delay)
