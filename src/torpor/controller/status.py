"""What a Function says of itself: from pods as they are seen to conditions in words. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torpor.controller import names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torpor.providers.kubernetes.resources import Object

READY = "Ready"
SERVING = "Serving"
PARKING = "Parking"
"""Only there, and ``False``, where a function is to rest parked and can't be."""
_NO_IMAGE = frozenset(("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"))
_LINES = 5
_LONGEST_MESSAGE = 1024


@dataclass(frozen=True, slots=True)
class Trouble:
    """What keeps a revision's pods from running: a word for programs, and words for people."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one function.

    ``trouble`` is what the latest revision suffers from; ``replicas``, ``ready`` and ``parked`` are the
    serving one's. ``taken`` says, in words, which of its routes lead to other functions, and ``hindrance`` is
    what keeps it from being parked.
    """

    generation: int
    latest: str
    serving: str
    replicas: int
    ready: int
    trouble: Trouble | None
    url: str
    selector: str
    taken: str = ""
    parked: bool = False
    hindrance: tuple[str, str] | None = None


def is_ready(pod: Object) -> bool:
    """Whether ``pod`` takes requests."""
    conditions = pod.get("status", {}).get("conditions", ())
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def has_ended(pod: Object) -> bool:
    """Whether ``pod`` will never run again."""
    return pod.get("status", {}).get("phase") in ("Failed", "Succeeded")


def trouble(
    pods: Iterable[Object], deployment: Object | None, logs: Mapping[str, Sequence[str]]
) -> Trouble | None:
    """What keeps the pods of one revision from becoming ready, the worst first; ``None`` while nothing does.

    Pods that were told to end say nothing of that, however they end. ``logs`` has the last lines of pods that
    crashed, by the pod's name.
    """
    stay = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"] and not is_ready(pod)]
    found = [one for pod in stay if (one := _of_pod(pod, logs)) is not None]
    if found:
        return min(found, key=lambda one: _ORDER.index(one.reason))
    for condition in (deployment or {}).get("status", {}).get("conditions", ()):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            message = condition.get("message", "")
            reason = "QuotaExceeded" if "exceeded quota" in message else "PodsRefused"
            return Trouble(reason, _short(f"pods are refused: {message}"))
    return None


_ORDER = (
    *("ImageNotPulled", "ConfigurationMissing", "OutOfMemory", "CrashLoop", "ContainerFailed"),
    *("Unschedulable", "QuotaExceeded", "PodsRefused"),
)


def _of_pod(pod: Object, logs: Mapping[str, Sequence[str]]) -> Trouble | None:
    status = pod.get("status", {})
    for container in status.get("containerStatuses", ()):
        if container["name"] == names.CONTAINER:
            found = _of_container(container, logs.get(pod["metadata"]["name"], ()))
            if found is not None:
                return found
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return Trouble("Unschedulable", _short(f"no node takes the pod: {condition.get('message', '')}"))
    return None


