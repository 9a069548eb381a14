"""Has events that a broker still has delivered again: those of a time, to the triggers that match them now,
or to one function by name.

Each goes to each of these alone, under a key of its own, like a dead letter that is replayed. The
key's mark and its identity are made of the replay's name and the event's place, so that a request that is
made again has no further effect while the log knows the identity.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from torpor.errors import EventLogError
from torpor.events import names
from torpor.events.courier import store
from torpor.events.log import Record
from torpor.events.records import taken_in
from torpor.spec import selectors
from torpor.spec.replays import ReplayedEvent, ReplayPage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torpor.binding import WireEvent
    from torpor.events.courier import Route
    from torpor.events.log import EventLog, Stored
    from torpor.events.recorder import Recorder
    from torpor.spec.replays import Replay

_MOST_READ = 10_000
"""Most events that are looked at for one page."""
_EARLIER = timedelta(milliseconds=1)


class Archive:
    """Replays events; ``routes`` tells the triggers that read a broker, ``at_work`` whether one is."""

    def __init__(
        self,
        log: EventLog,
        recorder: Recorder,
        routes: Callable[[str], Sequence[Route]],
        at_work: Callable[[str, str], Route | None],
    ) -> None:
        self._log = log
        self._recorder = recorder
        self._routes = routes
        self._at_work = at_work

    async def replay(self, broker_key: str, wanted: Replay) -> ReplayPage:
        """Do a page of it.

        Raises :class:`ValueError` for a wrong condition or a function that can't be reached from there,
        :class:`~torpor.errors.EventLogError`; some of the page may be done by then.
        """
        page = await self._page(broker_key, wanted)
        await self._recorder.flush(broker_key)
        return page

    async def _page(self, broker_key: str, wanted: Replay) -> ReplayPage:
        conditions = selectors.parse(wanted.filters)
        matching = (
            self._to_triggers(broker_key)
            if wanted.function is None
            else self._to_function(broker_key, wanted.function)
        )
        items: list[ReplayedEvent] = []
        until, read = wanted.until.timestamp(), 0
        stream = names.broker_stream(broker_key)
        async for stored in self._log.read(stream, ">", since=wanted.since.timestamp()):
            if stored.stored_at >= until:
                break
            read += 1
            if stored.sequence > wanted.after and names.addressee(stored.key) is None:
                event = stored.event
                if all(condition.matches(event.attributes) for condition in conditions):
                    routes = matching(event)
                    if routes:
                        items.append(await self._again(broker_key, wanted, stored, routes))
            if len(items) >= wanted.limit or read >= _MOST_READ:
                at = datetime.fromtimestamp(stored.stored_at, UTC)
                return ReplayPage(items=tuple(items), next_since=at - _EARLIER, next_after=stored.sequence)
        return ReplayPage(items=tuple(items))

    def _to_triggers(self, broker_key: str) -> Callable[[WireEvent], Sequence[Route]]:
        """Those that match."""
        declared = self._routes(broker_key)
        routes = [route for route in declared if self._at_work(route.key, broker_key) is not None]
        return lambda event: [route for route in routes if route.matcher.matches(event)]

    def _to_function(self, broker_key: str, function: str) -> Callable[[WireEvent], Sequence[Route]]:
        """The function itself, whatever its triggers would say."""
        if function.partition("/")[0] != broker_key.partition("/")[0]:
            raise ValueError(f"function {function} is not in the namespace of broker {broker_key}")
        route = self._at_work(names.direct_trigger(function), broker_key)
        if route is None:
            raise EventLogError(f"function {function} is not known to the events process yet")
        return lambda _: [route]

    async def _again(
        self, broker_key: str, wanted: Replay, stored: Stored, routes: Sequence[Route]
    ) -> ReplayedEvent:
        event, recorder = stored.event, self._recorder
        if not wanted.dry_run:
            at, mark = recorder.now(), f"{wanted.run}-{stored.sequence}"
            records = [
                Record(route.addressed(mark, wanted.revision), f"to:{names.token(route.key)}:{mark}", event)
                for route in routes
            ]
            new = await store(self._log, broker_key, records)
            for route, is_new in zip(routes, new, strict=True):
                more = {"revision": wanted.revision} if wanted.revision is not None else {}
                lines = taken_in(
                    [event], [is_new], at=at, by=recorder.name, how="replay", trigger=route.key, **more
                )
                recorder.add(broker_key, lines)
        return ReplayedEvent(
            id=event.id,
            source=event.source,
            type=event.type,
            at=datetime.fromtimestamp(stored.stored_at, UTC),
            triggers=tuple(route.key for route in routes),
        )
