"""The last lines that each function's instances wrote, in memory, and handed on to whoever follows them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from torpor.spec.status import LogLine

MAX_LINES = 2_000
MAX_UNREAD = 1_000


class LogBook:
    """Per function the last ``MAX_LINES`` lines; the oldest go first.

    A follower that falls more than ``MAX_UNREAD`` lines behind loses the oldest of them, never the platform's
    memory.
    """

    def __init__(self) -> None:
        self._lines: dict[str, deque[LogLine]] = {}
        self._followers: dict[str, set[_Follower]] = {}

    def add(self, key: str, line: LogLine) -> None:
        """Keep ``line`` of the function ``key`` and wake its followers."""
        self._lines.setdefault(key, deque(maxlen=MAX_LINES)).append(line)
        for follower in self._followers.get(key, ()):
            follower.put(line)

    def forget(self, key: str) -> None:
        """Drop the lines of a function that is gone."""
        self._lines.pop(key, None)

    async def read(self, key: str, *, tail: int, follow: bool) -> AsyncIterator[LogLine]:
        """The last ``tail`` lines of ``key``; with ``follow`` then each new one, while it is iterated."""
        kept = list(self._lines.get(key, ()))[-tail:] if tail > 0 else []
        follower = _Follower()
        if follow:
            self._followers.setdefault(key, set()).add(follower)
        try:
            for line in kept:
                yield line
            while follow:
                yield await follower.get()
        finally:
            followers = self._followers.get(key)
            if followers is not None:
                followers.discard(follower)
                if not followers:
                    del self._followers[key]


class _Follower:
    def __init__(self) -> None:
        self._unread: deque[LogLine] = deque(maxlen=MAX_UNREAD)
        self._wake = asyncio.Event()

    def put(self, line: LogLine) -> None:
        self._unread.append(line)
        self._wake.set()

    async def get(self) -> LogLine:
        while not self._unread:
            self._wake.clear()
            await self._wake.wait()
        return self._unread.popleft()
