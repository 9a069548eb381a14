"""Has what one turn of the loop sends written together, when all that is ready to run has run.

To wake a process costs more than to write to one that is awake: who answers all of these is woken by the
first, and finds the others there. By itself each would be answered before the next one comes, and its reader
would have gone to sleep again.
"""

from __future__ import annotations

import asyncio
from typing import Protocol


class Writer(Protocol):
    """What a request goes out by."""

    def write_whole(self, request: bytes) -> None:
        """Write a whole request, if that is still possible. Must not raise."""
        ...


class Outbox:
    """Requests that are still to be written; belongs to one running loop."""

    def __init__(self) -> None:
        self._held: list[tuple[Writer, bytes]] = []

    def add(self, writer: Writer, request: bytes) -> None:
        """Have ``writer`` write ``request`` once what is ready to run has run."""
        if not self._held:
            asyncio.get_running_loop().call_soon(self._send)
        self._held.append((writer, request))

    def _send(self) -> None:
        held, self._held = self._held, []
        for writer, request in held:
            writer.write_whole(request)
