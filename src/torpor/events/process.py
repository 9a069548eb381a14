"""The events service as a process of a platform that holds its sockets and tells it what is declared.

Until it was told, no producer is served: requests wait in the backlog of the ingress' socket, so that a
restart refuses nobody. Its counters outlast it in a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from torpor.clock import alongside, cancel, first_of
from torpor.events.control_app import ControlApp
from torpor.serving import serving

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from torpor.clock import Clock
    from torpor.events.service import Service
    from torpor.events.stats import Stats

_LOG = logging.getLogger("torpor.events")
_GRACE_SECONDS = 5
_SAVE_SECONDS = 1.0


async def run(
    service: Service,
    clock: Clock,
    *,
    ingress: socket.socket,
    control: socket.socket,
    stats_path: str,
    ending: asyncio.Event,
) -> None:
    """Serve until ``ending`` is set."""
    app = ControlApp(service, clock, declares=True)
    async with _saved(service.stats, clock, Path(stats_path) if stats_path else None):
        try:
            async with serving(app, control, grace_seconds=_GRACE_SECONDS):
                await first_of(service.declared.wait(), ending.wait())
                if not ending.is_set():
                    async with serving(service.ingress, ingress, grace_seconds=_GRACE_SECONDS):
                        keeping = asyncio.create_task(service.keep_blobs())
                        try:
                            await alongside(ending.wait(), [keeping])
                        finally:
                            await cancel(keeping)
                app.end()
        finally:
            await service.close()


@contextlib.asynccontextmanager
async def _saved(stats: Stats, clock: Clock, path: Path | None) -> AsyncIterator[None]:
    """Go on counting from what ``path`` has, and save it again and again and in the end."""
    if path is None:
        yield
        return
    await asyncio.to_thread(_load, stats, path)
    saver = asyncio.create_task(_save_for_ever(stats, clock, path))
    try:
        yield
    finally:
        await cancel(saver)
        await asyncio.to_thread(_save, stats, path)


async def _save_for_ever(stats: Stats, clock: Clock, path: Path) -> None:
    saved = b""
    while True:
        await clock.sleep(_SAVE_SECONDS)
        if (now := stats.dump()) != saved:
            await asyncio.to_thread(_save, stats, path)
            saved = now


def _save(stats: Stats, path: Path) -> None:
    new = path.with_suffix(".new")
    try:
        new.write_bytes(stats.dump())
        new.replace(path)
    except OSError as error:
        _LOG.warning("the counters could not be saved", extra={"error": str(error)})


def _load(stats: Stats, path: Path) -> None:
    try:
        stats.load(path.read_bytes())
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError) as error:
        _LOG.warning("the counters begin anew", extra={"error": str(error)})
