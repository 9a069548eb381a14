"""The places in one instance: how many calls run at once. The rest waits, and comes in in order.

All of it happens on one event loop. It is a semaphore that is cheap while nobody waits and that can be asked
how many do.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Places:
    """``limit`` places; 0 means as many as come."""

    __slots__ = ("_limit", "_waiting", "taken")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.taken = 0

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    def try_take(self) -> bool:
        """Take a place if one is free and nobody is before us."""
        if self._limit and (self.taken >= self._limit or self._waiting):
            return False
        self.taken += 1
        return True

    async def take(self) -> None:
        """Wait for a place and take it. When it is cancelled, no place is taken."""
        if self.try_take():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.free()  # it was ours already, and somebody else waits for it
            else:
                self._forget(turn)
            raise

    def free(self) -> None:
        """Give a place back; it goes to who has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)  # the place changes hands: the count stays
                return
        self.taken -= 1

    def _forget(self, turn: asyncio.Future[None]) -> None:
        try:
            self._waiting.remove(turn)
        except ValueError:
            return  # it was popped, found cancelled, and passed over
