"""Follows pods from the moment they are made until their container runs, by when it is told of it. Pure.

A pod's own times have whole seconds; the watch tells of each change some milliseconds after it. Only pods
that are seen before they have a node are followed: of others it is not known when they began.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torpor.controller import names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torpor.providers.kubernetes.resources import Object
    from torpor.scaling.coldstart import Phase

_MOST = 1000  # pods that are being started


@dataclass(slots=True)
class _Pod:
    phase: int
    at: float


class PodStarts:
    """``observe`` gets the function's key, a phase and its seconds."""

    def __init__(self, observe: Callable[[str, Phase, float], None]) -> None:
        self._observe = observe
        self._pods: dict[str, _Pod] = {}

    def see(self, pod: Object, now: float) -> None:
        """What is known of ``pod`` at ``now`` (monotonic seconds)."""
        metadata = pod["metadata"]
        uid = metadata["uid"]
        reached = sum(_passed(pod))
        known = self._pods.get(uid)
        if known is None:
            if reached == 0 and "deletionTimestamp" not in metadata:
                while len(self._pods) >= _MOST:
                    del self._pods[next(iter(self._pods))]
                self._pods[uid] = _Pod(0, now)
            return
        if reached > known.phase:
            # Of several that are told of at once, all the time is the first one's.
            function = f"{metadata['namespace']}/{metadata['labels'].get(names.FUNCTION, '')}"
            for index in range(known.phase, reached):
                self._observe(function, _PHASES[index], now - known.at)
                known.at = now
            known.phase = reached
        if reached == len(_PHASES) or "deletionTimestamp" in metadata:
            del self._pods[uid]


_PHASES: tuple[Phase, ...] = ("schedule", "sandbox", "start")


def _passed(pod: Object) -> tuple[bool, bool, bool]:
    """Whether each phase is over; a later one says that those before it are."""
    status: Mapping[str, list[Object]] = pod.get("status", {})
    made = {one["type"] for one in status.get("conditions", ()) if one["status"] == "True"}
    runs = any(
        one["name"] == names.CONTAINER and (one.get("started") or "running" in one.get("state", {}))
        for one in status.get("containerStatuses", ())
    )
    boxed = runs or "PodReadyToStartContainers" in made
    return boxed or bool(pod.get("spec", {}).get("nodeName")), boxed, runs
