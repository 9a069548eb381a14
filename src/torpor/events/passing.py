"""What becomes of an event that a trigger does not match, where several dispatchers share its consumer.

To acknowledge it means that the trigger never gets it. A dispatcher whose declarations are older than
another's must not do that: by the new filters the event may match. So the consumer says which filters it was
brought to last, and a dispatcher with other ones gives the event back.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from torpor.events.log import Delivery

_PAUSE_SECONDS = 1.0


class Passing:
    """Lets events pass a trigger by whose filters have the revision ``mine``.

    ``newest`` asks the log which revision holds. It is asked once for all that wait for it: an answer counts
    for what was delivered before its question.
    """

    def __init__(self, mine: str, newest: Callable[[], Awaitable[str]]) -> None:
        self._mine = mine
        self._newest = newest
        self._asking = asyncio.Lock()
        self._asked = self._answered = 0
        self._holds = False

    async def let_pass(self, delivery: Delivery) -> None:
        """Settle an event that does not match. Raises :class:`~torpor.errors.EventLogError`."""
        if await self._is_current():
            await delivery.ack()
        else:
            await delivery.retry(_PAUSE_SECONDS)

    async def _is_current(self) -> bool:
        self._asked += 1
        ticket = self._asked
        async with self._asking:
            if self._answered < ticket:
                counted = self._asked
                self._holds = await self._newest() == self._mine
                self._answered = counted
            return self._holds
