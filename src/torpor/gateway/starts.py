"""Follows cold starts as a gateway sees them: from the first request that waits to the first answer. Pure.

A start has one of each phase, whichever requests and pods have part in it: what counts is what the first
caller waits for. A pod that comes while nobody waits is none. What each of its callers waited for is
:func:`waited`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from torpor.scaling.coldstart import Phase

# A start that takes longer than a request is held, and then half of that, has been given up by all.
_FORGOTTEN_SECONDS = 90.0
# Each phase, and the one it follows; what was never seen, such as the raising by somebody else, is skipped.
_ORDER: tuple[Phase, ...] = ("decide", "pod", "boot", "ready", "first_byte")


@dataclass(slots=True)
class Start:
    """One start: when it began, and when each phase of it had ended, in order (monotonic seconds)."""

    began: float
    ended: dict[Phase, float] = field(default_factory=dict)
    traced: int = 0
    """How many of those that wait for it have its phases in their traces."""

    @property
    def last(self) -> float:
        """When the last phase ended that has."""
        return next(reversed(self.ended.values()), self.began)


class Waited(NamedTuple):
    """What of a phase a request waited for (monotonic seconds)."""

    phase: Phase
    began: float
    ended: float


class Starts:
    """Each method is told the time (monotonic seconds); ``observe`` gets function, phase and its seconds."""

    def __init__(self, observe: Callable[[str, Phase, float], None] = lambda *_: None) -> None:
        self.observe = observe
        self._starts: dict[str, Start] = {}

    def held(self, function: str, now: float) -> Start:
        """A request waits for an instance; returns the start that it waits for. May be told often."""
        start = self._starts.get(function)
        if start is None or now - start.began > _FORGOTTEN_SECONDS:
            start = self._starts[function] = Start(now)
        return start

    def reached(self, function: str, phase: Phase, now: float) -> None:
        """A phase has ended; only the first time counts, and none that is out of order."""
        start = self._starts.get(function)
        if start is None or any(later in start.ended for later in _ORDER[_ORDER.index(phase) :]):
            return
        self.observe(function, phase, now - start.last)
        start.ended[phase] = now
        if phase == "first_byte":
            self.observe(function, "total", now - start.began)
            del self._starts[function]

    def keep(self, functions: Collection[str]) -> None:
        """All others are gone."""
        for function in self._starts.keys() - functions:
            del self._starts[function]


def waited(start: Start, since: float, until: float, *, answered: bool) -> list[Waited]:
    """What a request waited for that was held from ``since`` on, until it was ``answered`` or given up.

    Phases that were over before it came are none of its; of one that was under way then it has what was left.
    """
    found: list[Waited] = []
    for phase, ended in start.ended.items():
        if phase != "first_byte" and since < ended <= until:  # which is the first caller's alone
            found.append(Waited(phase, found[-1].ended if found else since, ended))
    if answered:
        found.append(Waited("first_byte", found[-1].ended if found else since, until))
    return found
