"""How much there is of something in a log, reckoned between two looks at it. Pure."""

from __future__ import annotations

FRESH_SECONDS = 0.5
"""How long a look holds: in that time other processes may have added what it has not."""


class Reckoning:
    """An amount that is never below what the log had at the last look and what this process has added since.

    What went since is known by the next look. Times are in seconds, of one clock.
    """

    def __init__(self) -> None:
        self._seen = 0
        self._at: float | None = None
        self._under_way = 0
        self._unseen = 0  # added, and maybe not in the last look
        self._unseen_next = 0  # the same of the look that is under way

    @property
    def amount(self) -> int:
        """How much there is, as far as is known."""
        return self._seen + self._unseen

    def is_fresh(self, now: float, within_seconds: float = FRESH_SECONDS) -> bool:
        """Whether the last look was so lately that it holds."""
        return self._at is not None and now - self._at < within_seconds

    def begin(self) -> None:
        """A look begins: what is under way now may not be in it."""
        self._unseen_next = self._under_way

    def seen(self, amount: int, now: float) -> None:
        """The look that was begun last found that much."""
        self._seen, self._at, self._unseen = amount, now, self._unseen_next

    def add(self, amount: int) -> None:
        """So much is being added."""
        self._under_way += amount
        self._unseen += amount
        self._unseen_next += amount

    def done(self, amount: int) -> None:
        """It is in the log, or will never be."""
        self._under_way -= amount
