"""One joining trigger at work: parts are held in the log until their group is whole, then sent as a batch.

Three things are in the log, so that neither a crash of this process nor a late duplicate changes what a group
becomes:

- a *part* (``part.<group>.<index>``, the first of its index counts);
- the group's *ending* (``ready.<group>``, the first counts): whole, partial or expired. It is what gets
  delivered, by the same machinery as any event, with the parts that were stored before it;
- after that a *mark* in another stream, for :data:`MARK_SECONDS`: the group was dealt with, when it ended and
  with which parts.

A group's parts and ending are removed once the mark is there. A dead letter of the group that is replayed
after that opens the group anew: the mark goes, and parts and ending are as of a group that never was.

Which groups are open is in this process' memory alone, so one process must join a trigger at a time. That
does not hang on anybody's clock: whoever begins appends a *turn* (``turn.<unique>``), and parts and endings
are appended only while that is the newest. So a process that was superseded, and doesn't know it yet, can
write nothing that its successor has not read.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import OrderedDict
from typing import TYPE_CHECKING

import orjson

from torpor.binding import BATCH, WireEvent, encode_batch, encode_value
from torpor.clock import cancel
from torpor.errors import EventLogError, SupersededError, TorporError
from torpor.events import names
from torpor.events.courier import Courier, Message, Route
from torpor.events.delivery import DeadLetter
from torpor.events.join import Groups, Overdue, Part, Seen, Unfit, part_of
from torpor.events.log import ConsumerSpec, Delivery, EventLog, Guard, Record, StreamSpec
from torpor.events.pump import Pump
from torpor.events.records import group_ended, part_dealt_with
from torpor.events.subscription import (
    ACK_WAIT_SECONDS,
    Sieve,
    consumer_spec,
    trace_headers,
)
from torpor.events.throttle import Throttle
from torpor.events.waiting import sleep_or

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.clock import Clock
    from torpor.events.claims import Claims

_LOG = logging.getLogger("torpor.events")
MARK_SECONDS = 7 * 86_400.0
"""How long a late duplicate of a part is recognised after its group was dealt with."""
MAX_BATCH_BYTES = 8 * 1024 * 1024
"""Largest batch that carries its data; beyond it, data goes to the blob store."""
_MIN_CLAIM_BYTES = 1024
_OBSERVERS = 64
_RECENT = 10_000
_PAUSE_SECONDS = 1.0
_TURN = "turn"
_ENDING = "dev.torpor.join."
_WHOLE, _PARTIAL, _EXPIRED = "whole", "partial", "expired"


def streams(route: Route) -> list[StreamSpec]:
    """The streams that a joining trigger needs."""
    return [
        StreamSpec(names.groups_stream(route.key), once_per_key=True),
        StreamSpec(names.DONE, once_per_key=True, max_age_seconds=MARK_SECONDS),
    ]


def endings_spec(route: Route) -> ConsumerSpec:
    """The durable consumer of a joining trigger's groups that have ended."""
    return ConsumerSpec(
        names.groups_stream(route.key),
        "endings",
        keys=("ready.>",),
        ack_wait_seconds=ACK_WAIT_SECONDS,
        max_in_flight=10_000,
    )


