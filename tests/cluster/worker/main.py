"""Takes a moment for each event."""

from __future__ import annotations

import asyncio

from torpor import CloudEvent, function


@function
async def worker(event: CloudEvent) -> None:
    """One event."""
    await asyncio.sleep(0.2)
