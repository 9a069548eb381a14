"""Follows pods from the moment they are made until their container runs, by when it is told of it. Pure.

A pod's own times have whole seconds; the watch tells of each change some milliseconds after it. Only pods
that are seen before they have a node are followed: of others it is not known when they began.

A kubelet tells of a pod's network and of its container mostly at once, after all of it. So how long the image
was pulled is known from elsewhere, maybe later than that the container runs, and is taken out of them: they
are counted once both are known, or once the pod is ready or ends, after which nobody waits for that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torpor.controller import names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torpor.providers.kubernetes.resources import Object
    from torpor.scaling.coldstart import Phase

_MOST = 1000  # pods that are being started


@dataclass(slots=True)
class _Pod:
    function: str
    at: float
    phases: int = 0
    """How many are over."""
    pulled_seconds: float | None = None
    waiting: list[float] = field(default_factory=list)
    """Seconds of the phases that are over and not counted yet: the sandbox, the start."""


class PodStarts:
    """``observe`` gets the function's key, a phase and its seconds."""

    def __init__(self, observe: Callable[[str, Phase, float], None]) -> None:
        self._observe = observe
        self._pods: dict[str, _Pod] = {}

    def see(self, pod: Object, now: float) -> None:
        """What is known of ``pod`` at ``now`` (monotonic seconds)."""
        metadata = pod["metadata"]
        uid, ends = metadata["uid"], "deletionTimestamp" in metadata
        made = _conditions(pod)
        reached = sum(_passed(pod, made))
        known = self._pods.get(uid)
        if known is None:
            if reached == 0 and not ends:
                while len(self._pods) >= _MOST:
                    self._settle(next(iter(self._pods)))
                function = f"{metadata['namespace']}/{metadata['labels'].get(names.FUNCTION, '')}"
                self._pods[uid] = _Pod(function, now)
            return
        while known.phases < reached:
            # Of several that are told of at once, all the time is the first one's.
            if known.phases == 0:
                self._observe(known.function, "schedule", now - known.at)
            else:
                known.waiting.append(now - known.at)
            known.at = now
            known.phases += 1
        runs = known.phases == _PHASES
        if ends or (runs and (known.pulled_seconds is not None or "Ready" in made)):
            self._settle(uid)

    def pulled(self, uid: str, seconds: float) -> None:
        """The image of the pod of that uid was waited for so long; 0 if it was there."""
        known = self._pods.get(uid)
        if known is None or known.pulled_seconds is not None:
            return  # what restarts has its image
        known.pulled_seconds = seconds
        if known.phases == _PHASES:
            self._settle(uid)

    def _settle(self, uid: str) -> None:
        """Count what is known of a pod, and follow it no longer."""
        pod = self._pods.pop(uid)
        if not pod.waiting:
            return
        if len(pod.waiting) == 1:
            self._observe(pod.function, "sandbox", pod.waiting[0])
            return
        sandbox, start = pod.waiting
        # It was pulled between them. What the start is too short for was told of with the sandbox.
        whole = sandbox + start
        pull = min(pod.pulled_seconds or 0.0, whole)
        start = max(0.0, start - pull)
        self._observe(pod.function, "sandbox", max(0.0, whole - pull - start))
        if pull > 0:
            self._observe(pod.function, "pull", pull)
        self._observe(pod.function, "start", start)


_PHASES = 3  # schedule, sandbox, start


def _conditions(pod: Object) -> set[str]:
    """The types of those that hold."""
    return {one["type"] for one in pod.get("status", {}).get("conditions", ()) if one["status"] == "True"}


def _passed(pod: Object, made: set[str]) -> tuple[bool, bool, bool]:
    """Whether each phase is over; a later one says that those before it are."""
    status: Mapping[str, list[Object]] = pod.get("status", {})
    runs = any(
        one["name"] == names.CONTAINER and (one.get("started") or "running" in one.get("state", {}))
        for one in status.get("containerStatuses", ())
    )
    boxed = runs or "PodReadyToStartContainers" in made
    return boxed or bool(pod.get("spec", {}).get("nodeName")), boxed, runs
