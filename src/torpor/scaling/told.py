"""What is told of the autoscaler's decisions: how they travel to who shows them, and how they look. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import orjson

from torpor.scaling.loop import ScalingState
from torpor.spec.status import ScalingStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torpor.spec.models import FunctionSpec


def encode(states: Mapping[str, ScalingState]) -> bytes:
    """``states`` by function key as JSON, the way a controller tells them at ``GET /scaling``."""
    return orjson.dumps({key: asdict(state) for key, state in states.items()})


def decode(body: bytes) -> dict[str, ScalingState]:
    """What :func:`encode` made; raises ``ValueError`` for anything else."""
    document = orjson.loads(body)
    try:
        return {
            str(key): ScalingState(
                desired=int(state["desired"]),
                observed=None if state["observed"] is None else float(state["observed"]),
                panicking=bool(state["panicking"]),
                reason=str(state["reason"]),
            )
            for key, state in document.items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"no decisions by function: {error!r}") from error


def scaling_status(spec: FunctionSpec, seen: ScalingState | None) -> ScalingStatus:
    """How a function is scaled: what it declares, and the last decision if there is one."""
    return ScalingStatus(
        min_scale=spec.scaling.min_scale,
        max_scale=spec.scaling.max_scale,
        metric=spec.scaling.metric,
        target=spec.target,
        observed=None if seen is None else seen.observed,
        panicking=seen is not None and seen.panicking,
        reason="" if seen is None else seen.reason,
    )
