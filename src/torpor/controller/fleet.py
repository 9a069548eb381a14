"""Between the autoscaler, which decides at once, and the cluster, which is told in a call of its own.

What was decided waits here until it is written; what the cluster says is read from what is mirrored. A number
that somebody else has raised from zero is no fault: a gateway wakes a function by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class ClusterFleet:
    """Keeps :class:`torpor.scaling.loop.Fleet`. ``on_scale`` is told which function has to be looked at."""

    def __init__(self, on_scale: Callable[[str], None], ready: Callable[[str], int]) -> None:
        self._on_scale = on_scale
        self._ready = ready
        self._desired: dict[str, int] = {}
        self._pending: set[str] = set()

    def scale(self, key: str, replicas: int) -> None:
        """See ``torpor.scaling.loop.Fleet``."""
        self._desired[key] = replicas
        self._pending.add(key)
        self._on_scale(key)

    def ready(self, key: str) -> int:
        """See ``torpor.scaling.loop.Fleet``."""
        return self._ready(key)

    def desired(self, key: str) -> int:
        """How many instances the autoscaler wants; 0 while it has not said."""
        return self._desired.get(key, 0)

    def pending(self, key: str) -> int | None:
        """What was decided and is not written yet."""
        return self._desired[key] if key in self._pending else None

    def written(self, key: str, replicas: int) -> None:
        """``replicas`` has been written."""
        if self._desired.get(key) == replicas:
            self._pending.discard(key)

    def forget(self, key: str) -> None:
        """The function is gone."""
        self._desired.pop(key, None)
        self._pending.discard(key)
