"""Remembers which events are to become dead letters, while these can't be written. Pure.

Such an event is given back, since it must not keep others from their places; when it comes again, its
function is not called. What is remembered is lost with the process: then the function is called again.
Times are in seconds, of one clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.events.delivery import DeadLetter

MOST = 10_000
_FIRST_DELAY_SECONDS = 1.0
_LONGEST_DELAY_SECONDS = 60.0
_DATA_BYTES = 1024
"""How much of an answer a dead letter may have."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """An event is a dead letter after so many ``attempts``; ``data`` is of the function's last answer."""

    why: DeadLetter
    attempts: int
    data: bytes = b""


@dataclass(slots=True)
class _Kept:
    verdict: Verdict
    delay_seconds: float
    again_at: float
    problem: str


class Verdicts:
    """Those of all triggers, by their slots and the sequences of records: :data:`MOST` of a trigger."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[int, _Kept]] = {}

    def of(self, slot: str, sequence: int) -> Verdict | None:
        """What is known of the record."""
        kept = self._kept.get(slot)
        found = None if kept is None else kept.get(sequence)
        return None if found is None else found.verdict

    def keep(self, slot: str, sequence: int, verdict: Verdict, problem: str, now: float) -> float:
        """Remember it, since there is a problem with writing it; how long to wait until the next try."""
        kept = self._kept.setdefault(slot, {})
        before, delay = kept.pop(sequence, None), _FIRST_DELAY_SECONDS
        if before is not None:
            delay = min(2 * before.delay_seconds, _LONGEST_DELAY_SECONDS)
        short = Verdict(verdict.why, verdict.attempts, verdict.data[:_DATA_BYTES])
        kept[sequence] = _Kept(short, delay, now + delay, problem)
        if len(kept) > MOST:
            del kept[next(iter(kept))]
        return delay

    def forget(self, slot: str, sequence: int) -> None:
        """It is written."""
        kept = self._kept.get(slot)
        if kept is not None:
            kept.pop(sequence, None)
            if not kept:
                del self._kept[slot]

    def problem(self, slot: str, now: float) -> str:
        """What keeps dead letters of a trigger from being written, if any is to come again here."""
        kept = self._kept.get(slot)
        if not kept:
            return ""
        newest = next(reversed(kept.values()))
        waits = now < newest.again_at + _LONGEST_DELAY_SECONDS  # else another process has it
        return f"dead letters can't be written: {newest.problem}" if waits else ""
