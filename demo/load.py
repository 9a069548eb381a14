"""A load of plain HTTP requests: so many at a time, each one timed, every failure kept with its cause."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torpor.errors import TransportError
from torpor.transport import encode_fields

if TYPE_CHECKING:
    from torpor.clock import Clock
    from torpor.endpoint import Endpoint
    from torpor.transport import Client


@dataclass
class Outcome:
    """What came of a load: seconds of each answered request, and how often it failed for which cause."""

    seconds: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        """How many were sent."""
        return len(self.seconds) + self.failures.total()


class Load:
    """Sends GET requests to one address of a gateway."""

    def __init__(self, client: Client, clock: Clock, gateway: Endpoint, target: str) -> None:
        self._client = client
        self._clock = clock
        self._gateway = gateway
        self._target = target.encode()

    async def one(self, outcome: Outcome) -> float:
        """Send one request and note what came of it; returns how many seconds it took."""
        started = self._clock.monotonic()
        fields = encode_fields([(b"host", str(self._gateway).encode())])
        try:
            response = await self._client.request(
                self._gateway, b"GET", self._target, fields, b"", timeout_seconds=60.0
            )
        except TransportError as error:
            outcome.failures[f"{type(error).__name__}: {error}"] += 1
            return self._clock.monotonic() - started
        seconds = self._clock.monotonic() - started
        if response.status == 200:
            outcome.seconds.append(seconds)
        else:
            outcome.failures[f"{response.status}: {response.body[:200].decode('utf-8', 'replace')}"] += 1
        return seconds

    async def many(
        self, outcome: Outcome, requests: int, concurrency: int, least_seconds: float = 0.0
    ) -> None:
        """Send at least ``requests``, for ``least_seconds``, with ``concurrency`` under way at any time."""
        left = requests
        end = self._clock.monotonic() + least_seconds

        async def sender() -> None:
            nonlocal left
            while left > 0 or self._clock.monotonic() < end:
                left -= 1
                await self.one(outcome)

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(sender())
