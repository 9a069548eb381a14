"""How much a joining trigger may hold: which parts there is room for, between two looks at the log. Pure.

What the log refuses at its limit is not parts alone but endings too, and without these no group would ever
go. So parts are let in below that: those that open a group while the stream is three quarters full, those of
open groups, which may make them whole, up to fifteen sixteenths. What finds no room waits in the broker.
Times are in seconds, of one clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.binding import WireEvent

FRESH_SECONDS = 0.5
"""How long a look at the log holds."""
SHOWN_SECONDS = 5.0
"""How long it is told that parts find no room, after one that didn't; those that wait come each second."""
_RECORD_BYTES = 512


def size_of(event: WireEvent) -> int:
    """What an event takes in a log at most, about: its attributes may be encoded there."""
    texts = sum(len(name) + len(value) for name, value in event.attributes.items())
    return _RECORD_BYTES + 2 * texts + len(event.data or b"")


class Room:
    """What a stream of ``max_bytes`` has room for.

    What it is taken to hold is never less than the log had when it was looked at last and what was let in
    since; what went since is known by the next look.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._seen = 0
        self._at: float | None = None
        self._under_way = 0
        self._unseen = 0  # let in, and maybe not in the last look
        self._unseen_next = 0  # the same of the look that is under way
        self._refused_at: float | None = None

    def is_known(self, now: float) -> bool:
        """Whether :meth:`take` can be gone by; else the log is to be looked at."""
        return self._at is not None and now - self._at < FRESH_SECONDS

    def begin(self) -> None:
        """A look begins: what is under way now may not be in it."""
        self._unseen_next = self._under_way

    def seen(self, size: int, now: float) -> None:
        """The look that was begun last found that much."""
        self._seen, self._at, self._unseen = size, now, self._unseen_next

    def take(self, size: int, *, opens: bool, now: float) -> bool:
        """Whether a part is let in, which ``opens`` a group or is of an open one; then it is under way."""
        most = self._max_bytes * 3 // 4 if opens else self._max_bytes * 15 // 16
        if self._seen + self._unseen + size > most:
            self.refused(now)
            return False
        self._under_way += size
        self._unseen += size
        self._unseen_next += size
        return True

    def done(self, size: int) -> None:
        """It is in the log, or will not be."""
        self._under_way -= size

    def refused(self, now: float) -> None:
        """A part has found no room."""
        self._refused_at = now

    def problem(self, now: float) -> str:
        """What is wrong while parts find no room."""
        if self._refused_at is None or now - self._refused_at >= SHOWN_SECONDS:
            return ""
        return (
            f"its groups hold {self._seen + self._unseen} bytes, of which there may be {self._max_bytes}: "
            "parts wait in the broker until groups end"
        )
