"""A data path that only remembers what was published, for tests of providers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torpor.endpoint import Endpoint


class MemoryPublisher:
    """Keeps :class:`torpor.providers.base.EndpointPublisher`.

    ``endpoints`` is what is published now, by function; ``history`` all of it, in order. While ``open`` is
    cleared, what is published is not taken in.
    """

    def __init__(self) -> None:
        self.endpoints: dict[str, tuple[Endpoint, ...]] = {}
        self.history: list[tuple[str, tuple[Endpoint, ...]]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def publish(self, key: str, endpoints: Sequence[Endpoint]) -> None:
        """Take in ``endpoints``, once it may."""
        await self.open.wait()
        self.endpoints[key] = tuple(endpoints)
        self.history.append((key, tuple(endpoints)))
