"""Requests that wait for a function to start, as a gateway tells of those that are traced."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import orjson

from torpor.tracing import Trace, parse

if TYPE_CHECKING:
    from collections.abc import Iterable


class Waiting(NamedTuple):
    """One request: its place in a trace, how long ago it came and, if it was, was answered (seconds)."""

    place: Trace
    came_seconds: float
    answered_seconds: float | None


def encode_waiting(waiting: Iterable[Waiting]) -> bytes:
    """``waiting`` as JSON, the way a gateway tells it at ``GET /waiting?KEY``."""
    return orjson.dumps(
        [
            {**one.place.attributes(), "came": one.came_seconds, "answered": one.answered_seconds}
            for one in waiting
        ]
    )


def decode_waiting(body: bytes) -> list[Waiting]:
    """What :func:`encode_waiting` made; raises ``ValueError`` for anything else."""
    found = []
    try:
        for one in orjson.loads(body):
            place = parse(one["traceparent"], one.get("tracestate", ""))
            answered = one["answered"]
            if place is None:
                raise ValueError(f"no place in a trace: {one['traceparent']!r}")
            found.append(Waiting(place, float(one["came"]), None if answered is None else float(answered)))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"no requests that wait: {error!r}") from error
    return found
