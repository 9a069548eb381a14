"""Dispatcher and ingress on the log in memory, with functions that answer as a test tells them to."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from torpor.binding import WireEvent, decode, encode_batch
from torpor.errors import BrokenError, EventLogError
from torpor.events import names
from torpor.events.declared import Callee, Declared
from torpor.events.dispatcher import Dispatcher
from torpor.events.memory import MemoryLog
from torpor.spec.models import (
    Backlog,
    Batch,
    Delivery,
    Filter,
    Join,
    Metadata,
    RateLimit,
    Subscriber,
    Trigger,
    TriggerSpec,
)
from torpor.testing.clock import MovableClock
from torpor.transport import Response
from torpor.transport.message import decode_fields

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    import pytest

    from torpor.binding import Headers
    from torpor.events.dispatcher import Retention
    from torpor.events.log import Guard, Record

BROKER = "default/default"
BATCH = [(b"content-type", b"application/cloudevents-batch+json")]


def event(event_id: str, event_type: str = "a", data: bytes | None = None, **attributes: str) -> WireEvent:
    return WireEvent(
        {"specversion": "1.0", "id": event_id, "source": "/s", "type": event_type, **attributes}, data
    )


def part(group: str, index: int, size: int, **attributes: str) -> WireEvent:
    place = {"fanoutid": group, "fanoutindex": str(index), "fanoutsize": str(size)}
    return event(
        f"{group}/{index}", "part", b"%d" % index, datacontenttype="application/json", **place, **attributes
    )


def linear(**more: Any) -> Delivery:
    """Retries after 1, 2 and 3 seconds."""
    given = {
        "retry": 3,
        "backoff_policy": "linear",
        "backoff_delay_seconds": 1.0,
        "jitter_percentage": 0,
        **more,
    }
    return Delivery(**given)


def trigger(
    name: str = "t",
    *types: str,
    delivery: Delivery | None = None,
    join: Join | None = None,
    parallelism: int = 32,
    function: str = "f",
    rate_limit: RateLimit | None = None,
    ordering: Literal["none", "key"] = "none",
    batch: Batch | None = None,
    backlog: Backlog | None = None,
    broker: str = "default",
) -> Trigger:
    filters = (Filter(any=tuple(Filter(exact={"type": each}) for each in types)),) if types else ()
    return Trigger(
        metadata=Metadata(name=name),
        spec=TriggerSpec(
            broker=broker,
            filters=filters,
            subscriber=Subscriber(function=function),
            delivery=delivery or linear(),
            parallelism=parallelism,
            rate_limit=rate_limit,
            ordering=ordering,
            batch=batch,
            backlog=backlog,
            join=join,
        ),
    )


def answer(status: int = 204, events: Sequence[WireEvent] = (), **headers: str) -> Response:
    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    if events:
        return Response(200, [*BATCH, *given], encode_batch(events))
    return Response(status, given, b"")


def replying(events: list[WireEvent], _: int, data: bytes | None = None) -> Response:
    """A function that answers each event with one of type ``reply``."""
    return answer(events=[event(f"{events[0].id}.0", "reply", data)])


class Functions:
    """Keeps :class:`torpor.events.sender.Sender`; ``behave`` says what a call answers, or raises it."""

    def __init__(self, clock: MovableClock) -> None:
        self._clock = clock
        self.behave: Callable[[list[WireEvent], int], Response | Exception] = lambda *_: answer()
        self.calls: list[tuple[float, str, list[str], int]] = []
        """When, which function, the ids of the events, the attempt."""
        self.headers: list[Headers] = []
        self.timeouts: list[float] = []
        self.under_way = self.most_under_way = 0
        self.gate: asyncio.Event | None = None
        """Where it is given, calls wait for it."""

    async def send(self, function_key: str, fields: bytes, body: bytes, timeout_seconds: float) -> Response:
        headers = decode_fields(fields)
        events = decode(headers, body) or []
        attempt = int(dict(headers)[b"torpor-attempt"])
        self.calls.append((self._clock.monotonic(), function_key, [each.id for each in events], attempt))
        self.headers.append(headers)
        self.timeouts.append(timeout_seconds)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if self.gate is not None:
                await self.gate.wait()
            result = self.behave(events, attempt)
        finally:
            self.under_way -= 1
        if isinstance(result, Exception):
            raise result
        return result

    def times(self) -> list[float]:
        return [round(at, 6) for at, *_ in self.calls]


class World:
    def __init__(self, retention: Retention | None = None) -> None:
        self.clock = MovableClock()
        self.log = MemoryLog(self.clock)
        self.functions = Functions(self.clock)
        self.retention = retention
        self.dispatcher = self._dispatcher()
        self.declared = Declared()

    def _dispatcher(self) -> Dispatcher:
        return Dispatcher(self.log, self.functions, self.clock, retention=self.retention)

    async def declare(
        self, *triggers: Trigger, functions: dict[str, Callee] | None = None, **timeouts_seconds: float
    ) -> None:
        timed = {f"default/{name}": Callee(timeout_seconds=it) for name, it in timeouts_seconds.items()}
        self.declared = Declared(triggers, [BROKER], {**timed, **(functions or {})})
        await self.dispatcher.apply(self.declared)

    async def crash(self) -> None:
        """The dispatcher dies where it stands, and another one begins."""
        for subscription in self.dispatcher._subscriptions.values():
            await subscription.stop(0.0)
        if self.dispatcher._housekeeper is not None:
            self.dispatcher._housekeeper.cancel()
        self.functions.under_way = 0
        self.dispatcher = self._dispatcher()
        await self.dispatcher.apply(self.declared)

    async def publish(self, *events: WireEvent) -> None:
        """Have events in the broker, however full it is."""
        await self.dispatcher.intake.reply(BROKER, events)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(40):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        await self.clock.advance(seconds, self.settle)

    async def stream(self, name: str) -> list[WireEvent]:
        """What is there, without the turns at a stream of groups."""
        stored = [stored async for stored in self.log.read(name, ">")]
        return [each.event for each in stored if not each.key.startswith("turn.")]

    async def events(self, event_type: str) -> list[WireEvent]:
        return [each for each in await self.stream(names.broker_stream(BROKER)) if each.type == event_type]

    async def dead(self, broker: str = BROKER) -> list[WireEvent]:
        return await self.stream(names.dead_stream(broker))

    async def pending(self) -> int:
        return sum(state.pending for state in (await self.dispatcher.states()).values())


@asynccontextmanager
async def world(retention: Retention | None = None) -> AsyncIterator[World]:
    made = World(retention)
    try:
        yield made
    finally:
        if made.functions.gate is not None:
            made.functions.gate.set()
        closing = asyncio.ensure_future(made.dispatcher.close())
        while not closing.done():
            await made.advance(1.0)
        await closing


def holding(log: MemoryLog, event_type: str, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Have the log take in nothing of a type before the event that is returned is set."""
    go, append = asyncio.Event(), log.append

    async def held(stream: str, records: Sequence[Record], *, guard: Guard | None = None) -> list[bool]:
        if any(each.event.attributes.get("type") == event_type for each in records):
            await go.wait()
        return await append(stream, records, guard=guard)

    monkeypatch.setattr(log, "append", held)
    return go


class CrashingLog:
    """A log whose calls fail at a chosen one, before or after it took effect; then it is well again."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.fail_at: int | None = None
        self.after = False
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    async def append(self, stream: str, records: object, *, guard: Guard | None = None) -> list[bool]:
        if stream.startswith("records."):  # losing one of those changes nothing else
            return await self._log.append(stream, records, guard=guard)  # type: ignore[arg-type]
        self.calls["append"] += 1
        failing = self.calls["append"] == self.fail_at
        if failing and not self.after:
            raise EventLogError("the log is out")
        new = await self._log.append(stream, records, guard=guard)  # type: ignore[arg-type]
        if failing:
            raise EventLogError("the answer was lost")
        return new


BROKEN = BrokenError("the connection broke")
