"""Answers why an event did, or did not, arrive: from what was written down, and from what is declared now.

All of it is in the log, so the answer is the same in every events process, after any restart, and whether or
not the function is there at the moment.
"""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from torpor.errors import BlobError
from torpor.events import names, timeline
from torpor.events.claims import Claims
from torpor.events.dead_letters import key_of, letter_of
from torpor.events.log import oldest
from torpor.events.records import DEAD, IN, MANY, key_of_one, matching, needle
from torpor.spec.history import Answer, Explanation, Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torpor.binding import WireEvent
    from torpor.clock import Clock
    from torpor.events.courier import Route
    from torpor.events.log import EventLog
    from torpor.events.timeline import Record
    from torpor.spec.history import Question, Step

_AROUND_SECONDS = 60.0
"""How far what was written down and the event itself may be apart."""
_SPANS_SECONDS = (120.0, 3600.0, 86_400.0, math.inf)


class Explainer:
    """Explains events; ``routes`` tells the triggers that read a broker."""

    def __init__(
        self,
        log: EventLog,
        clock: Clock,
        routes: Callable[[str], Sequence[Route]],
        claims: Claims | None = None,
    ) -> None:
        self._claims = claims or Claims(None)
        self._log = log
        self._clock = clock
        self._routes = routes

    async def explain(self, question: Question) -> Answer:
        """What is known. Raises :class:`~torpor.errors.EventLogError`."""
        prefix = f"{names.RECORDS}."
        known = [each.removeprefix(prefix) for each in await self._log.streams() if each.startswith(prefix)]
        brokers = [key for each in known if question.broker in (key := each.replace(".", "/", 1), None)]
        items: list[Explanation] = []
        since: list[float] = []
        for broker in brokers:
            if first := await oldest(self._log, names.records_stream(broker), ">"):
                since.append(first.stored_at)
            items += await self._in(broker, question)
        return Answer(
            looked_at=tuple(brokers),
            since=datetime.fromtimestamp(min(since), UTC) if since else None,
            items=tuple(items),
        )

    async def _in(self, broker: str, question: Question) -> list[Explanation]:
        lines = await self._lines(broker, question)
        found = timeline.sources(lines, question.id)
        wanted = [each for each in found if question.source in (each, None)]
        return [await self._explanation(broker, question.id, source, lines) for source in wanted]

    async def _explanation(self, broker: str, event_id: str, source: str, lines: list[Record]) -> Explanation:
        groups = timeline.groups(lines, event_id, source)
        if groups:
            first = min(line["at"] for line in lines) - _AROUND_SECONDS
            lines = lines + await self._search(broker, [group for _, group in groups], first, math.inf)
            lines = list({repr(line): line for line in lines}.values())
        steps = timeline.steps(lines, event_id, source, groups)
        type_ = timeline.event_type(lines, event_id, source)
        event = await self._event(broker, event_id, source, type_, lines)
        if event is not None and any(route.matcher.looks_into_data for route in self._routes(broker)):
            with contextlib.suppress(BlobError):  # then it is said that the data is elsewhere
                event = await self._claims.looked_into(event)
        replies = timeline.replies(lines, event_id, source, groups)
        return Explanation(
            broker=broker,
            id=event_id,
            source=source,
            type=type_,
            kept=event is not None,
            steps=tuple(steps),
            triggers=tuple(_standing(route, event, steps) for route in self._routes(broker)),
            groups=tuple(timeline.standing(lines, trigger, group) for trigger, group in groups),
            replies=tuple(replies[: timeline.MOST]),
            replies_total=len(replies),
            dead_letters=tuple(await self._dead_letters(broker, event_id, source, lines, groups)),
        )

    async def _dead_letters(
        self,
        broker: str,
        event_id: str,
        source: str,
        lines: Sequence[Record],
        groups: Sequence[tuple[str, str]],
    ) -> list[str]:
        """The ids of those that are still there."""
        letters = [
            letter_of(line["trigger"], source, event_id, line["seq"])
            for line in lines
            if line["k"] == DEAD
            and (timeline.is_about(line, event_id, source) or (line["trigger"], line.get("group")) in groups)
        ]
        stream = names.dead_stream(broker)  # a crash may have had one written down twice
        return [each for each in dict.fromkeys(letters) if await oldest(self._log, stream, key_of(each))]

    # --- looking --------------------------------------------------------------------------------------------

    async def _lines(self, broker: str, question: Question) -> list[Record]:
        """All that was written of events of that id.

        Whose source is known is looked for from now backwards, until it is found being accepted.
        """
        spans = _SPANS_SECONDS if question.source is not None else (math.inf,)
        found: list[Record] = []
        until = math.inf
        for span in spans:
            since = max(0.0, self._clock.now() - span)
            found = await self._search(broker, [question.id], since, until) + found
            if any(
                line["k"] == IN and timeline.is_about(line, question.id, question.source or "")
                for line in found
            ):
                break
            until = since
        return found

    async def _search(self, broker: str, texts: Sequence[str], since: float, until: float) -> list[Record]:
        needles = [needle(text) for text in texts]
        stream = names.records_stream(broker)
        found: list[Record] = []
        for key in (MANY, *sorted({key_of_one(text) for text in texts})):
            async for stored in self._log.read(stream, key, since=since):
                if stored.stored_at >= until:
                    break
                found += matching(stored.event.data or b"", needles)
        return found

    async def _event(
        self, broker: str, event_id: str, source: str, type_: str | None, lines: Sequence[Record]
    ) -> WireEvent | None:
        """The event itself, if the broker still has it."""
        accepted = [
            line["at"] for line in lines if line["k"] == IN and timeline.is_about(line, event_id, source)
        ]
        if type_ is None or not accepted or names.broker_stream(broker) not in await self._log.streams():
            return None
        since, until = min(accepted) - _AROUND_SECONDS, max(accepted) + _AROUND_SECONDS
        stream = names.broker_stream(broker)
        async for stored in self._log.read(stream, names.token(type_), since=max(since, 0.0)):
            if (stored.event.id, stored.event.source) == (event_id, source):
                return stored.event
            if stored.stored_at > until:
                break
        return None


def _standing(route: Route, event: WireEvent | None, steps: Sequence[Step]) -> Standing:
    if event is None:
        matches, reason, attribute = None, "the broker does not have the event any more", ""
    else:
        verdict = route.matcher.verdict(event)
        matches, reason, attribute = verdict.matches, verdict.reason, verdict.attribute
    return Standing(
        trigger=route.key,
        function=route.function_key,
        matches=matches,
        reason=reason,
        attribute=attribute,
        state=timeline.progress(steps, route.key, matches),
    )
