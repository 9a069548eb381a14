"""Shares out the calls that may be under way at once, so that functions that take long leave room for others.

A function may have one call more for as long as it has fewer than are left. So one alone gets half of all
places, of two that take long each gets a third, and so on: there is always a place for who has none. It is
the dynamic threshold by which switches share their memory (Choudhury and Hahne, 1998), with a factor of one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque


class Places:
    """So many calls at once, ``total``; who finds no place waits, in order among those of the same key."""

    def __init__(self, total: int) -> None:
        self._free = total
        self._used: dict[str, int] = {}
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    def take(self, key: str) -> bool:
        """Take a place for a call of ``key``, if there is one at once; it is to be given back."""
        if key in self._waiting or not self._has_room(key):
            return False
        self._take(key)
        return True

    async def wait(self, key: str) -> None:
        """Take a place once there is one; it is to be given back."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._forget(key, waiter)
            else:  # it had just been given a place
                self.give(key)
            raise

    def give(self, key: str) -> None:
        """Give a place back."""
        self._free += 1
        left = self._used[key] - 1
        if left:
            self._used[key] = left
        else:
            del self._used[key]
        if self._waiting:
            self._grant()

    def _has_room(self, key: str) -> bool:
        return self._used.get(key, 0) < self._free

    def _take(self, key: str) -> None:
        self._free -= 1
        self._used[key] = self._used.get(key, 0) + 1

    def _forget(self, key: str, waiter: asyncio.Future[None]) -> None:
        waiting = self._waiting[key]
        waiting.remove(waiter)
        if not waiting:
            del self._waiting[key]

    def _grant(self) -> None:
        """Give out what is free, in turn."""
        for key in list(self._waiting):
            if self._free and self._has_room(key):
                waiter = self._waiting[key].popleft()
                if self._waiting[key]:
                    self._waiting.move_to_end(key)
                else:
                    del self._waiting[key]
                self._take(key)
                waiter.set_result(None)
