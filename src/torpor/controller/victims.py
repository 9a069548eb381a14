"""Which pods go when there are to be fewer: those that nobody waits for. Pure.

Kubernetes takes pods that are not ready first, then those of the least ``pod-deletion-cost``. So the ones
that should go are marked with a negative cost, and as many are marked as are to go: what stays has no mark.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Candidate:
    """One pod; ``active`` is how many requests it has under way, ``born`` when it was made, as text.

    ``stuck`` is one that its node can't give what it asks for, and ``marked`` one that has a mark already.
    """

    name: str
    ready: bool
    stuck: bool
    active: int
    born: str
    marked: bool


def marks(candidates: Sequence[Candidate], excess: int) -> Mapping[str, bool]:
    """Which pods to mark, and of which to take the mark away, so that ``excess`` of them go.

    Where all are alike nothing needs a mark: Kubernetes takes the newest.
    """
    by_name = sorted(candidates, key=lambda one: one.name)
    newest_first = sorted(by_name, key=lambda one: one.born, reverse=True)
    ordered = sorted(newest_first, key=lambda one: (one.ready, not one.stuck, one.active))
    differ = len({(one.stuck, one.active) for one in candidates if one.ready}) > 1
    chosen = {one.name for one in ordered[: max(0, excess)] if one.ready} if differ else set()
    return {one.name: one.name in chosen for one in by_name if one.marked != (one.name in chosen)}
