"""What the events pods tell: what waits for triggers, and when schedules fired or why they did not."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

import orjson

from torpor.controller import names
from torpor.controller.loads import agent
from torpor.controller.status import is_ready
from torpor.errors import ClusterUnreachableError, TransportError
from torpor.events.declaration import EventsState, ScheduleReport
from torpor.providers.kubernetes.mirror import Mirror
from torpor.providers.kubernetes.resources import PODS
from torpor.scaling.backlog import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torpor.clock import Clock
    from torpor.endpoint import Endpoint
    from torpor.providers.kubernetes.kube import Kube
    from torpor.scaling.backlog import Backlog
    from torpor.transport.client import Client

T = TypeVar("T")
_LOG = logging.getLogger("torpor.controller")
_TIMEOUT_SECONDS = 4.0
"""Longer than an events pod looks for what it then says it does not know, which is two seconds."""
_FRESH_SECONDS = 5.0
"""How long an answer holds for schedules: those that fire together are looked at together."""


class EventsPods:
    """Asks every events pod in ``namespace`` that is ready."""

    def __init__(self, kube: Kube, client: Client, clock: Clock, namespace: str) -> None:
        self._client = client
        self.mirror = Mirror(
            kube, PODS, clock, lambda _: None, namespace=namespace, labels=names.part("events")
        )

    async def states(self) -> Sequence[EventsState]:
        """The state of each pod that answers; ``ClusterUnreachableError`` when none does."""
        return await self._told(b"GET", b"/state", b"", EventsState.model_validate_json)

    async def backlogs(self, wanted: Mapping[str, bool]) -> Sequence[Mapping[str, Backlog]]:
        """What each pod that answers says of triggers, by their keys; ``wanted`` says whether by age too.

        Raises :class:`~torpor.errors.ClusterUnreachableError` when none does.
        """
        return await self._told(b"POST", b"/backlogs", orjson.dumps(wanted), decode)

    async def _told(
        self, method: bytes, path: bytes, body: bytes, parse: Callable[[bytes], T]
    ) -> Sequence[T]:
        async def ask(endpoint: Endpoint) -> T | None:
            try:
                response = await self._client.request(
                    endpoint, method, path, b"", body, timeout_seconds=_TIMEOUT_SECONDS
                )
                return parse(response.body) if response.status == 200 else None
            except (TransportError, ValueError) as error:  # pydantic's errors are such
                _LOG.info("the events pod at %s does not tell %s: %s", endpoint, path.decode(), error)
                return None

        pods = [pod for pod in self.mirror.items.values() if is_ready(pod)]
        endpoints = [endpoint for pod in pods if (endpoint := agent(pod)) is not None]
        told = [answer for answer in await asyncio.gather(*map(ask, endpoints)) if answer is not None]
        if not told:
            raise ClusterUnreachableError(f"none of {len(endpoints)} events pods tells {path.decode()}")
        return told


class Firings:
    """What ``pods`` say of schedules, asked now and then."""

    def __init__(self, pods: EventsPods, clock: Clock) -> None:
        self._pods = pods
        self._clock = clock
        self._asking = asyncio.Lock()
        self._asked_at: float | None = None
        self._found: dict[str, ScheduleReport] = {}

    async def of(self, key: str) -> ScheduleReport | None:
        """What is told of one schedule, by the pod that knows of its newest firing; nothing if none does."""
        async with self._asking:
            now = self._clock.monotonic()
            if self._asked_at is None or now - self._asked_at >= _FRESH_SECONDS:
                self._asked_at, self._found = now, await self._ask_all()
        return self._found.get(key)

    async def _ask_all(self) -> dict[str, ScheduleReport]:
        found: dict[str, ScheduleReport] = {}
        try:
            states = await self._pods.states()
        except ClusterUnreachableError:
            return found
        for state in states:
            for key, report in state.schedules.items():
                known = found.get(key)
                if known is None or _last(report) >= _last(known):
                    found[key] = report
        return found


def _last(report: ScheduleReport) -> float:
    return report.last.timestamp() if report.last is not None else 0.0
