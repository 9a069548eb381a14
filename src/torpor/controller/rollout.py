"""Which revision serves, which one is made ready to, and which can go. Pure.

A revision that follows another is proved first: it serves once as many of its pods are ready as it is asked
for. Until then the one before serves on, whatever becomes of the new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Known:
    """One revision as the cluster has it; ``replicas`` is ``None`` while it has no Deployment."""

    name: str
    number: int
    digest: str
    replicas: int | None
    ready: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What should be.

    ``latest`` is the revision of what is declared, ``create`` its number if it is not there yet, ``serving``
    where requests go, ``scale`` are numbers of pods to set beside the autoscaler, and ``drop`` revisions that
    are not needed any more.
    """

    latest: str
    create: int | None
    serving: str
    scale: Mapping[str, int]
    drop: tuple[str, ...]

    @property
    def rolling(self) -> bool:
        """Whether the latest revision does not serve yet."""
        return self.latest != self.serving


def plan(
    digest: str,
    known: Sequence[Known],
    serving: str | None,
    *,
    desired: int,
    least: int,
    kept: int,
    name: str,
) -> Plan:
    """The plan for a function; ``name`` is what a new revision would be called.

    ``serving`` is where requests go now, ``desired`` how many instances the autoscaler wants, and ``least``
    how many a revision has to start with. ``kept`` revisions that don't serve are kept.
    """
    by_name = {one.name: one for one in known}
    same = [one for one in known if one.digest == digest]
    latest = max(same, key=lambda one: one.number) if same else None
    create = None if latest else 1 + max((one.number for one in known), default=0)
    latest_name = latest.name if latest else name
    before = by_name.get(serving or "")
    scale: dict[str, int] = {}
    if before is None or before.replicas is None or before.name == latest_name:
        chosen = latest_name
    else:
        needed = max(1, least, desired, before.replicas)
        replicas = latest.replicas if latest is not None else None
        proved = latest is not None and bool(replicas) and latest.ready >= (replicas or needed)
        chosen = latest_name if proved else before.name
        # What it is asked for does not grow with every burst: else it might never have enough at once.
        if replicas == 0:
            scale[latest_name] = needed
    used = {chosen, latest_name}
    for one in known:
        if one.name not in used and one.replicas:
            scale[one.name] = 0
    idle = sorted((one for one in known if one.name not in used), key=lambda one: one.number, reverse=True)
    drop = tuple(one.name for one in idle[kept:] if not one.replicas and not one.ready)
    return Plan(latest_name, create, chosen, scale, drop)
