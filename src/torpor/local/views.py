"""What ``/api/v1`` shows of functions. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from torpor.providers.base import InstanceState
from torpor.scaling.told import scaling_status
from torpor.spec.status import FunctionStatus, InstanceStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torpor.providers.base import FunctionState, Instance
    from torpor.scaling.loop import ScalingState
    from torpor.spec.models import Function


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one function beside its declaration."""

    url: str
    declared_in: str
    state: FunctionState | None
    instances: Sequence[Instance]
    scaling: ScalingState | None
    requests: int
    problem: str | None
    """What keeps its newest version from running, whether or not an older one runs."""


def function_status(function: Function, facts: Facts) -> FunctionStatus:
    """The view of ``function``."""
    spec, state = function.spec, facts.state
    broken = facts.problem or (state.problem if state else None)
    ready = state is not None and state.problem is None
    return FunctionStatus(
        name=function.metadata.name,
        namespace=function.metadata.namespace,
        labels=function.metadata.labels,
        url=facts.url,
        ready=ready,
        reason=_reason(facts, broken=broken, ready=ready),
        revision=state.revision if state else None,
        desired=state.desired if state else 0,
        instances=tuple(_instance(one) for one in facts.instances),
        start_method=state.start_method if state else None,
        restarts=state.restarts if state else 0,
        requests=facts.requests,
        source=str(spec.code.path),
        handler=spec.code.handler,
        declared_in=facts.declared_in,
        container_concurrency=spec.container_concurrency,
        timeout_seconds=spec.timeout_seconds,
        scaling=scaling_status(spec, facts.scaling),
    )


def _reason(facts: Facts, *, broken: str | None, ready: bool) -> str:
    if broken and ready:
        return f"the version before goes on: {broken}"
    if broken:
        return broken
    if facts.state is None:
        return "not started yet"
    serving = sum(one.state is InstanceState.READY for one in facts.instances)
    if serving:
        return "serving"
    return "waking" if facts.state.desired else "at rest"


def _instance(one: Instance) -> InstanceStatus:
    return InstanceStatus(
        id=one.id,
        revision=one.revision,
        state=one.state.value,
        endpoint=str(one.endpoint),
        pid=one.pid,
        started_at=_time(one.started_at),
        ready_at=None if one.ready_at is None else _time(one.ready_at),
        memory_bytes=one.memory_bytes,
    )


def removed_in_words(waiting: int) -> str:
    """What is said of a trigger that is not declared any more, for which so many events waited."""
    if not waiting:
        return "trigger no longer declared"
    events = "1 event that waited" if waiting == 1 else f"{waiting} events that waited"
    return f"trigger no longer declared; {events} for it can be had by `torpor events replay`, for a day"


def scale_in_words(ready: int, desired: int) -> str:
    """How many instances there are, and should be."""
    if ready == desired == 0:
        return "at rest"
    return f"{ready} of {desired}" if ready != desired else str(ready)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