def _of_container(container: Object, lines: Sequence[str]) -> Trouble | None:
    waiting = container.get("state", {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _NO_IMAGE:
        return Trouble("ImageNotPulled", _short(f"the image {container['image']} is not pulled: {message}"))
    if reason == "CreateContainerConfigError":
        return Trouble("ConfigurationMissing", _short(f"the container can't be made: {message}"))
    if reason in ("CreateContainerError", "RunContainerError"):
        return Trouble("ContainerFailed", _short(f"the container can't be started: {message}"))
    ended = container.get("state", {}).get("terminated") or (
        container.get("lastState", {}).get("terminated") if container.get("restartCount") else None
    )
    if not ended or (ended.get("exitCode") == 0 and reason != "CrashLoopBackOff"):
        return None
    if ended.get("reason") == "OOMKilled":
        return Trouble("OutOfMemory", "the container was ended for using more memory than its limit")
    text = f"the container ended with exit code {ended.get('exitCode')}"
    said = " | ".join(line.strip() for line in lines[-_LINES:] if line.strip())
    return Trouble("CrashLoop", _short(f"{text}; it last wrote: {said}" if said else text))


def crashed(pod: Object) -> bool:
    """Whether the last lines of ``pod`` say why it does not run."""
    for container in pod.get("status", {}).get("containerStatuses", ()):
        if container["name"] == names.CONTAINER and not is_ready(pod):
            state, last = container.get("state", {}), container.get("lastState", {})
            return bool(state.get("terminated") or (container.get("restartCount") and last.get("terminated")))
    return False


def function_status(facts: Facts, before: Mapping[str, Any], now: str) -> dict[str, Any]:
    """The whole status of a function; ``before`` is the one it has, and ``now`` the time as text."""
    ready = _ready(facts, before)
    if facts.taken and ready[0] != "False":  # it runs, or can: only not for all that it declares
        ready = "False", "RouteTaken", _short(facts.taken)
    serving = _serving(facts)
    told = [(READY, *ready), (SERVING, *serving)]
    if facts.hindrance is not None:
        reason, message = facts.hindrance
        told.append((PARKING, "False", reason, _short(f"{message}; it rests at zero")))
    conditions = [_condition(one, facts.generation, before, now) for one in told]
    return {
        "observedGeneration": facts.generation,
        "conditions": conditions,
        "revision": facts.serving,
        "latestRevision": facts.latest,
        "instances": facts.ready,
        "url": facts.url,
        "selector": facts.selector,
    }


def _ready(facts: Facts, before: Mapping[str, Any]) -> tuple[str, str, str]:
    goes_on = f"; {facts.serving} serves on" if facts.serving != facts.latest else ""
    if facts.trouble is not None and not (facts.serving == facts.latest and facts.ready):
        return "False", facts.trouble.reason, f"{facts.latest}: {facts.trouble.message}{goes_on}"
    if goes_on:
        return "Unknown", "RollingOut", f"{facts.latest} is being started{goes_on}"
    if facts.ready:
        return "True", *_runs(facts)
    failed = _failed_before(facts, before)
    if failed is not None:  # nothing has shown since that it would do better
        return "False", *failed
    if facts.replicas:
        return "Unknown", "Starting", "its instances are being started"
    return "True", "AtRest", "it rests, and wakes on a request or an event"


def _runs(facts: Facts) -> tuple[str, str]:
    if facts.parked:
        return "Parked", "it rests in one instance that asks for little, and wakes on a request or an event"
    return "Serving", f"{facts.ready} of {max(facts.replicas, facts.ready)} instances are ready"


def _failed_before(facts: Facts, before: Mapping[str, Any]) -> tuple[str, str] | None:
    if before.get("latestRevision") != facts.latest:
        return None
    for one in before.get("conditions", ()):
        if one["type"] == READY and one["status"] == "False" and one["reason"] in _ORDER:
            return one["reason"], one["message"]
    return None


def _serving(facts: Facts) -> tuple[str, str, str]:
    if facts.ready:
        return "True", "Serving", f"{facts.serving} takes requests"
    return "False", "NoInstances", f"{facts.serving} has no instance that is ready"


def refused_status(
    generation: int, reason: str, faults: Sequence[str], before: Mapping[str, Any], now: str
) -> dict[str, Any]:
    """What changes in the status of a resource that is wrong, though the schema let it through, or that the
    API server does not let be run.
    """
    message = _short("; ".join(faults))
    return {
        "observedGeneration": generation,
        "conditions": [_condition((READY, "False", reason, message), generation, before, now)],
    }


def trigger_status(
    generation: int, trouble: Trouble | None, before: Mapping[str, Any], now: str
) -> dict[str, Any]:
    """The status of a trigger; ``trouble`` is what keeps its events, or dead letters, from going anywhere."""
    one = (READY, "True", "Declared", "its events go to its function")
    if trouble is not None:
        one = (READY, "False", trouble.reason, trouble.message)
    return {
        "observedGeneration": generation,
        "conditions": [_condition(one, generation, before, now)],
    }


def schedule_status(
    generation: int,
    before: Mapping[str, Any],
    now: str,
    *,
    suspended: bool,
    problem: str,
    last: str | None,
    upcoming: str | None,
) -> dict[str, Any]:
    """The status of a schedule; ``last`` and ``upcoming`` are planned times, as text."""
    one = (READY, "True", "Declared", "it fires at its times")
    if suspended:
        one = (READY, "True", "Suspended", "it rests until it is not suspended any more")
    elif problem:
        one = (READY, "False", "NotFiring", _short(problem))
    elif upcoming is None:
        one = (READY, "False", "NothingPlanned", "there is no time left at which it comes due")
    times = {"lastFiringTime": last, "nextFiringTime": upcoming}
    return {
        "observedGeneration": generation,
        "conditions": [_condition(one, generation, before, now)],
        **{name: text for name, text in times.items() if text is not None},
    }


def condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """The condition of type ``kind`` in a status."""
    return next((one for one in status.get("conditions", ()) if one["type"] == kind), None)


def _condition(
    one: tuple[str, str, str, str], generation: int, before: Mapping[str, Any], now: str
) -> dict[str, Any]:
    kind, status, reason, message = one
    known = condition(before, kind)
    since = known["lastTransitionTime"] if known is not None and known["status"] == status else now
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
        "observedGeneration": generation,
    }


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[: _LONGEST_MESSAGE - 3]}..."
