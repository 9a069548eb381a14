"""What a controller that leads tells of its decisions: how they travel to who shows them. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import orjson

from torpor.scaling.loop import ScalingState

if TYPE_CHECKING:
    from collections.abc import Mapping


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
