"""Lists calls that nobody waits for, the newest first, page by page.

There are two places to look. The stream of calls has those that are open, and those that were accepted
lately: by when they were accepted. The stream of outcomes has those that ended: by when they ended. A list of
all is of the first stream, and then of those whose outcome alone is left; one of calls that ended is of the
second. A request looks at some hundred records whatever it asks for, so a page may be short, or empty, where
few calls are in the state that is wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torpor.events import names
from torpor.events.calls import call_of, outcome_of, time_of, told
from torpor.events.log import oldest
from torpor.events.waiting import for_each
from torpor.spec.calls import CallPage, CallSelection, CallSummary

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from torpor.events.log import EventLog, Stored

MOST_READ = 500
"""Most calls that are looked at for one page."""
_AT_ONCE = 50
_ACCEPTED, _ENDED = "a", "e"
_STREAMS = {_ACCEPTED: names.CALLS, _ENDED: names.OUTCOMES}
_OPEN_STATES = frozenset(("accepted", "running"))


class Place(NamedTuple):
    """Where a list goes on: in which of the streams, and below which sequence; ``None``: at its end."""

    stream: str
    before: int | None = None

    @property
    def text(self) -> str:
        """The place as those have it who ask."""
        return f"{self.stream}{self.before or 0}"


def begin(selection: CallSelection) -> Place:
    """Where the page of ``selection`` begins."""
    if selection.after is not None:
        return Place(selection.after[0], int(selection.after[1:]) or None)
    return Place(_ENDED if _ended_alone(selection) else _ACCEPTED)


def beyond(selection: CallSelection, place: Place) -> Place | None:
    """Where the list goes on once the stream of ``place`` has no more; ``None``: nowhere."""
    open_alone = bool(selection.state) and _OPEN_STATES.issuperset(selection.state)
    return None if place.stream == _ENDED or open_alone else Place(_ENDED)


def _ended_alone(selection: CallSelection) -> bool:
    return bool(selection.state) and _OPEN_STATES.isdisjoint(selection.state)


def keys_of(selection: CallSelection) -> str:
    """The keys of the calls that can be meant."""
    if selection.function is not None:
        return names.call_keys(f"{selection.namespace or 'default'}/{selection.function}")
    return ">" if selection.namespace is None else f"{selection.namespace}.>"


class CallList:
    """Lists calls; ``is_running`` tells whether this process is making one."""

    def __init__(self, log: EventLog, is_running: Callable[[str], bool]) -> None:
        self._log = log
        self._is_running = is_running

    async def page(self, selection: CallSelection, running: Collection[str] = ()) -> CallPage:
        """A page of it; others make the calls ``running``. Raises :class:`~torpor.errors.EventLogError`."""
        items: list[CallSummary] = []
        place: Place | None = begin(selection)
        looked_at = 0
        while place is not None and looked_at < MOST_READ:
            all_are_meant = place.stream == _ACCEPTED and not selection.state
            wanted = selection.limit - len(items) if all_are_meant else _AT_ONCE
            found = await self._log.newest(
                _STREAMS[place.stream], keys_of(selection), wanted, before=place.before
            )
            if not found:
                place = beyond(selection, place)
                continue
            looked_at += len(found)
            shown = await self._shown(selection, place, found, frozenset(running))
            for stored, summary in zip(found, shown, strict=True):
                place = Place(place.stream, stored.sequence)
                if summary is not None and (not selection.state or summary.state in selection.state):
                    items.append(summary)
                    if len(items) == selection.limit:
                        return CallPage(items=tuple(items), next=place.text)
        return CallPage(items=tuple(items), next=None if place is None else place.text)

    async def _shown(
        self, selection: CallSelection, place: Place, found: Sequence[Stored], running: frozenset[str]
    ) -> list[CallSummary | None]:
        """What is shown of each; ``None`` for one that comes from the other stream."""
        shown: list[CallSummary | None] = [None] * len(found)

        async def show(number: int) -> None:
            stored = found[number]
            if place.stream == _ACCEPTED:
                outcome = await oldest(self._log, names.OUTCOMES, stored.key)
                shown[number] = self._open(stored, running) if outcome is None else _ended(outcome)
            elif _ended_alone(selection) or await oldest(self._log, names.CALLS, stored.key) is None:
                shown[number] = _ended(stored)

        await for_each(range(len(found)), show, _AT_ONCE)
        return shown

    def _open(self, stored: Stored, running: frozenset[str]) -> CallSummary:
        call = call_of(stored.event)
        is_running = self._is_running(call.id) or call.id in running
        return CallSummary(**told(call), state="running" if is_running else "accepted")


def _ended(stored: Stored) -> CallSummary:
    outcome = outcome_of(stored.event)
    return CallSummary(
        **told(outcome.call),
        state="succeeded" if outcome.succeeded else "failed",
        finished_at=time_of(outcome.finished_at),
        attempts=outcome.attempts,
        status=outcome.status,
        reason=outcome.reason,
    )
