"""What is observed of one function's traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torpor.endpoint import Endpoint


class Load(NamedTuple):
    """A sample of one function's traffic, over all its instances.

    ``concurrency`` is how many requests are under way, those that are held included; ``requests_total`` how
    many there have been since the data path started. A total that has become smaller means that it started
    anew. ``backlog`` is how many events wait for it or are under way, and ``oldest_seconds`` for how long the
    oldest has waited that was not begun, where that is looked at.
    """

    concurrency: float
    requests_total: int
    backlog: int = 0
    oldest_seconds: float = 0.0


def encode(loads: Mapping[str, Load]) -> bytes:
    """``loads`` by function key as JSON, the way a gateway tells them at ``GET /loads``."""
    return orjson.dumps(
        {
            key: {"concurrency": load.concurrency, "requests_total": load.requests_total}
            for key, load in loads.items()
        }
    )


def encode_active(active: Mapping[Endpoint, int]) -> bytes:
    """Requests under way by instance as JSON, the way a gateway tells them at ``GET /active?KEY``."""
    return orjson.dumps({str(endpoint): number for endpoint, number in active.items()})


def decode_active(body: bytes) -> dict[str, int]:
    """What :func:`encode_active` made, by ``host:port``; raises ``ValueError`` for anything else."""
    document = orjson.loads(body)
    try:
        return {str(endpoint): int(number) for endpoint, number in document.items()}
    except (AttributeError, TypeError) as error:
        raise ValueError(f"no requests by instance: {error!r}") from error


def decode(body: bytes) -> dict[str, Load]:
    """What :func:`encode` made; raises ``ValueError`` for anything else."""
    document = orjson.loads(body)
    try:
        return {
            str(key): Load(float(load["concurrency"]), int(load["requests_total"]))
            for key, load in document.items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"no loads by function: {error!r}") from error
