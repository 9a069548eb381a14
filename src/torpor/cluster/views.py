"""What ``/api/v1`` shows of functions, triggers and the platform's own pods in a cluster. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from torpor.controller import names
from torpor.controller.status import READY, SERVING, condition, has_ended, is_ready
from torpor.endpoint import Endpoint
from torpor.errors import DeclarationError
from torpor.events import views
from torpor.events.declaration import EventsState, ScheduleReport, TriggerReport
from torpor.scaling.told import scaling_status
from torpor.spec.models import FunctionSpec
from torpor.spec.objects import function_of, schedule_of, trigger_of
from torpor.spec.status import FunctionStatus, InstanceStatus, PartStatus, ScheduleStatus, TriggerStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torpor.providers.kubernetes.resources import Object
    from torpor.scaling.loop import ScalingState
    from torpor.spec.status import EventCounts

COMPONENTS = ("api", "controller", "events", "gateway")
"""What a platform has pods of, in any case."""
_WRONG = frozenset(("Invalid", "Refused"))
_VERSION = "app.kubernetes.io/version"
_EPOCH = "1970-01-01T00:00:00Z"
_NOT_EVERYWHERE = "not at work in every events pod yet"
_TOO_OLD = "the controller has not looked at it yet"


# --- functions --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one function beside its object."""

    url: str
    pods: Sequence[Object]
    requests: int
    scaling: ScalingState | None
    """What the controller that leads has decided, if it says so."""


def function_status(item: Object, facts: Facts) -> FunctionStatus:
    """The view of the Function ``item``; of one that is wrong, too."""
    metadata, status = item["metadata"], item.get("status", {})
    try:
        spec = function_of(item).spec
    except DeclarationError as error:
        spec, wrong = FunctionSpec(), "; ".join(error.faults)
    else:
        wrong = ""
    pods = [pod for pod in facts.pods if not has_ended(pod)]
    ready, reason = _state(item, pods, wrong)
    revision = status.get("revision")
    staying = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    serving = [pod for pod in staying if pod["metadata"]["labels"].get(names.REVISION) == revision]
    return FunctionStatus(
        name=metadata["name"],
        namespace=metadata["namespace"],
        labels=metadata.get("labels") or {},
        url=status.get("url") or facts.url,
        ready=ready,
        reason=reason,
        revision=revision,
        desired=len(serving) if facts.scaling is None else facts.scaling.desired,
        instances=tuple(_instance(pod) for pod in sorted(pods, key=_age)),
        restarts=sum(_restarts(pod) for pod in pods),
        requests=facts.requests,
        image=item.get("spec", {}).get("image"),
        source="",
        handler="",
        declared_in="",
        container_concurrency=spec.container_concurrency,
        timeout_seconds=spec.timeout_seconds,
        scaling=scaling_status(spec, facts.scaling),
    )


def _state(item: Object, pods: Sequence[Object], wrong: str) -> tuple[bool, str]:
    """Whether a call would be served, and the function's state in a few words."""
    status = item.get("status", {})
    told, serving = condition(status, READY), condition(status, SERVING)
    runs = any(is_ready(pod) for pod in pods) or (serving is not None and serving["status"] == "True")
    if wrong or (told is not None and told["status"] == "False"):
        problem = wrong or (told["message"] if told is not None else "")
        return runs, f"the version before goes on: {problem}" if runs else problem
    if told is None or told.get("observedGeneration", 0) < item["metadata"].get("generation", 0):
        return runs, _TOO_OLD
    if told["reason"] == "RollingOut":
        return True, str(told["message"])
    if told["reason"] == "Parked":
        return True, "at rest, parked"
    if runs:
        return True, "serving"
    return True, "waking" if any("deletionTimestamp" not in pod["metadata"] for pod in pods) else "at rest"


def _instance(pod: Object) -> InstanceStatus:
    metadata, status = pod["metadata"], pod.get("status", {})
    since = condition(status, "Ready")
    ready = is_ready(pod)
    leaving = "deletionTimestamp" in metadata
    host = status.get("podIP")
    return InstanceStatus(
        id=metadata["name"],
        revision=metadata["labels"].get(names.REVISION, ""),
        state="draining" if leaving else "ready" if ready else "starting",
        endpoint=str(Endpoint(host, names.PORT)) if host else "",
        started_at=_time(_age(pod)),
        ready_at=_time(since["lastTransitionTime"]) if ready and since and _has_time(since) else None,
    )


def _has_time(one: Mapping[str, Any]) -> bool:
    return one.get("lastTransitionTime") is not None


# --- events -----------------------------------------------------------------------------------------------


def events_sum(states: Sequence[EventsState]) -> EventsState:
    """What the events pods tell, together.

    What waits is not added up: it is what the event log says of the consumer that they share. What one of
    them does not know yet is not at work: a producer may be sent to that one.
    """
    published: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    triggers: dict[str, TriggerReport] = {}
    schedules: dict[str, ScheduleReport] = {}
    for state in states:
        published.update(state.published_by_broker)
        refused.update(state.refused)
        for key, report in state.triggers.items():
            before = triggers.get(key, TriggerReport())
            triggers[key] = TriggerReport(
                delivered=before.delivered + report.delivered,
                redelivered=before.redelivered + report.redelivered,
                failed=before.failed + report.failed,
                dead_lettered=before.dead_lettered + report.dead_lettered,
                pending=max(before.pending, report.pending),
                problem=before.problem or report.problem,
            )
        for key, one in state.schedules.items():
            schedules[key] = _together(schedules.get(key, ScheduleReport()), one)
    for key, whole in triggers.items():
        if not (whole.problem or all(key in state.triggers for state in states)):
            triggers[key] = whole.model_copy(update={"problem": _NOT_EVERYWHERE})
    return EventsState(
        published_by_broker=dict(published), triggers=triggers, schedules=schedules, refused=dict(refused)
    )


