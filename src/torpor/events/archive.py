"""Has events that a broker still has delivered again: those of a time, to the triggers that match them now,
or to one function by name.

Each goes to each of these alone, under a key of its own, like a dead letter that is replayed. The
key's mark and its identity are made of the replay's name and the event's place, so that a request that is
made again has no further effect while the log knows the identity.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from torpor.binding import is_valid
from torpor.errors import EventLogError
from torpor.events import names
from torpor.events.claims import Claims
from torpor.events.log import Record
from torpor.events.records import taken_in
from torpor.spec import selectors
from torpor.spec.replays import ReplayedEvent, ReplayPage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torpor.binding import WireEvent
    from torpor.events.courier import Route
    from torpor.events.intake import Intake
    from torpor.events.log import EventLog, Stored
    from torpor.events.recorder import Recorder
    from torpor.spec.replays import Replay

_MOST_READ = 10_000
"""Most events that are looked at for one page."""
_MOST_RECORDS = 500
_MOST_BYTES = 1024 * 1024
"""Of what is written at once."""
_EARLIER = timedelta(milliseconds=1)


class Archive:
    """Replays events; ``routes`` tells the triggers that read a broker, ``at_work`` whether one is."""

    def __init__(
        self,
        log: EventLog,
        intake: Intake,
        recorder: Recorder,
        routes: Callable[[str], Sequence[Route]],
        at_work: Callable[[str, str], Route | None],
        claims: Claims | None = None,
    ) -> None:
        self._log = log
        self._intake = intake
        self._recorder = recorder
        self._routes = routes
        self._at_work = at_work
        self._claims = claims or Claims(None)

    async def replay(self, broker_key: str, wanted: Replay) -> ReplayPage:
        """Do a page of it.

        Raises :class:`ValueError` for a wrong condition or a function that can't be reached from there,
        :class:`~torpor.errors.EventLogError` or :class:`~torpor.errors.BlobError`; some of the page may be
        done by then.
        """
        copies = _Copies(self._intake, self._recorder, broker_key, wanted)
        page = await self._page(broker_key, wanted, copies)
        await copies.write()
        await self._recorder.flush(broker_key)
        return page

    async def _page(self, broker_key: str, wanted: Replay, copies: _Copies) -> ReplayPage:
        conditions = selectors.parse(wanted.filters)
        matching = (
            self._to_triggers(broker_key)
            if wanted.target is None
            else self._to_function(broker_key, wanted.target[0])
        )
        looks_into_data = wanted.target is None and any(
            route.matcher.looks_into_data for route in self._routes(broker_key)
        )
        items: list[ReplayedEvent] = []
        until, read = wanted.until.timestamp(), 0
        stream = names.broker_stream(broker_key)
        async for stored in self._log.read(stream, ">", since=wanted.since.timestamp()):
            if stored.stored_at >= until:
                break
            if stored.sequence <= wanted.after:
                continue
            read += 1
            event = stored.event
            if (
                names.addressee(stored.key) is None
                and is_valid(event)  # else it was never accepted
                and all(condition.matches(event.attributes) for condition in conditions)
            ):
                routes = matching(await self._claims.looked_into(event) if looks_into_data else event)
                if routes:
                    items.append(_view(stored, routes))
                    if not wanted.dry_run:
                        await copies.add(stored, routes)
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


class _Copies:
    """Writes events once more, each for some routes alone, many of them at once."""

    def __init__(self, intake: Intake, recorder: Recorder, broker_key: str, wanted: Replay) -> None:
        self._intake = intake
        self._recorder = recorder
        self._broker_key = broker_key
        self._run = wanted.run
        self._revision = wanted.target[1] if wanted.target is not None else None
        self._records: list[tuple[Record, Route]] = []
        self._bytes = 0

    async def add(self, stored: Stored, routes: Sequence[Route]) -> None:
        """Have an event written by :meth:`write`, or before that where it would become too much."""
        event, mark = stored.event, f"{self._run}-{stored.sequence}"
        for route in routes:
            identity = f"to:{names.token(route.key)}:{mark}"
            self._records.append((Record(route.addressed(mark, self._revision), identity, event), route))
            self._bytes += len(event.data or b"")
            if self._bytes >= _MOST_BYTES or len(self._records) >= _MOST_RECORDS:
                await self.write()

    async def write(self) -> None:
        """Write what was added."""
        written, self._records, self._bytes = self._records, [], 0
        if not written:
            return
        at, recorder = self._recorder.now(), self._recorder
        new = await self._intake.store(self._broker_key, [record for record, _ in written])
        more = {"revision": self._revision} if self._revision is not None else {}
        for (record, route), is_new in zip(written, new, strict=True):
            lines = taken_in(
                [record.event], [is_new], at=at, by=recorder.name, how="replay", trigger=route.key, **more
            )
            recorder.add(self._broker_key, lines)


def _view(stored: Stored, routes: Sequence[Route]) -> ReplayedEvent:
    event = stored.event
    return ReplayedEvent(
        id=event.id,
        source=event.source,
        type=event.type,
        at=datetime.fromtimestamp(stored.stored_at, UTC),
        triggers=tuple(route.key for route in routes),
    )
