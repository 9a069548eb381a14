"""Tells the data path about one function's endpoints, one call at a time, and knows what it has taken in."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from torpor.errors import TorporError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torpor.clock import Clock
    from torpor.endpoint import Endpoint
    from torpor.providers.base import EndpointPublisher

RETRY_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Publication:
    """What should be published last wins; calls never overlap, so none can overtake another."""

    def __init__(self, publisher: EndpointPublisher, clock: Clock, key: str) -> None:
        self._publisher = publisher
        self._clock = clock
        self._key = key
        self._wanted: tuple[Endpoint, ...] = ()
        self._version = 0
        self._taken_in = 0
        self._waiting: dict[int, asyncio.Event] = {}  # by version
        self._task: asyncio.Task[None] | None = None

    def want(self, endpoints: Sequence[Endpoint]) -> asyncio.Event:
        """Have exactly ``endpoints`` published soon; the event is set once they, or later ones, are."""
        if tuple(endpoints) != self._wanted:
            self._wanted = tuple(endpoints)
            self._version += 1
            if self._task is None:
                self._task = asyncio.create_task(self._publish())
        event = self._waiting.setdefault(self._version, asyncio.Event())
        self._tell()
        return event

    async def close(self) -> None:
        """Stop, whatever is still wanted."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _publish(self) -> None:
        try:
            while self._taken_in != self._version:
                version, endpoints = self._version, self._wanted
                try:
                    await self._publisher.publish(self._key, endpoints)
                except TorporError as error:
                    _log.warning("%s: its endpoints could not be published: %s", self._key, error)
                    await self._clock.sleep(RETRY_SECONDS)
                else:
                    self._taken_in = version
                    self._tell()
        finally:
            self._task = None

    def _tell(self) -> None:
        for version in [version for version in self._waiting if version <= self._taken_in]:
            self._waiting.pop(version).set()
