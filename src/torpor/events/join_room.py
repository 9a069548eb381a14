"""How much a joining trigger may hold: which parts there is room for, between two looks at the log. Pure.

What the log refuses at its limit is not parts alone but endings too, and without these no group would ever
go. So parts are let in below that: those that open a group while the stream is three quarters full, those of
open groups, which may make them whole, up to fifteen sixteenths. What finds no room waits in the broker.
Times are in seconds, of one clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torpor.events.reckoning import Reckoning

if TYPE_CHECKING:
    from torpor.binding import WireEvent

SHOWN_SECONDS = 5.0
"""How long it is told that parts find no room, after one that didn't; those that wait come each second."""
_RECORD_BYTES = 512


def size_of(event: WireEvent) -> int:
    """What an event takes in a log at most, about: its attributes may be encoded there."""
    texts = sum(len(name) + len(value) for name, value in event.attributes.items())
    return _RECORD_BYTES + 2 * texts + len(event.data or b"")


class Room(Reckoning):
    """What a stream of ``max_bytes`` has room for: how many bytes it holds is reckoned."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._refused_at: float | None = None

    def take(self, size: int, *, opens: bool, now: float) -> bool:
        """Whether a part is let in, which ``opens`` a group or is of an open one; then it is under way."""
        most = self._max_bytes * 3 // 4 if opens else self._max_bytes * 15 // 16
        if self.amount + size > most:
            self.refused(now)
            return False
        self.add(size)
        return True

    def refused(self, now: float) -> None:
        """A part has found no room."""
        self._refused_at = now

    def problem(self, now: float) -> str:
        """What is wrong while parts find no room."""
        if self._refused_at is None or now - self._refused_at >= SHOWN_SECONDS:
            return ""
        return (
            f"its groups hold {self.amount} bytes, of which there may be {self._max_bytes}: "
            "parts wait in the broker until groups end"
        )
