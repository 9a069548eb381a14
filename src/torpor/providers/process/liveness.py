"""Notices instances that hang from outside's view, though their process is there.

The runtime's own watchdog is a thread of the instance: it sees nothing while a handler holds the
interpreter's lock, or while the whole process is stopped. So each instance that is ready is asked whether it
lives. A handler may rightly hold the lock for as long as a call may take: only an instance that has said
nothing for ``GRACE_SECONDS`` longer is wedged.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torpor.errors import TransportError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.clock import Clock
    from torpor.endpoint import Endpoint
    from torpor.transport import Client

GRACE_SECONDS = 5.0
INTERVAL_SECONDS = 3.0
REFUSED_SECONDS = 0.5
_MAX_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Silence:
    """How long an instance has not answered, of the ``limit_seconds`` that it may: pure."""

    limit_seconds: float
    seconds: float = 0.0

    @property
    def wedged(self) -> bool:
        """Whether that is too long."""
        return self.seconds >= self.limit_seconds

    @property
    def patience_seconds(self) -> float:
        """How long to wait for the next answer.

        At first for all but the last ``GRACE_SECONDS``: one that is merely slow takes a question in between
        two calls, and answers it after some more of them. The last question is always a new one.
        """
        left = self.limit_seconds - self.seconds
        return left - GRACE_SECONDS if left > GRACE_SECONDS else left

    def unanswered(self, elapsed_seconds: float) -> Silence:
        """The silence after another question got no answer for ``elapsed_seconds``.

        More than it was given does not count: then it was this process that stood still.
        """
        return replace(self, seconds=self.seconds + min(elapsed_seconds, self.patience_seconds))


class Liveness:
    """Watches the instances of one function.

    ``on_wedged`` gets the identity of one that hangs, and for how many seconds it was silent. It is called
    once, and that instance is forgotten before.
    """

    def __init__(self, clock: Clock, client: Client, on_wedged: Callable[[str, float], None]) -> None:
        self._clock = clock
        self._client = client
        self._on_wedged = on_wedged
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def watch(self, identity: str, endpoint: Endpoint, timeout_seconds: float) -> None:
        """Ask the instance from now on; a call in it may take ``timeout_seconds``."""
        silence = Silence(timeout_seconds + GRACE_SECONDS)
        self._tasks[identity] = asyncio.create_task(self._watch(identity, endpoint, silence))

    def forget(self, identity: str) -> None:
        """Ask it no more, if it is asked; no connection to it is left."""
        task = self._tasks.pop(identity, None)
        if task is not None:
            task.cancel()

    async def _watch(self, identity: str, endpoint: Endpoint, answering: Silence) -> None:
        silence = answering
        while not silence.wedged:
            began = self._clock.monotonic()
            if await self._answers(endpoint, silence.patience_seconds):
                silence = answering
                await self._clock.sleep(INTERVAL_SECONDS)
                continue
            if self._clock.monotonic() - began < REFUSED_SECONDS:  # refused: it may be about to end
                await self._clock.sleep(min(REFUSED_SECONDS, silence.patience_seconds))
            silence = silence.unanswered(self._clock.monotonic() - began)
        del self._tasks[identity]
        self._on_wedged(identity, silence.seconds)

    async def _answers(self, endpoint: Endpoint, patience_seconds: float) -> bool:
        """Whether there is an answer, whatever it is."""
        try:
            await self._client.request(
                endpoint,
                b"GET",
                b"/healthz/live",
                b"",
                b"",
                timeout_seconds=patience_seconds,
                max_response_bytes=_MAX_ANSWER_BYTES,
            )
        except TransportError:
            return False
        finally:
            self._client.forget(endpoint)  # an instance that drains waits until nobody is connected
        return True
