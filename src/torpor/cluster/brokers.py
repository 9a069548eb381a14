"""What the events pods tell: counters of brokers and triggers, and events as they are taken in."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from torpor.errors import EventLogError
from torpor.events.control import ControlClient
from torpor.spec.calls import CallQuestion

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from torpor.binding import WireEvent
    from torpor.clock import Clock
    from torpor.endpoint import Endpoint
    from torpor.events.declaration import EventsState
    from torpor.spec.calls import CallPage, CallSelection, CallStatus

_LOG = logging.getLogger("torpor.api")
_FIRST_PAUSE_SECONDS = 0.1
_PATIENCE_SECONDS = 20.0
T = TypeVar("T")


class EventsPods:
    """Asks the pods at ``endpoints()``, those that are ready, by their uids."""

    def __init__(self, clock: Clock, endpoints: Callable[[], Mapping[str, Endpoint]]) -> None:
        self._clock = clock
        self._endpoints = endpoints
        self._clients: dict[tuple[str, Endpoint], ControlClient] = {}

    async def states(self) -> list[EventsState]:
        """What each tells; one that does not answer is left out."""
        clients = await self._known()
        answers = await asyncio.gather(*map(self._state, clients))
        return [answer for answer in answers if answer is not None]

    async def tail(self, broker: str) -> AsyncGenerator[WireEvent, None]:
        """Each event that the broker takes in from the return of this call on, whichever pod takes it in.

        When the pod that tells of them goes, another does; the reader loses events of the moment between.
        Raises :class:`~torpor.errors.EventLogError` when none answers, then or later.
        """
        return self._events(broker, await self._tail(broker))

    async def close(self) -> None:
        """Let go of every connection."""
        clients, self._clients = list(self._clients.values()), {}
        await asyncio.gather(*(client.close() for client in clients))

    async def _events(
        self, broker: str, events: AsyncGenerator[WireEvent, None]
    ) -> AsyncGenerator[WireEvent, None]:
        while True:
            try:
                async for event in events:
                    yield event
            except EventLogError as error:
                _LOG.info("the events of %s are told by another pod from now on: %s", broker, error)
            finally:
                await events.aclose()
            events = await self._tail_anew(broker)

    async def _tail_anew(self, broker: str) -> AsyncGenerator[WireEvent, None]:
        until = self._clock.monotonic() + _PATIENCE_SECONDS
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self._tail(broker)
            except EventLogError:
                if self._clock.monotonic() >= until:
                    raise
            await self._clock.sleep(pause_seconds)
            pause_seconds *= 2

    async def ask(self, question: Callable[[ControlClient], Awaitable[T]]) -> T:
        """What a pod answers that is ready: any can, since all work on one event log.

        ``question`` must be safe to be put again, to another pod, when one does not answer.
        Raises :class:`~torpor.errors.EventLogError` when none answers.
        """
        trouble: EventLogError | None = None
        for client in await self._known():
            try:
                return await question(client)
            except EventLogError as error:
                trouble = error
        raise EventLogError(f"no events pod answers{f': {trouble}' if trouble else ''}") from trouble

    async def call(self, call_id: str) -> CallStatus | None:
        """A call that nobody waits for: which pod is making it, that pod alone knows.

        Raises :class:`~torpor.errors.EventLogError` when none answers.
        """
        found = await asyncio.gather(
            *(client.call(call_id) for client in await self._known()), return_exceptions=True
        )
        told = [each for each in found if not isinstance(each, BaseException)]
        if not told:
            return await self.ask(lambda pod: pod.call(call_id))
        known = [each for each in told if each is not None]
        return min(known, key=lambda each: each.state == "accepted", default=None)

    async def calls(self, selection: CallSelection) -> CallPage:
        """A page of calls: any pod can read them, and all together know which are being made.

        Raises :class:`~torpor.errors.EventLogError` when none answers.
        """
        told = await asyncio.gather(
            *(client.running_calls() for client in await self._known()), return_exceptions=True
        )
        running = tuple(each for ids in told if not isinstance(ids, BaseException) for each in ids)
        question = CallQuestion(selection=selection, running=running)
        return await self.ask(lambda pod: pod.calls(question))

    async def _tail(self, broker: str) -> AsyncGenerator[WireEvent, None]:
        return await self.ask(lambda pod: pod.tail(broker))

    async def _state(self, client: ControlClient) -> EventsState | None:
        try:
            return await client.state()
        except (EventLogError, ValidationError) as error:
            _LOG.warning("an events pod does not tell its counters: %s", error)
            return None

    async def _known(self) -> list[ControlClient]:
        """A client of each pod that there is now; those of pods that went are closed."""
        now = set(self._endpoints().items())
        gone = [self._clients.pop(one) for one in list(self._clients) if one not in now]
        for one in now - self._clients.keys():
            self._clients[one] = ControlClient(one[1])
        await asyncio.gather(*(client.close() for client in gone))
        return [self._clients[one] for one in sorted(now)]
