"""Remembers which events of a subscription are to become dead letters, while these can't be written. Pure.

Such an event is given back, since it must not keep others from their places; when it comes again, its
function is not called. What is remembered is lost with the subscription: then the function is called again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.events.delivery import DeadLetter

MOST = 25_000
"""How many are remembered: more than twice as many as are given back at most. Another process may have dealt
with one; those go first, since the others come again and again."""
_FIRST_DELAY_SECONDS = 1.0
_LONGEST_DELAY_SECONDS = 60.0
_DATA_BYTES = 1024
"""How much of an answer a dead letter may have."""


@dataclass(frozen=True, slots=True)
class Burial:
    """What became of an event after so many ``attempts``; ``data`` is of the function's last answer."""

    why: DeadLetter
    attempts: int
    data: bytes = b""


class Burials:
    """Those that are put off, by the sequences of their records."""

    def __init__(self) -> None:
        self._put_off: dict[int, tuple[Burial, float]] = {}

    def of(self, sequence: int) -> Burial | None:
        """That of a record, if it was put off."""
        found = self._put_off.get(sequence)
        return None if found is None else found[0]

    def put_off(self, sequence: int, burial: Burial) -> float:
        """Remember it; how many seconds to wait until the next try."""
        before = self._put_off.pop(sequence, None)
        delay = _FIRST_DELAY_SECONDS if before is None else min(2 * before[1], _LONGEST_DELAY_SECONDS)
        self._put_off[sequence] = Burial(burial.why, burial.attempts, burial.data[:_DATA_BYTES]), delay
        if len(self._put_off) > MOST:
            del self._put_off[next(iter(self._put_off))]
        return delay

    def done(self, sequence: int) -> None:
        """It is written."""
        self._put_off.pop(sequence, None)