class JoinSubscription:
    """Joins the groups of a trigger; ``superseded`` is called when another process does so now."""

    def __init__(
        self,
        route: Route,
        log: EventLog,
        clock: Clock,
        courier: Courier,
        claims: Claims,
        *,
        shared: bool = False,
        fresh: bool = False,
        superseded: Callable[[JoinSubscription], None] | None = None,
    ) -> None:
        join = route.trigger.spec.join
        if join is None:
            raise ValueError(f"trigger {route.key} does not join")
        self.route = route
        self._log = log
        self._clock = clock
        self._courier = courier
        self._claims = claims
        self._superseded = superseded
        self._on_timeout = _EXPIRED if join.on_timeout == "deadLetter" else _PARTIAL
        self._groups = Groups(join.timeout_seconds)
        self._ended: OrderedDict[str, str] = OrderedDict()  # groups that ended lately, and how
        self._stream = names.groups_stream(route.key)
        self._guard: Guard | None = None
        self._news = asyncio.Event()
        self._timer: asyncio.Task[None] | None = None
        self._parts = Pump(log, clock, consumer_spec(route, fresh=fresh), self._take, _OBSERVERS)
        self._endings = Pump(log, clock, endings_spec(route), self._deliver, route.trigger.spec.parallelism)
        self._throttle = Throttle(route.trigger.spec.rate_limit, clock)
        self._sieve = Sieve(route, self._parts, shared=shared)

    @property
    def busy(self) -> int:
        """How many parts and groups are being handled."""
        return self._parts.busy + self._endings.busy - self._throttle.waiting

    async def start(self) -> None:
        """Take up the groups that the log holds, and begin; from then on no event passes the trigger by."""
        for stream in streams(self.route):
            await self._log.ensure_stream(stream)
        self._guard = await self._take_turn()
        await self._take_up()
        await self._endings.start()
        await self._parts.start()
        self._timer = asyncio.create_task(self._watch())

    async def pending(self) -> int:
        """How many parts and groups wait, or are under way."""
        return await self._parts.pending() + await self._endings.pending() + len(self._groups)

    async def waiting_since(self) -> float | None:
        """When the oldest part came that was not begun (seconds since the epoch), if one waits."""
        return await self._parts.waiting_since()

    async def halt(self) -> None:
        """Begin nothing more; what is under way can go on while another process begins."""
        if self._timer is not None:
            await cancel(self._timer)
        await asyncio.gather(self._parts.halt(), self._endings.halt())
        self._throttle.end()

    async def stop(self, grace_seconds: float) -> None:
        """Stop; what is not done after ``grace_seconds`` is taken up again later."""
        await self.halt()
        await asyncio.gather(self._parts.stop(grace_seconds), self._endings.stop(grace_seconds))

    # --- parts come -----------------------------------------------------------------------------------------

    async def _take(self, delivery: Delivery) -> None:
        if await self._sieve.passes_by(delivery):
            return
        event = delivery.record.event
        part = part_of(event.attributes)
        if isinstance(part, Unfit):
            await self._refuse(event, delivery, part)
        elif not self._groups.knows(part.group) and (ending := await self._ending(part.group)) is not None:
            await self._late(event, part, delivery, ending)
        else:
            await self._admit(event, part, delivery)

    async def _admit(self, event: WireEvent, part: Part, delivery: Delivery) -> None:
        if (unfit := self._groups.check(part)) is not None:
            await self._refuse(event, delivery, unfit)
        elif not self._groups.reserve(part, self._clock.now()):
            await delivery.retry(_PAUSE_SECONDS)
        else:
            self._news.set()
            await self._store(event, part, delivery)

    async def _refuse(self, event: WireEvent, delivery: Delivery, unfit: Unfit) -> None:
        await self._bury(event, delivery, f"the event cannot be joined: {unfit.reason}")

    async def _store(self, event: WireEvent, part: Part, delivery: Delivery) -> None:
        key = f"part.{names.token(part.group)}.{part.index}"
        await self._append(key, f"{key}:{delivery.record.sequence}", event)
        ending = self._ended.get(part.group)
        if ending is not None:  # it ended while this part was being stored
            await self._late(event, part, delivery, ending)
            return
        seen = self._groups.observe(part, self._clock.now())
        self._news.set()
        if seen is Seen.FULL:
            await delivery.retry(_PAUSE_SECONDS)
            return
        self._note(event, part, "kept")
        if seen is Seen.WHOLE:
            await self._end(part.group, _WHOLE, f"all {part.size} parts came")
        await self._done(delivery)

    async def _done(self, delivery: Delivery) -> None:
        """Acknowledge a part, once what became of it is written down."""
        await self._courier.recorder.flush(self.route.trigger.broker_key)
        await delivery.ack()

    def _note(self, event: WireEvent, part: Part, end: str, why: str = "") -> None:
        """Have it written down what became of a part."""
        recorder = self._courier.recorder
        line = part_dealt_with(
            event,
            at=recorder.now(),
            by=recorder.name,
            trigger=self.route.key,
            end=end,
            why=why,
            group=part.group,
            index=part.index,
            size=part.size,
        )
        recorder.add(self.route.trigger.broker_key, [line])

    async def _late(self, event: WireEvent, part: Part, delivery: Delivery, ending: str) -> None:
        """A part of an ended group: of a whole one it is a duplicate, of another it must not vanish."""
        if names.addressee(delivery.record.key) is not None:
            await self._replayed(event, part, delivery, ending)
        else:
            await self._settle_late(event, part, delivery, ending)

    async def _replayed(self, event: WireEvent, part: Part, delivery: Delivery, ending: str) -> None:
        """A dead letter comes back: it opens its group anew, unless the group ended since it was replayed."""
        token = names.token(part.group)
        if await self._is_ending(token):  # what belonged to it before is still to be removed
            await delivery.retry(_PAUSE_SECONDS)
            return
        mark = await self._mark(token)
        if mark is not None and float(mark.attributes.get("endedat", "0")) >= delivery.record.stored_at:
            await self._settle_late(event, part, delivery, ending)
            return
        await self._log.purge(names.DONE, self._mark_key(token))
        self._ended.pop(part.group, None)
        await self._admit(event, part, delivery)

    async def _settle_late(self, event: WireEvent, part: Part, delivery: Delivery, ending: str) -> None:
        if ending == _WHOLE:
            self._note(event, part, "left out", "its group has all its parts")
            await self._done(delivery)
            return
        included = await self._included(part.group)
        if included is None:  # the group is still being dealt with
            await delivery.retry(_PAUSE_SECONDS)
        elif part.index in included:
            self._note(event, part, "left out", "its group had this part when it ended")
            await self._done(delivery)
        else:
            await self._bury(event, delivery, f"the event came after its group had ended ({ending})")

    async def _bury(self, event: WireEvent, delivery: Delivery, reason: str) -> None:
        _LOG.warning(
            "an event becomes a dead letter",
            extra={"trigger": self.route.key, "event": event.id, "reason": reason},
        )
        await self._courier.bury(self.route, Message([], b"", [event]), delivery, DeadLetter(reason))
        await delivery.ack()

    async def _append(self, key: str, identity: str, event: WireEvent) -> bool:
        """Append to the trigger's stream while it is this process' turn; whether it was new.

        That the first record of a key counts is what makes it one; the identity is its own, since a key may
        come again after it was removed.
        """
        try:
            [new] = await self._log.append(self._stream, [Record(key, identity, event)], guard=self._guard)
        except SupersededError:
            if self._superseded is not None:
                self._superseded(self)
            raise
        return new

    # --- groups end -----------------------------------------------------------------------------------------

    async def _end(self, group: str, how: str, reason: str) -> None:
        """Write down how the group ends, unless that was decided before."""
        ending = WireEvent(
            {
                "specversion": "1.0",
                "id": names.identity(self.route.key, group),
                "source": f"/trigger/{self.route.key}",
                "type": _ENDING + how,
                "subject": group,
                "reason": reason,
            },
            None,
        )
        key = f"ready.{names.token(group)}"
        if not await self._append(key, uuid.uuid4().hex, ending):
            how = await self._ending(group) or how
        else:
            recorder, broker_key = self._courier.recorder, self.route.trigger.broker_key
            line = group_ended(
                group, at=recorder.now(), by=recorder.name, trigger=self.route.key, end=how, why=reason
            )
            recorder.add(broker_key, [line])
            await recorder.flush(broker_key)
        self._remember(group, how)
        self._groups.close(group)

    def _remember(self, group: str, how: str) -> None:
        self._ended[group] = how
        while len(self._ended) > _RECENT:
            self._ended.popitem(last=False)

    async def _ending(self, group: str) -> str | None:
        """How the group ended, if it did."""
        known = self._ended.get(group)
        if known is not None:
            return known
        token = names.token(group)
        for stream, key in ((self._stream, f"ready.{token}"), (names.DONE, self._mark_key(token))):
            async for stored in self._log.read(stream, key):
                return stored.event.type.removeprefix(_ENDING)
        return None

    def _mark_key(self, group_token: str) -> str:
        return f"{names.token(self.route.key)}.{group_token}"

    async def _watch(self) -> None:
        """End the groups whose time is up."""
        while True:
            due = self._groups.next_due()
            wait_seconds = None if due is None else max(due - self._clock.now(), 0.001)
            await sleep_or(self._clock, wait_seconds, self._news.wait())
            self._news.clear()
            try:
                for overdue in self._groups.overdue(self._clock.now()):
                    await self._end_overdue(overdue)
            except TorporError as error:
                _LOG.warning(
                    "an overdue group could not be ended yet",
                    extra={"trigger": self.route.key, "error": str(error)},
                )
                await self._clock.sleep(_PAUSE_SECONDS)
                self._news.set()

    async def _end_overdue(self, overdue: Overdue) -> None:
        if not overdue.present:  # its parts could not be stored, and come again
            self._groups.close(overdue.group)
            return
        reason = f"{overdue.present} of {overdue.size} parts came in time"
        _LOG.warning(
            "a group is incomplete at its time-out",
            extra={"trigger": self.route.key, "group": overdue.group, "reason": reason},
        )
        await self._end(overdue.group, self._on_timeout, reason)

    # --- groups are delivered -------------------------------------------------------------------------------

    async def _deliver(self, delivery: Delivery) -> None:
        ending = delivery.record.event
        group, how = ending.attributes["subject"], ending.type.removeprefix(_ENDING)
        token = names.token(group)
        parts = await self._load(token, delivery.record.sequence)
        # Asked after they were read: whoever dealt with the group before has then removed some, or none.
        if not await self._is_marked(token):
            events = [event for _, event in parts]
            if not await self._settle(group, how, ending.attributes["reason"], events, delivery):
                return
            mark = WireEvent(
                {
                    **ending.attributes,
                    "datacontenttype": "application/json",
                    "endedat": repr(delivery.record.stored_at),
                },
                orjson.dumps([index for index, _ in parts]),
            )
            key = self._mark_key(token)
            await self._log.append(names.DONE, [Record(key, uuid.uuid4().hex, mark)])
        await self._done(delivery)
        await self._clear(token)

    async def _settle(
        self, group: str, how: str, reason: str, events: list[WireEvent], delivery: Delivery
    ) -> bool:
        if not events:
            _LOG.error("a group has lost its parts", extra={"trigger": self.route.key, "group": group})
            return True
        if how == _EXPIRED:
            why = DeadLetter(f"the group was not whole in time: {reason}")
            await self._courier.bury(self.route, Message([], b"", events, group), delivery, why)
            return True
        headers = [
            (b"content-type", BATCH),
            (b"torpor-joined", encode_value(group)),
            *trace_headers(events[0]),
        ]
        if not await self._throttle.turn():
            await delivery.retry(0.0)
            return False
        message = Message(headers, encode_batch(events), events, group)
        return await self._courier.deliver(self.route, message, delivery)

    async def _load(self, group_token: str, before: int) -> list[tuple[int, WireEvent]]:
        """The parts stored before that sequence, by index; where they are too much for one batch, their data
        goes to the blob store.
        """
        parts: list[tuple[int, WireEvent]] = []
        total_bytes = 0
        async for stored in self._log.read(self._stream, f"part.{group_token}.>"):
            if stored.sequence > before:
                continue
            event = stored.event
            total_bytes += sum(len(name) + len(value) + 6 for name, value in event.attributes.items())
            if total_bytes + len(event.data or b"") > MAX_BATCH_BYTES:
                event = await self._claims.check_in(event, _MIN_CLAIM_BYTES)
            total_bytes += len(event.data or b"")
            parts.append((int(stored.key.rpartition(".")[2]), event))
        return sorted(parts, key=lambda part: part[0])

    async def _is_marked(self, group_token: str) -> bool:
        return await self._mark(group_token) is not None

    async def _is_ending(self, group_token: str) -> bool:
        async for _ in self._log.read(self._stream, f"ready.{group_token}"):
            return True
        return False

    async def _mark(self, group_token: str) -> WireEvent | None:
        async for stored in self._log.read(names.DONE, self._mark_key(group_token)):
            return stored.event
        return None

    async def _included(self, group: str) -> set[int] | None:
        """The indexes of the parts that the group ended with; ``None`` while it is being dealt with."""
        mark = await self._mark(names.token(group))
        return None if mark is None else set(orjson.loads(mark.data or b"[]"))

    async def _clear(self, group_token: str) -> None:
        await self._log.purge(self._stream, f"part.{group_token}.>")
        await self._log.purge(self._stream, f"ready.{group_token}")

    # --- after a start --------------------------------------------------------------------------------------

    async def _take_turn(self) -> Guard:
        """Shut out whoever joined this trigger before."""
        key = f"{_TURN}.{uuid.uuid4().hex}"
        turn = WireEvent(
            {
                "specversion": "1.0",
                "id": key,
                "source": f"/trigger/{self.route.key}",
                "type": _ENDING + _TURN,
            },
            None,
        )
        await self._log.append(self._stream, [Record(key, key, turn)])
        guard: Guard | None = None
        earlier: list[str] = []
        async for stored in self._log.read(self._stream, f"{_TURN}.>"):
            if stored.key == key:
                guard = Guard(f"{_TURN}.>", stored.sequence)
            elif guard is None:
                earlier.append(stored.key)
        if guard is None:
            raise EventLogError(f"the turn at {self._stream} was not stored")
        for each in earlier:
            await self._log.purge(self._stream, each)
        return guard

    async def _take_up(self) -> None:
        """Learn from the log which groups are open, and finish what a crash interrupted."""
        ended: set[str] = set()
        async for stored in self._log.read(self._stream, "ready.>"):
            token = stored.key.partition(".")[2]
            ended.add(token)
            if await self._is_marked(token):
                await self._clear(token)
        async for stored in self._log.read(self._stream, "part.>"):
            part = part_of(stored.event.attributes)
            if isinstance(part, Part) and names.token(part.group) not in ended:
                if not self._groups.knows(part.group) and await self._is_marked(names.token(part.group)):
                    await self._clear(names.token(part.group))
                    continue
                self._groups.observe(part, stored.stored_at)
        for group in self._groups.whole():
            await self._end(group, _WHOLE, "all parts came")
