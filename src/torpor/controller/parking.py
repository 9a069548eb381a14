"""How a function rests on a cluster: parked first, with one small pod, and at zero after a while. Pure.

============  ===================  =========================  ====================================
is            instances wanted     none, may be parked        none, may not, or parked long enough
============  ===================  =========================  ====================================
at zero       active               at zero                    at zero
active        active               parked: one pod, marked    at zero
parked        active, mark away    parked                     at zero, mark away
============  ===================  =========================  ====================================

============  ===================================================  ==========================
pod           while active                                         while parked
============  ===================================================  ==========================
full          stays                                                shrinks, once it is ready and alone
small         grows; it serves all the while                       stays
stuck         one more pod starts, and this one goes when it runs  shrinks
============  ===================================================  ==========================

A pod is small when it asks for less than its revision does, and stuck when its node can't grow it. Nothing is
remembered but the mark on the Deployment, which says since when it rests: it is written, or taken away, in
one write with the number of replicas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from torpor.controller import names
from torpor.spec.values import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torpor.providers.kubernetes.resources import Object

PARKED_CPU = "1m"
"""CPU that a parked pod asks for: the least that Kubernetes knows."""
# What the metrics API says is up to a minute old, and a resting process still breathes.
_HELD_MARGIN = 1.1
_MIB = 1024**2
_STUCK = ("Deferred", "Infeasible")


class Rest(StrEnum):
    """How a function is, or should be."""

    ZERO = "zero"
    ACTIVE = "active"
    PARKED = "parked"


class Size(StrEnum):
    """What a pod asks for, beside what its revision declares."""

    FULL = "full"
    SMALL = "small"
    STUCK = "stuck"


class Wish(StrEnum):
    """What the autoscaler's number comes to."""

    RUN = "run"
    PARK = "park"
    END = "end"


NEXT: Mapping[tuple[Rest, Wish], Rest] = {
    (Rest.ZERO, Wish.RUN): Rest.ACTIVE,
    (Rest.ZERO, Wish.PARK): Rest.ZERO,
    (Rest.ZERO, Wish.END): Rest.ZERO,
    (Rest.ACTIVE, Wish.RUN): Rest.ACTIVE,
    (Rest.ACTIVE, Wish.PARK): Rest.PARKED,
    (Rest.ACTIVE, Wish.END): Rest.ZERO,
    (Rest.PARKED, Wish.RUN): Rest.ACTIVE,
    (Rest.PARKED, Wish.PARK): Rest.PARKED,
    (Rest.PARKED, Wish.END): Rest.ZERO,
}
_RESIZE: Mapping[tuple[Rest, Size], Size] = {
    (Rest.ACTIVE, Size.SMALL): Size.FULL,
    (Rest.PARKED, Size.FULL): Size.SMALL,
    (Rest.PARKED, Size.STUCK): Size.SMALL,
}


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod that is not about to end."""

    name: str
    ready: bool
    size: Size


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the revision that serves. Times are seconds since the epoch.

    ``desired`` is the autoscaler's number, ``since`` the mark, and ``may_park`` whether the function is to be
    parked, and can be.
    """

    desired: int
    replicas: int
    since: float | None
    may_park: bool
    parked_for_seconds: float
    now: float
    pods: Sequence[Pod]


@dataclass(frozen=True, slots=True)
class Decision:
    """What should be: the number of replicas and the mark, and by name the pods to be resized.

    Growing comes first, before anything else is written, and shrinking last. ``again_seconds`` is when time
    alone will change something.
    """

    rest: Rest
    replicas: int
    since: float | None
    resize: Mapping[str, Size]
    again_seconds: float | None


def decide(facts: Facts) -> Decision:
    """The decision for one function."""
    left = None if facts.since is None else facts.since + facts.parked_for_seconds - facts.now
    if facts.desired > 0:
        wish = Wish.RUN
    elif facts.may_park and (left is None or left > 0):
        wish = Wish.PARK
    else:
        wish = Wish.END
    rest = NEXT[_is(facts), wish]
    since = (facts.now if facts.since is None else facts.since) if rest is Rest.PARKED else None
    return Decision(
        rest=rest,
        replicas={Rest.ZERO: 0, Rest.PARKED: 1}.get(rest, _replicas(facts)),
        since=since,
        resize=_resized(facts, rest),
        again_seconds=None if since is None else max(0.0, since + facts.parked_for_seconds - facts.now),
    )


