"""Follows pods from the moment they are made until their container runs, by when it is told of it. Pure.

A pod's own times have whole seconds; the watch tells of each change some milliseconds after it. Only pods
that are seen before they have a node are followed: of others it is not known when they began.

A kubelet tells of a pod's network and of its container mostly at once, after all of it. So how long the image
was pulled is known from elsewhere, maybe later than that the container runs, and is taken out of them: they
are counted once both are known, or once the pod is ready or ends, after which nobody waits for that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from torpor.controller import names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torpor.providers.kubernetes.resources import Object
    from torpor.scaling.coldstart import Phase

_MOST = 1000  # pods that are being started


class Part(NamedTuple):
    """One phase of a pod's start, from and to times (monotonic seconds)."""

    phase: Phase
    began: float
    ended: float


@dataclass(slots=True)
class _Pod:
    function: str
    name: str
    born: float
    at: float
    took: list[float] = field(default_factory=list)
    """Seconds of the phases that are over: until it had a node, its sandbox, and until its container ran."""
    pulled_seconds: float | None = None

    @property
    def runs(self) -> bool:
        return len(self.took) == 3


class PodStarts:
    """``observe`` gets the function's key, a phase and its seconds; ``started`` the key, the pod's name and
    all phases of a pod whose container runs.
    """

    def __init__(
        self,
        observe: Callable[[str, Phase, float], None],
        started: Callable[[str, str, Sequence[Part]], None] = lambda *_: None,
    ) -> None:
        self._observe = observe
        self._started = started
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
                self._pods[uid] = _Pod(function, metadata["name"], now, now)
            return
        while len(known.took) < reached:
            # Of several that are told of at once, all the time is the first one's.
            known.took.append(now - known.at)
            known.at = now
            if len(known.took) == 1:
                self._observe(known.function, "schedule", known.took[0])
        if ends or (known.runs and (known.pulled_seconds is not None or "Ready" in made)):
            self._settle(uid)

    def pulled(self, uid: str, seconds: float) -> None:
        """The image of the pod of that uid was waited for so long; 0 if it was there."""
        known = self._pods.get(uid)
        if known is None or known.pulled_seconds is not None:
            return  # what restarts has its image
        known.pulled_seconds = seconds
        if known.runs:
            self._settle(uid)

    def _settle(self, uid: str) -> None:
        """Count what is known of a pod, and follow it no longer."""
        pod = self._pods.pop(uid)
        if not pod.runs:
            for seconds in pod.took[1:]:
                self._observe(pod.function, "sandbox", seconds)
            return
        parts = _parts(pod)
        for phase, began, ended in parts[1:]:
            self._observe(pod.function, phase, ended - began)
        self._started(pod.function, pod.name, parts)


def _parts(pod: _Pod) -> list[Part]:
    schedule, sandbox, start = pod.took
    # It was pulled between these. What the start is too short for was told of with the sandbox.
    whole = sandbox + start
    pull = min(pod.pulled_seconds or 0.0, whole)
    start = max(0.0, start - pull)
    parts: list[Part] = []
    at = pod.born
    lengths: list[tuple[Phase, float]] = [
        ("schedule", schedule),
        ("sandbox", max(0.0, whole - pull - start)),
        ("pull", pull),
        ("start", start),
    ]
    for phase, seconds in lengths:
        if phase != "pull" or seconds > 0:  # there is none where the image is
            parts.append(Part(phase, at, at + seconds))
        at += seconds
    return parts


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
