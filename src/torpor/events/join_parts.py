"""The parts of a group that ended, out of the log: all in memory for one batch, or in pages for dead letters.

How much of a group there is shows while it is read; nothing is remembered of it, so that a crash changes
nothing: the same parts are as large to who reads them next.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from torpor.binding import WireEvent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from torpor.events.claims import Claims

Parts = list[tuple[int, WireEvent]]

MAX_BATCH_BYTES = 8 * 1024 * 1024
"""Largest batch that carries its data; beyond it, data goes to the blob store. And most of one page."""
MAX_GROUP_BYTES = 64 * 1024 * 1024
"""Most of one group that is held in memory, with what could not go to a blob store."""
_MIN_CLAIM_BYTES = 1024


class Loader:
    """Reads groups of one trigger. Of those that are larger than a batch, one is in memory at a time."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._large = asyncio.Lock()

    @asynccontextmanager
    async def loaded(self, parts: AsyncGenerator[tuple[int, WireEvent], None]) -> AsyncIterator[Parts | None]:
        """A block that has the ``parts`` of a group, by index; ``None`` of one that is too large for it.

        Where they are too much for one batch, their data goes to the blob store.
        """
        async with AsyncExitStack() as turn:
            yield await self._load(parts, turn)

    async def _load(
        self, parts: AsyncGenerator[tuple[int, WireEvent], None], turn: AsyncExitStack
    ) -> Parts | None:
        found: Parts = []
        total_bytes = 0
        waited = False
        async with aclosing(parts):
            async for index, each in parts:
                fits = total_bytes + _size(each) <= MAX_BATCH_BYTES
                event = each if fits else await self._claims.check_in(each, _MIN_CLAIM_BYTES)
                total_bytes += _size(event)
                if total_bytes > MAX_GROUP_BYTES:
                    await turn.aclose()
                    return None
                if total_bytes > MAX_BATCH_BYTES and not waited:
                    await turn.enter_async_context(self._large)
                    waited = True
                found.append((index, event))
        return sorted(found, key=lambda part: part[0])


async def pages(
    parts: AsyncGenerator[tuple[int, WireEvent], None],
) -> AsyncIterator[tuple[Parts, bool]]:
    """The ``parts`` of a group, as many at a time as a batch carries, and whether those are the last.

    The last are none where there are none at all.
    """
    page: Parts = []
    total_bytes = 0
    async with aclosing(parts):
        async for index, event in parts:
            size_bytes = _size(event)
            if page and total_bytes + size_bytes > MAX_BATCH_BYTES:
                yield page, False
                page, total_bytes = [], 0
            page.append((index, event))
            total_bytes += size_bytes
    yield page, True


def _size(event: WireEvent) -> int:
    attributes = sum(len(name) + len(value) + 6 for name, value in event.attributes.items())
    return attributes + len(event.data or b"")
