"""Follows cold starts as a gateway sees them: from the first request that waits to the first answer. Pure.

A start has one of each phase, whichever requests and pods have part in it: what counts is what the first
caller waits for. A pod that comes while nobody waits is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.scaling.coldstart import Phase

# A start that takes longer than a request is held, and then half of that, has been given up by all.
_FORGOTTEN_SECONDS = 90.0
# Each phase, and the one it follows; what was never seen, such as the raising by somebody else, is skipped.
_ORDER: tuple[Phase, ...] = ("decide", "pod", "boot", "ready", "first_byte")


@dataclass(slots=True)
class _Start:
    began: float
    last: float
    seen: set[Phase] = field(default_factory=set)


class Starts:
    """Each method is told the time (monotonic seconds); ``observe`` gets function, phase and its seconds."""

    def __init__(self, observe: Callable[[str, Phase, float], None]) -> None:
        self._observe = observe
        self._starts: dict[str, _Start] = {}

    def held(self, function: str, now: float) -> None:
        """A request waits for an instance. May be told often."""
        start = self._starts.get(function)
        if start is None or now - start.began > _FORGOTTEN_SECONDS:
            self._starts[function] = _Start(now, now)

    def reached(self, function: str, phase: Phase, now: float) -> None:
        """A phase has ended; only the first time counts, and none that is out of order."""
        start = self._starts.get(function)
        if start is None or any(later in start.seen for later in _ORDER[_ORDER.index(phase) :]):
            return
        self._observe(function, phase, now - start.last)
        start.seen.add(phase)
        start.last = now
        if phase == "first_byte":
            self._observe(function, "total", now - start.began)
            del self._starts[function]

    def forget(self, function: str) -> None:
        """The function is gone."""
        self._starts.pop(function, None)
