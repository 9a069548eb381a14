"""Looks into the dead letters of the log, replays them and drops them.

A replay is an append to the broker of the trigger that had failed, under a key that is for this trigger
alone, with the event as it was. Only when that is durable is the dead letter removed; what is there already,
from a replay that was interrupted, is not appended again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from torpor.events import names
from torpor.events.dead_letters import chooser, key_of, original, trigger_mark, view
from torpor.events.log import Record, oldest
from torpor.events.records import dropped, taken_in
from torpor.spec.letters import LetterOutcome

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from torpor.events.courier import Route
    from torpor.events.intake import Intake
    from torpor.events.log import EventLog, Stored
    from torpor.events.recorder import Recorder
    from torpor.events.stats import Stats
    from torpor.spec.letters import DeadLetter, LetterSelection

_LOG = logging.getLogger("torpor.events")
_AT_ONCE = 16


class DeadLetters:
    """The dead letters of every broker; ``route`` tells a trigger that is at work by its key and its
    broker's.
    """

    def __init__(
        self,
        log: EventLog,
        intake: Intake,
        stats: Stats,
        recorder: Recorder,
        route: Callable[[str, str], Route | None],
    ) -> None:
        self._log = log
        self._intake = intake
        self._recorder = recorder
        self._stats = stats
        self._route = route
        self._at_hand: set[str] = set()

    async def select(self, selection: LetterSelection) -> AsyncGenerator[DeadLetter, None]:
        """The dead letters of ``selection``, broker by broker, the oldest first.

        Raises :class:`ValueError` for a wrong condition, :class:`~torpor.errors.EventLogError`.
        """
        return self._select(selection, chooser(selection), await self._brokers())

    async def _select(
        self, selection: LetterSelection, chosen: Callable[[Stored], bool], brokers: list[str]
    ) -> AsyncGenerator[DeadLetter, None]:
        for broker in brokers:
            if selection.brokers and broker not in selection.brokers:
                continue
            async for stored in self._log.read(names.dead_stream(broker), ">"):
                if chosen(stored):
                    yield view(stored, broker)

    async def get(self, letter_id: str) -> DeadLetter | None:
        """One dead letter with all there is to say of it."""
        found = await self._find(letter_id, await self._brokers())
        return view(found[1], found[0], whole=True) if found is not None else None

    async def replay(self, letter_ids: Sequence[str], *, dry_run: bool = False) -> list[LetterOutcome]:
        """Have each delivered again to the trigger that had failed with it.

        Those of a trigger that is ordered by key go in the order of ``letter_ids``.

        Raises :class:`~torpor.errors.EventLogError`; some may be replayed by then, and the rest is as it was.
        """

        async def replay(broker: str, stored: Stored) -> LetterOutcome:
            return await self._replay(broker, stored, dry_run=dry_run)

        return await self._each(letter_ids, replay)

    async def drop(self, letter_ids: Sequence[str], *, dry_run: bool = False) -> list[LetterOutcome]:
        """Remove each for good. Raises :class:`~torpor.errors.EventLogError`."""

        async def drop(broker: str, stored: Stored) -> LetterOutcome:
            letter = view(stored, broker)
            if not dry_run:
                await self._log.purge(names.dead_stream(broker), stored.key)
                about = {"trigger": letter.trigger, "event": letter.event_id, "letter": letter.id}
                _LOG.info("a dead letter was dropped", extra=about)
                recorder = self._recorder
                line = dropped(stored.event, at=recorder.now(), by=recorder.name, trigger=letter.trigger)
                recorder.add(broker, [line])
                await recorder.flush(broker)
            detail = f"event {letter.event_id!r} of trigger {letter.trigger} is gone for good"
            return LetterOutcome(id=letter.id, outcome="dropped", detail=detail)

        return await self._each(letter_ids, drop)

    async def _replay(self, broker: str, stored: Stored, *, dry_run: bool) -> LetterOutcome:
        letter = view(stored, broker)
        route = self._route(letter.trigger, broker)
        if route is None:
            return LetterOutcome(
                id=letter.id,
                outcome="refused",
                detail=f"{_what(letter.trigger)} is not declared, or not at work; declare it, or drop this",
            )
        if not dry_run:
            await self._deliver_again(route, letter.id, stored)
            await self._log.purge(names.dead_stream(broker), stored.key)
            self._stats.of(route.key).replayed += 1
        return LetterOutcome(
            id=letter.id,
            outcome="replayed",
            detail=f"event {letter.event_id!r} to {_whom(route)}",
        )

    async def _deliver_again(self, route: Route, letter_id: str, stored: Stored) -> None:
        key = route.addressed(letter_id)
        if await oldest(self._log, names.broker_stream(route.broker_key), key) is not None:
            return
        event, recorder, broker = original(stored.event), self._recorder, route.broker_key
        at = recorder.now()
        new = await self._intake.store(broker, [Record(key, f"to:{letter_id}", event)])
        lines = taken_in([event], new, at=at, by=recorder.name, how="replay", trigger=route.key)
        recorder.add(broker, lines)
        await recorder.flush(broker)

    # --- within ---------------------------------------------------------------------------------------------

    async def _each(
        self, letter_ids: Sequence[str], act: Callable[[str, Stored], Awaitable[LetterOutcome]]
    ) -> list[LetterOutcome]:
        brokers = await self._brokers()
        slots = asyncio.Semaphore(_AT_ONCE)
        before: dict[str, asyncio.Task[LetterOutcome]] = {}

        async def one(letter_id: str, earlier: asyncio.Task[LetterOutcome] | None) -> LetterOutcome:
            async with slots:
                # Of two who ask for the same at once, one has it done, and counts it.
                if letter_id in self._at_hand:
                    return _unknown(letter_id, "somebody else deals with this dead letter at the moment")
                self._at_hand.add(letter_id)
                try:
                    found = await self._find(letter_id, brokers)
                    if found is None:
                        return _unknown(letter_id, "there is no such dead letter")
                    if earlier is not None and self._is_ordered(*found):
                        await earlier  # which has a slot, since it began before
                    return await act(*found)
                finally:
                    self._at_hand.discard(letter_id)

        tasks = []
        for each in dict.fromkeys(letter_ids):
            mark = trigger_mark(each)
            before[mark] = asyncio.ensure_future(one(each, before.get(mark)))
            tasks.append(before[mark])
        await asyncio.wait(tasks)
        return [task.result() for task in tasks]

    def _is_ordered(self, broker: str, stored: Stored) -> bool:
        route = self._route(stored.event.attributes.get("torportrigger", ""), broker)
        return route is not None and route.trigger.spec.ordering == "key"

    async def _find(self, letter_id: str, brokers: list[str]) -> tuple[str, Stored] | None:
        for broker in brokers:
            stored = await oldest(self._log, names.dead_stream(broker), key_of(letter_id))
            if stored is not None:
                return broker, stored
        return None

    async def _brokers(self) -> list[str]:
        """The keys of all brokers that have dead letters, those among them that are not declared any more."""
        prefix = f"{names.DEAD}."
        return [
            each.removeprefix(prefix).replace(".", "/", 1)
            for each in await self._log.streams()
            if each.startswith(prefix)
        ]


def _unknown(letter_id: str, detail: str) -> LetterOutcome:
    return LetterOutcome(id=letter_id, outcome="unknown", detail=detail)


def _what(trigger_key: str) -> str:
    function = names.meant_by_name(trigger_key)
    return f"function {function}" if function else f"trigger {trigger_key}"


def _whom(route: Route) -> str:
    what, function = _what(route.key), f"function {route.function_key}"
    return what if what == function else f"{what}, {function}"