def _is(facts: Facts) -> Rest:
    if facts.replicas == 0:
        return Rest.ZERO
    return Rest.ACTIVE if facts.since is None else Rest.PARKED


def _replicas(facts: Facts) -> int:
    """As many as are wanted, and one for each that is stuck until the others are enough."""
    stuck = sum(pod.size is Size.STUCK for pod in facts.pods)
    others = sum(pod.ready and pod.size is not Size.STUCK for pod in facts.pods)
    return facts.desired if others >= facts.desired else facts.desired + stuck


def _resized(facts: Facts, rest: Rest) -> Mapping[str, Size]:
    if rest is Rest.PARKED and (len(facts.pods) > 1 or not all(pod.ready for pod in facts.pods)):
        return {}  # those that are too many go first, and one that is starting needs what it asks for
    return {pod.name: size for pod in facts.pods if (size := _RESIZE.get((rest, pod.size))) is not None}


# --- reading objects --------------------------------------------------------------------------------------


def requests(deployment: Object) -> dict[str, str]:
    """What each pod of a revision asks for, as its Deployment has it."""
    containers = deployment["spec"]["template"]["spec"]["containers"]
    return dict(_resources(containers).get("requests") or {})


def size_of(pod: Object, full: Mapping[str, str]) -> Size:
    """How a pod stands to the requests that it should have while it works."""
    asked = _resources(pod["spec"]["containers"]).get("requests") or {}
    if any(parse_quantity(asked.get(name, "0")) != parse_quantity(amount) for name, amount in full.items()):
        return Size.SMALL
    pending = any(
        one["type"] == "PodResizePending" and one["status"] == "True" and one.get("reason") in _STUCK
        for one in pod.get("status", {}).get("conditions", ())
    )
    return Size.STUCK if pending else Size.FULL


def parked_requests(full: Mapping[str, str], held_bytes: int | None) -> dict[str, str]:
    """What a parked pod asks for: next to no CPU, and the memory that it holds.

    That is never more than what it asks for at work, and just that while nobody knows what it holds.
    """
    parked = dict(full)
    if "cpu" in full:
        parked["cpu"] = min(full["cpu"], PARKED_CPU, key=parse_quantity)
    if "memory" in full and held_bytes is not None:
        held = f"{max(1, math.ceil(held_bytes * _HELD_MARGIN / _MIB))}Mi"
        parked["memory"] = min(held, full["memory"], key=parse_quantity)
    return parked


def held_bytes(metrics: Object | None) -> int | None:
    """What the function's container holds, by the metrics API's answer for its pod."""
    for container in (metrics or {}).get("containers", ()):
        if container["name"] == names.CONTAINER and "memory" in container.get("usage", {}):
            return int(parse_quantity(container["usage"]["memory"]))
    return None


def hindrance(deployment: Object, *, resizable: bool, refused: str | None) -> tuple[str, str] | None:
    """What keeps a function from being parked: a word for programs, and words for people.

    ``resizable`` is whether the API server can resize pods, and ``refused`` what it said of the last try.
    """
    if not resizable:
        return "NoResize", "this cluster can't resize pods in place (Kubernetes 1.33 can)"
    limits, asked = _resources(deployment["spec"]["template"]["spec"]["containers"]), requests(deployment)
    most = limits.get("limits") or {}
    if all(
        name in most and name in asked and parse_quantity(most[name]) == parse_quantity(asked[name])
        for name in ("cpu", "memory")
    ):
        # Kubernetes keeps the class of a pod; with its limits, a parked one would be throttled to nothing.
        return "Guaranteed", "its requests are its limits, so that its pods can't ask for less"
    if refused is not None:
        return "ResizeRefused", refused
    return None


def _resources(containers: Sequence[Object]) -> Object:
    [container] = [one for one in containers if one["name"] == names.CONTAINER] or [{}]
    found: Object = container.get("resources") or {}
    return found
