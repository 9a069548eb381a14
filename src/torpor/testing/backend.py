"""A platform that runs nothing: what :mod:`torpor.api` needs from one, held in memory for tests to fill."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from torpor.blobs import OpenBlob
from torpor.errors import BlobNotFoundError, TorporError
from torpor.spec import selectors
from torpor.spec.calls import CallPage, CallSummary
from torpor.spec.history import Answer, Explanation, Question
from torpor.spec.letters import DeadLetter, LetterAction, LetterOutcome, LetterSelection
from torpor.spec.replays import Replay, ReplayedEvent, ReplayPage
from torpor.spec.status import (
    BrokerStatus,
    FunctionStatus,
    LogLine,
    PartStatus,
    PlatformStatus,
    ScalingStatus,
    ScheduleStatus,
    TriggerStatus,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from torpor.binding import WireEvent
    from torpor.spec.calls import CallSelection, CallStatus

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
URL = "http://127.0.0.1:8080"


def function_status(name: str, namespace: str = "default", **changes: object) -> FunctionStatus:
    """The view of a function at rest, with ``changes`` by attribute name."""
    resting = FunctionStatus(
        name=name,
        namespace=namespace,
        url=f"{URL}/function/{name}.{namespace}",
        ready=True,
        reason="at rest",
        revision=f"{name}-00001",
        desired=0,
        source=f"/functions/{name}",
        handler="main",
        declared_in=f"/functions/{name}/function.yaml:1",
        container_concurrency=0,
        timeout_seconds=300.0,
        scaling=ScalingStatus(min_scale=0, max_scale=50, metric="concurrency", target=100.0),
    )
    return resting.model_copy(update=changes)


class FakeBackend:
    """Keeps :class:`torpor.api.backend.Backend`.

    Tests change the attributes; with ``failure`` set, every call raises it. ``tailing`` is how many readers
    a broker has, and ``following`` how many a function's logs have.
    """

    def __init__(self) -> None:
        self.declared: dict[str, FunctionStatus] = {}
        self.trigger_list: list[TriggerStatus] = []
        self.schedule_list: list[ScheduleStatus] = []
        self.broker_list = [
            BrokerStatus(name="default", namespace="default", url=f"{URL}/events/default/default")
        ]
        self.platform = PlatformStatus(
            version="0.1.0",
            started_at=EPOCH,
            gateway_url=URL,
            parts=(PartStatus(name="gateway", healthy=True), PartStatus(name="events", healthy=True)),
        )
        self.lines: dict[str, list[LogLine]] = {}
        self.blobs: dict[str, tuple[bytes, str | None]] = {}
        self.letters: dict[str, DeadLetter] = {}
        self.replayed: list[str] = []
        self.explanations: list[Explanation] = []
        self.known_calls: dict[str, CallStatus] = {}
        self.archived: list[ReplayedEvent] = []
        self.again: list[tuple[str, str]] = []
        self.failure: TorporError | None = None
        self._followers: dict[str, list[asyncio.Queue[LogLine]]] = {}
        self._tails: dict[str, list[asyncio.Queue[WireEvent | TorporError]]] = {}

    def add(self, *functions: FunctionStatus) -> None:
        """Declare ``functions``."""
        self.declared.update({f"{function.namespace}/{function.name}": function for function in functions})

    def write(self, key: str, text: str, *, instance: str = "instance-1") -> None:
        """Have an instance of the function ``key`` write a line."""
        line = LogLine(time=EPOCH, instance=instance, stream="stdout", text=text)
        self.lines.setdefault(key, []).append(line)
        for queue in self._followers.get(key, ()):
            queue.put_nowait(line)

    def publish(self, broker: str, event: WireEvent | TorporError) -> None:
        """Have the broker take in ``event``, or have those who read its events fail with it."""
        for queue in self._tails.get(broker, ()):
            queue.put_nowait(event)

    def tailing(self, broker: str = "default/default") -> int:
        """How many read the broker's events at the moment."""
        return len(self._tails.get(broker, ()))

    def following(self, key: str) -> int:
        """How many follow the function's logs at the moment."""
        return len(self._followers.get(key, ()))

    # --- the protocol ---------------------------------------------------------------------------------------

    async def functions(self) -> Sequence[FunctionStatus]:
        """Every declared function."""
        self._fail()
        return list(self.declared.values())

    async def function(self, key: str) -> FunctionStatus | None:
        """One function."""
        self._fail()
        return self.declared.get(key)

    async def triggers(self) -> Sequence[TriggerStatus]:
        """Every trigger."""
        self._fail()
        return self.trigger_list

    async def schedules(self) -> Sequence[ScheduleStatus]:
        """Every schedule."""
        self._fail()
        return self.schedule_list

    async def brokers(self) -> Sequence[BrokerStatus]:
        """Every broker."""
        self._fail()
        return self.broker_list

    async def status(self) -> PlatformStatus:
        """The platform."""
        self._fail()
        return self.platform

    async def logs(self, key: str, *, tail: int, follow: bool) -> AsyncIterator[LogLine]:
        """Lines that :meth:`write` wrote."""
        queue: asyncio.Queue[LogLine] = asyncio.Queue()
        kept = self.lines.get(key, [])[-tail:] if tail else []
        followers = self._followers.setdefault(key, [])
        followers.append(queue)
        try:
            for line in kept:
                yield line
            while follow:
                yield await queue.get()
        finally:
            followers.remove(queue)

    async def tail(self, broker: str) -> AsyncIterator[WireEvent]:
        """Events that :meth:`publish` brings."""
        self._fail()
        queue: asyncio.Queue[WireEvent | TorporError] = asyncio.Queue()
        self._tails.setdefault(broker, []).append(queue)
        return self._events(broker, queue)

    async def _events(
        self, broker: str, queue: asyncio.Queue[WireEvent | TorporError]
    ) -> AsyncIterator[WireEvent]:
        try:
            while True:
                item = await queue.get()
                if isinstance(item, TorporError):
                    raise item
                yield item
        finally:
            self._tails[broker].remove(queue)

    async def dead_letters(self, selection: LetterSelection) -> AsyncIterator[DeadLetter]:
        """Those of ``letters`` that are selected, without their events."""
        self._fail()
        return self._selected(selection)

    async def _selected(self, selection: LetterSelection) -> AsyncIterator[DeadLetter]:
        for letter in sorted(self.letters.values(), key=lambda each: (each.broker, each.at)):
            if _is_selected(letter, selection):
                yield letter.model_copy(update={"event": None, "answer": None})

    async def dead_letter(self, letter_id: str) -> DeadLetter | None:
        """One of ``letters``."""
        self._fail()
        return self.letters.get(letter_id)

    async def replay(self, action: LetterAction) -> Sequence[LetterOutcome]:
        """Take them out of ``letters``; their ids are in ``replayed`` then."""
        outcomes = self._remove(action, "replayed")
        if not action.dry_run:
            self.replayed += [each.id for each in outcomes if each.outcome == "replayed"]
        return outcomes

    async def drop(self, action: LetterAction) -> Sequence[LetterOutcome]:
        """Take them out of ``letters``."""
        return self._remove(action, "dropped")

    def _remove(self, action: LetterAction, outcome: Literal["replayed", "dropped"]) -> list[LetterOutcome]:
        self._fail()
        outcomes = []
        for letter_id in dict.fromkeys(action.ids):
            letter = self.letters.get(letter_id) if action.dry_run else self.letters.pop(letter_id, None)
            if letter is None:
                detail = "there is no such dead letter"
                outcomes.append(LetterOutcome(id=letter_id, outcome="unknown", detail=detail))
            else:
                detail = f"event {letter.event_id!r} of trigger {letter.trigger}"
                outcomes.append(LetterOutcome(id=letter_id, outcome=outcome, detail=detail))
        return outcomes

    async def replay_events(self, broker: str, replay: Replay) -> ReplayPage:
        """A page of ``archived``, which ``again`` has then."""
        self._fail()
        conditions = selectors.parse(replay.filters)
        kept = [
            (place, each)
            for place, each in enumerate(self.archived, start=1)
            if place > replay.after
            and replay.since <= each.at < replay.until
            and all(one.matches({"type": each.type, "source": each.source}) for one in conditions)
        ]
        page = kept[: replay.limit]
        if not replay.dry_run:
            self.again += [(broker, each.id) for _, each in page]
        more = len(kept) > len(page)
        return ReplayPage(
            items=tuple(each for _, each in page),
            next_since=replay.since if more else None,
            next_after=page[-1][0] if more else 0,
        )

    async def explain(self, question: Question) -> Answer:
        """Those of ``explanations`` that are meant."""
        self._fail()
        items = [
            each
            for each in self.explanations
            if each.id == question.id
            and question.source in (each.source, None)
            and question.broker in (each.broker, None)
        ]
        looked_at = tuple(f"{each.namespace}/{each.name}" for each in self.broker_list)
        return Answer(looked_at=looked_at, since=EPOCH, items=tuple(items))

    async def call(self, call_id: str) -> CallStatus | None:
        """One of ``known_calls``."""
        self._fail()
        return self.known_calls.get(call_id)

    async def calls(self, selection: CallSelection) -> CallPage:
        """A page of ``known_calls``, the newest first."""
        self._fail()
        newest = sorted(self.known_calls.values(), key=lambda each: each.accepted_at, reverse=True)
        meant = [each for each in newest if _is_meant(each, selection)]
        start = int((selection.after or "a0")[1:])
        end = start + selection.limit
        return CallPage(
            items=tuple(map(_summary, meant[start:end])), next=f"a{end}" if len(meant) > end else None
        )

    async def put_blob(self, chunks: AsyncIterator[bytes], content_type: str | None) -> str:
        """Keep the bytes."""
        self._fail()
        content = b"".join([chunk async for chunk in chunks])
        name = hashlib.sha256(content).hexdigest()
        self.blobs[name] = (content, content_type)
        return f"memory:///{name}"

    async def get_blob(self, name: str) -> OpenBlob:
        """The bytes."""
        self._fail()
        if name not in self.blobs:
            raise BlobNotFoundError(f"there is no blob {name!r}")
        content, content_type = self.blobs[name]
        return OpenBlob(len(content), content_type, _chunks(content))

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