def _together(one: ScheduleReport, other: ScheduleReport) -> ScheduleReport:
    """What two pods tell of one schedule. Each firing counts with the pod whose event the broker took."""
    newer = max(one, other, key=lambda report: report.last.timestamp() if report.last else 0.0)
    late = [report.late_seconds for report in (one, other) if report.late_seconds is not None]
    return ScheduleReport(
        fired=one.fired + other.fired,
        missed=one.missed + other.missed,
        last=newer.last,
        next=min((report.next for report in (one, other) if report.next), default=None),
        late_seconds=min(late, default=None),
        problem=one.problem or other.problem,
    )


def schedule_status(item: Object, report: ScheduleReport | None) -> ScheduleStatus:
    """The view of the Schedule ``item``; of one that is wrong, too."""
    metadata, spec = item["metadata"], item.get("spec", {})
    try:
        return views.schedule_status(schedule_of(item), report)
    except DeclarationError as error:
        return ScheduleStatus(
            name=metadata["name"],
            namespace=metadata["namespace"],
            cron=str(spec.get("cron", "")),
            time_zone=str(spec.get("timeZone", "UTC")),
            broker=str(spec.get("broker", "default")),
            event_type=str((spec.get("event") or {}).get("type") or f"{metadata['name']}.fired"),
            missed_policy=str(spec.get("missed", "skip")),
            suspended=bool(spec.get("suspend", False)),
            ready=False,
            reason="; ".join(error.faults),
        )


def trigger_status(item: Object, counts: EventCounts | None, problem: str) -> TriggerStatus:
    """The view of the Trigger ``item``; of one that is wrong, too."""
    metadata, spec = item["metadata"], item.get("spec", {})
    told = condition(item.get("status", {}), READY)
    if told is not None and told["status"] == "False":
        problem = told["message"]
    try:
        return views.trigger_status(trigger_of(item), counts, problem)
    except DeclarationError as error:
        return TriggerStatus(
            name=metadata["name"],
            namespace=metadata["namespace"],
            broker=str(spec.get("broker", "default")),
            function=str(spec.get("subscriber", {}).get("function", "")),
            ready=False,
            reason="; ".join(error.faults),
        )


def faults(items: Iterable[Object]) -> tuple[str, ...]:
    """What is wrong with objects that the API server let through, or that it does not let be run."""
    found = []
    for item in items:
        told = condition(item.get("status", {}), READY)
        if told is not None and told["status"] == "False" and told["reason"] in _WRONG:
            metadata = item["metadata"]
            found.append(f"{item['kind']} {metadata['namespace']}/{metadata['name']}: {told['message']}")
    return tuple(sorted(found))


# --- the platform's own pods ------------------------------------------------------------------------------


def parts(pods: Iterable[Object], memory_bytes: Mapping[str, int]) -> tuple[PartStatus, ...]:
    """Each of the platform's ``pods``, and each part that has none; memory is known by a pod's uid."""
    there = sorted(
        (pod for pod in pods if not has_ended(pod)),
        key=lambda pod: (_component(pod), pod["metadata"]["name"]),
    )
    missing = sorted(set(COMPONENTS) - {_component(pod) for pod in there})
    shown = [_part(pod, memory_bytes.get(pod["metadata"]["uid"])) for pod in there]
    return (*shown, *(PartStatus(name=name, healthy=False, detail="it has no pod") for name in missing))


def _part(pod: Object, memory_bytes: int | None) -> PartStatus:
    metadata, status = pod["metadata"], pod.get("status", {})
    leaving = "deletionTimestamp" in metadata
    healthy = is_ready(pod) or leaving
    host = status.get("podIP")
    return PartStatus(
        name=metadata["name"],
        healthy=healthy,
        detail="is ending" if leaving else "" if healthy else _why_not(status),
        address=host,
        version=metadata["labels"].get(_VERSION) or _tag(pod),
        restarts=_restarts(pod),
        memory_bytes=memory_bytes,
    )


def _why_not(status: Mapping[str, Any]) -> str:
    """Why a pod is not ready, in the words that Kubernetes has for it."""
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        state = container.get("state", {})
        waiting = state.get("waiting")
        if waiting and waiting.get("reason") != "PodInitializing":
            return ": ".join(filter(None, (waiting.get("reason"), waiting.get("message"))))
        ended = state.get("terminated")
        if ended and ended.get("exitCode"):
            return f"{container['name']} ended with {ended['exitCode']}"
    scheduled = condition(status, "PodScheduled")
    if scheduled is not None and scheduled["status"] == "False":
        return f"no node takes it: {scheduled.get('message', '')}"
    return "is not ready"


def _tag(pod: Object) -> str | None:
    image = str(pod["spec"]["containers"][0].get("image", "")).partition("@")[0]
    tag = image.rpartition("/")[2].partition(":")[2]
    return tag or None


def _component(pod: Object) -> str:
    return str(pod["metadata"].get("labels", {}).get(names.COMPONENT, ""))


# --- pods -------------------------------------------------------------------------------------------------


def _age(pod: Object) -> str:
    """When it began, as text that sorts by time."""
    return str(pod["metadata"].get("creationTimestamp") or _EPOCH)


def _restarts(pod: Object) -> int:
    return sum(one.get("restartCount", 0) for one in pod.get("status", {}).get("containerStatuses", ()))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
