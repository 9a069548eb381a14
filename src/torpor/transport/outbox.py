"""Writes what one turn of the loop has to send at the end of that turn.

To wake a process costs more than to write to one that is awake: who answers all of these is woken by the
first, and finds the others there. By itself each would be answered before the next one comes, and its reader
would have gone to sleep again.
"""

from __future__ import annotations

import asyncio


class Outbox:
    """What is still to be written, to whatever transports; belongs to one running loop."""

    def __init__(self) -> None:
        self._held: list[tuple[asyncio.Transport, bytes]] = []

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write ``data`` once what is ready to run has run, unless ``transport`` is being closed by then."""
        if not self._held:
            asyncio.get_running_loop().call_soon(self._send)
        self._held.append((transport, data))

    def _send(self) -> None:
        held, self._held = self._held, []
        for transport, data in held:
            if not transport.is_closing():
                transport.write(data)