def _is_selected(letter: DeadLetter, selection: LetterSelection) -> bool:
    attributes = {"type": letter.event_type, "source": letter.event_source, "id": letter.event_id}
    return (
        (not selection.brokers or letter.broker in selection.brokers)
        and (not selection.triggers or letter.trigger in selection.triggers)
        and (not selection.functions or letter.function in selection.functions)
        and (not selection.event_ids or letter.event_id in selection.event_ids)
        and (selection.since is None or selection.since <= letter.at)
        and (selection.until is None or letter.at < selection.until)
        and all(each.matches(attributes) for each in selectors.parse(selection.filters))
    )


def _is_meant(call: CallStatus, selection: CallSelection) -> bool:
    namespace, name = call.function.split("/")
    wanted = selection.namespace or ("default" if selection.function else namespace)
    return (
        namespace == wanted
        and selection.function in (name, None)
        and (not selection.state or call.state in selection.state)
    )


def _summary(call: CallStatus) -> CallSummary:
    ended = call.finished_at is not None
    return CallSummary(
        id=call.id,
        function=call.function,
        method=call.method,
        path=call.path,
        state=call.state,
        accepted_at=call.accepted_at,
        finished_at=call.finished_at,
        attempts=call.attempts if ended else None,
        status=call.result.status if call.result is not None else None,
        reason=call.reason if ended else "",
    )


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 65_536):
        yield content[start : start + 65_536]
