"""Has events that a broker still has delivered again: those of a time, to the triggers that match them now.

Each goes to each of these triggers alone, under a key of its own, like a dead letter that is replayed. The
key's mark and its identity are made of the replay's name and the event's place, so that a request that is
made again has no further effect while the log knows the identity.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from torpor.events import names
from torpor.events.claims import Claims
from torpor.events.courier import store
from torpor.events.log import Record
from torpor.events.records import taken_in
from torpor.spec import selectors
from torpor.spec.replays import ReplayedEvent, ReplayPage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        at_work: Callable[[str], Route | None],
        claims: Claims | None = None,
    ) -> None:
        self._log = log
        self._recorder = recorder
        self._routes = routes
        self._at_work = at_work
        self._claims = claims or Claims(None)

    async def replay(self, broker_key: str, wanted: Replay) -> ReplayPage:
        """Do a page of it.

        Raises :class:`ValueError` for a wrong condition, :class:`~torpor.errors.EventLogError` or
        :class:`~torpor.errors.BlobError`; some of the page may be done by then.
        """
        page = await self._page(broker_key, wanted)
        await self._recorder.flush(broker_key)
        return page

    async def _page(self, broker_key: str, wanted: Replay) -> ReplayPage:
        conditions = selectors.parse(wanted.filters)
        routes = [
            route
            for route in self._routes(broker_key)
            if wanted.function in (route.trigger.function_key, None) and self._at_work(route.key) is not None
        ]
        looks_into_data = any(route.matcher.looks_into_data for route in routes)
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
                    seen = await self._claims.looked_into(event) if looks_into_data else event
                    matching = [route for route in routes if route.matcher.matches(seen)]
                    if matching:
                        items.append(await self._again(broker_key, wanted, stored, matching))
            if len(items) >= wanted.limit or read >= _MOST_READ:
                at = datetime.fromtimestamp(stored.stored_at, UTC)
                return ReplayPage(items=tuple(items), next_since=at - _EARLIER, next_after=stored.sequence)
        return ReplayPage(items=tuple(items))

    async def _again(
        self, broker_key: str, wanted: Replay, stored: Stored, routes: Sequence[Route]
    ) -> ReplayedEvent:
        event, recorder = stored.event, self._recorder
        if not wanted.dry_run:
            at, mark = recorder.now(), f"{wanted.run}-{stored.sequence}"
            records = [
                Record(names.addressed_key(route.key, mark), f"to:{names.token(route.key)}:{mark}", event)
                for route in routes
            ]
            new = await store(self._log, broker_key, records)
            for route, is_new in zip(routes, new, strict=True):
                lines = taken_in([event], [is_new], at=at, by=recorder.name, how="replay", trigger=route.key)
                recorder.add(broker_key, lines)
        return ReplayedEvent(
            id=event.id,
            source=event.source,
            type=event.type,
            at=datetime.fromtimestamp(stored.stored_at, UTC),
            triggers=tuple(route.key for route in routes),
        )
