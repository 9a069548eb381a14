"""Puts what the start of a pod took into the traces of the requests that waited for it.

Only gateways know who waits, and only the controller sees how a pod comes to run: it asks them once it has.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from torpor.clock import Clock
    from torpor.controller.podstarts import Part
    from torpor.otlp import Attributes, Tracer
    from torpor.scaling.waiting import Waiting

_MOST_PODS = 100  # that have started and are not told of yet
_MOST_TOLD = 2000  # requests


class PodStartSpans:
    """``waiting`` says who waits, or just did, for the function of a key."""

    def __init__(
        self, tracer: Tracer, clock: Clock, waiting: Callable[[str], Awaitable[Sequence[Waiting]]]
    ) -> None:
        self._tracer = tracer
        self._clock = clock
        self._waiting = waiting
        self._pods: asyncio.Queue[tuple[str, str, Sequence[Part]]] = asyncio.Queue(_MOST_PODS)
        self._told: dict[str, None] = {}

    def started(self, function: str, pod: str, parts: Sequence[Part]) -> None:
        """A pod runs. Of more than can be told of, the last are left out."""
        if not self._pods.full():
            self._pods.put_nowait((function, pod, parts))

    async def run(self) -> None:
        """Go on for ever."""
        while True:
            function, pod, parts = await self._pods.get()
            for one in await self._waiting(function):
                self._tell(one, parts, {"torpor.function": function, "k8s.pod.name": pod})

    def _tell(self, one: Waiting, parts: Sequence[Part], about: Attributes) -> None:
        """A request waited for the pod that ran first: of another one, nothing is told."""
        now = self._clock.monotonic()
        came, epoch = now - one.came_seconds, self._clock.now() - now
        answered = now if one.answered_seconds is None else now - one.answered_seconds
        if one.place.span_id in self._told or not came < parts[-1].ended <= answered:
            return
        while len(self._told) >= _MOST_TOLD:
            del self._told[next(iter(self._told))]
        self._told[one.place.span_id] = None
        for phase, began, ended in parts:
            if ended > came:
                span = self._tracer.begin(
                    phase, "internal", about, parent=one.place, at_seconds=epoch + max(began, came)
                )
                self._tracer.end(span, {}, failure=None, at_seconds=epoch + ended)
