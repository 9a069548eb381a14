"""One joining trigger at work: parts are held in the log until their group is whole, then sent as a batch.

What is in the log, and why neither a crash nor a second process changes what a group becomes, is told in
:mod:`torpor.events.join_log`. Which groups are open is in memory as well; who begins learns it from the log,
before it takes parts. Meanwhile these wait in the broker, and nothing else of the platform waits with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING

from torpor.binding import BATCH, WireEvent, encode_batch, encode_value
from torpor.clock import Together, cancel
from torpor.errors import EventLogError, RecordTooLargeError, StreamFullError, SupersededError, TorporError
from torpor.events import names
from torpor.events.burials import Burial
from torpor.events.courier import Courier, Message, Route
from torpor.events.delivery import DeadLetter
from torpor.events.fields import trace_fields
from torpor.events.join import Groups, Overdue, Part, Seen, Unfit, part_of
from torpor.events.join_log import JoinLog, ending_of, endings_spec
from torpor.events.join_parts import MAX_GROUP_BYTES, Loader, pages
from torpor.events.join_room import Room, size_of
from torpor.events.pump import Pump
from torpor.events.records import group_ended, part_dealt_with
from torpor.events.subscription import Sieve, consumer_spec
from torpor.events.throttle import Throttle
from torpor.events.waiting import for_each, sleep_or
from torpor.transport import encode_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from torpor.clock import Clock
    from torpor.events.claims import Claims
    from torpor.events.join_parts import Parts
    from torpor.events.log import Delivery, EventLog

_LOG = logging.getLogger("torpor.events")
_AT_ONCE = 64
_RECENT = 10_000
_PAUSE_SECONDS = 1.0
_WHOLE, _PARTIAL, _EXPIRED = "whole", "partial", "expired"


class JoinSubscription:
    """Joins the groups of a trigger; ``superseded`` is called when another process does so now.

    Then it takes nothing any more, and what it has not stored is for the other at once.
    """

    def __init__(
        self,
        route: Route,
        log: EventLog,
        clock: Clock,
        courier: Courier,
        claims: Claims,
        *,
        max_bytes: int,
        shared: bool = False,
        fresh: bool = False,
        superseded: Callable[[JoinSubscription], None] | None = None,
    ) -> None:
        join = route.trigger.spec.join
        if join is None:
            raise ValueError(f"trigger {route.key} does not join")
        self.route = route
        self._clock = clock
        self._courier = courier
        self._claims = claims
        self._loader = Loader(claims)
        self._superseded = superseded
        self._on_timeout = _EXPIRED if join.on_timeout == "deadLetter" else _PARTIAL
        self._groups = Groups(join.timeout_seconds)
        self._ended: OrderedDict[str, str] = OrderedDict()  # groups that ended lately, and how
        self._store = JoinLog(log, route.key, max_bytes)
        self._room = Room(max_bytes)
        self._look = Together(self._look_now)
        self._news = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self._losing: asyncio.Task[None] | None = None
        self._parts = Pump(log, clock, consumer_spec(route, fresh=fresh), self._take, _AT_ONCE)
        self._endings = Pump(log, clock, endings_spec(route.key), self._deliver, route.parallelism)
        self._throttle = Throttle(route.trigger.spec.rate_limit, clock)
        self._sieve = Sieve(route, self._parts, courier, shared=shared)

    @property
    def busy(self) -> int:
        """How many parts and groups are being handled."""
        return self._parts.busy + self._endings.busy - self._throttle.waiting

    @property
    def problem(self) -> str:
        """What keeps parts waiting."""
        return self._room.problem(self._clock.monotonic())

    @property
    def lost(self) -> bool:
        """Whether another process joins this trigger now."""
        return self._losing is not None

    async def start(self) -> None:
        """Begin; from then on no event passes the trigger by. What the log holds is taken up meanwhile."""
        await self._store.open()
        await self._parts.open()
        await self._endings.open()
        self._work = asyncio.create_task(self._join())
        self._work.add_done_callback(self._fell)

    async def _join(self) -> None:
        while not await self._take_up():
            await self._clock.sleep(_PAUSE_SECONDS)
        await self._parts.start()
        await self._watch()

    def _fell(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("joining ended unexpectedly", exc_info=error, extra={"trigger": self.route.key})

    async def pending(self) -> int:
        """How many parts and groups wait, or are under way."""
        if self.lost:
            raise EventLogError("another process joins the groups of this trigger now")
        if self._work is not None and self._work.done() and not self._work.cancelled():
            raise EventLogError("joining has ended unexpectedly; the log has the cause")
        return await self._parts.pending() + await self._endings.pending() + len(self._groups)

    async def waiting_since(self) -> float | None:
        """When the oldest part came that was not begun (seconds since the epoch), if one waits."""
        return await self._parts.waiting_since()

    async def halt(self) -> None:
        """Begin nothing more; what is under way can go on while another process begins."""
        working = () if self._work is None else (cancel(self._work),)
        await asyncio.gather(self._parts.halt(), self._endings.halt(), *working)
        self._throttle.end()

    async def stop(self, grace_seconds: float) -> None:
        """Stop; what is not done after ``grace_seconds`` is taken up again later."""
        await self.halt()
        if self._losing is not None:
            await asyncio.wait([self._losing])
        await asyncio.gather(self._parts.stop(grace_seconds), self._endings.stop(grace_seconds))

    # --- parts come -----------------------------------------------------------------------------------------

    async def _take(self, delivery: Delivery) -> None:
        try:
            await self._take_in(delivery)
        except SupersededError:
            if self._losing is not None:
                await asyncio.wait([self._losing])  # or it would come here again
            await delivery.retry(0.0)

    async def _take_in(self, delivery: Delivery) -> None:
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
        if not self._room.is_fresh(self._clock.monotonic()):
            await self._look()
        if (ending := self._ended.get(part.group)) is not None:  # it ended since it was looked for
            await self._late(event, part, delivery, ending)
            return
        size = 0 if self._groups.has(part) else size_of(event)
        opens = not self._groups.knows(part.group)
        if (unfit := self._groups.check(part)) is not None:
            await self._refuse(event, delivery, unfit)
        elif size and not self._room.take(size, opens=opens, now=self._clock.monotonic()):
            await delivery.retry(_PAUSE_SECONDS)
        else:
            try:
                await self._enter(event, part, delivery)
            finally:
                self._room.done(size)

    async def _enter(self, event: WireEvent, part: Part, delivery: Delivery) -> None:
        if not self._groups.reserve(part, self._clock.now()):
            await delivery.retry(_PAUSE_SECONDS)
            return
        self._news.set()
        try:
            await self._keep(event, part, delivery)
        except StreamFullError:  # what an event takes there can't be known in advance
            self._room.refused(self._clock.monotonic())
            await delivery.retry(_PAUSE_SECONDS)
        except RecordTooLargeError as error:  # another program wrote it: those of others leave room
            await self._bury(event, delivery, f"the event can't be held: {error}")

    async def _look_now(self) -> None:
        """See how much is held."""
        began = self._clock.monotonic()
        self._room.begin()
        self._room.seen(await self._store.size_bytes(), began)

    async def _refuse(self, event: WireEvent, delivery: Delivery, unfit: Unfit) -> None:
        await self._bury(event, delivery, f"the event cannot be joined: {unfit.reason}")

    async def _keep(self, event: WireEvent, part: Part, delivery: Delivery) -> None:
        with self._told():
            await self._store.add_part(part, delivery.record.sequence, event)
        ending = self._ended.get(part.group)
        if ending is not None:  # it ended while this part was being stored
            await self._late(event, part, delivery, ending)
            return
        seen = self._groups.observe(part, self._clock.now())
        self._news.set()
        self._note(event, part, "kept")
        if seen is Seen.WHOLE:
            await self._end(part.group, _WHOLE, _all_came(part.size))
        await self._done(delivery)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Take nothing any more once another process joins this trigger, and tell whoever wants to know."""
        try:
            yield
        except SupersededError:
            if self._losing is None:
                _LOG.warning("another process joins a trigger now", extra={"trigger": self.route.key})
                self._losing = asyncio.create_task(self.halt())
                self._losing.add_done_callback(self._fell)
            if self._superseded is not None:
                self._superseded(self)
            raise

    async def _done(self, delivery: Delivery) -> None:
        """Acknowledge a part, once what became of it is written down."""
        await self._courier.recorder.flush(self.route.broker_key)
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
        recorder.add(self.route.broker_key, [line])

    async def _late(self, event: WireEvent, part: Part, delivery: Delivery, ending: str) -> None:
        """A part of an ended group: of a whole one it is a duplicate, of another it must not vanish."""
        if names.addressee(delivery.record.key) is not None:
            await self._replayed(event, part, delivery, ending)
        else:
            await self._settle_late(event, part, delivery, ending)

    async def _replayed(self, event: WireEvent, part: Part, delivery: Delivery, ending: str) -> None:
        """A dead letter comes back: it opens its group anew, unless the group ended since it was replayed."""
        if await self._store.is_ending(part.group):  # what belonged to it before is still to be removed
            await delivery.retry(_PAUSE_SECONDS)
            return
        mark = await self._store.mark(part.group)
        if mark is not None and float(mark.attributes.get("endedat", "0")) >= delivery.record.stored_at:
            await self._settle_late(event, part, delivery, ending)
            return
        await self._store.remove_mark(part.group)
        self._ended.pop(part.group, None)
        await self._admit(event, part, delivery)

    async def _settle_late(self, event: WireEvent, part: Part, delivery: Delivery, ending: str) -> None:
        if ending == _WHOLE and await self._store.has_part(part):
            self._note(event, part, "left out", "its group has all its parts")
            await self._done(delivery)
            return
        included = await self._store.included(part.group)
        if included is None and await self._store.is_ending(part.group):  # it is still being dealt with
            await delivery.retry(_PAUSE_SECONDS)
        elif included is None:  # and how it was is not known any more
            self._ended.pop(part.group, None)
            await delivery.retry(0.0)
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
        await self._courier.bury(self.route, Message(b"", b"", [event]), delivery, DeadLetter(reason))
        await delivery.ack()

    # --- groups end -----------------------------------------------------------------------------------------

    async def _end(self, group: str, how: str, reason: str) -> None:
        """Write down how the group ends, unless that was decided before."""
        with self._told():
            new = await self._store.add_ending(group, how, reason)
        if not new:
            how = await self._ending(group) or how
        else:
            recorder, broker_key = self._courier.recorder, self.route.broker_key
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
        return self._ended.get(group) or await self._store.ending(group)

    async def _watch(self) -> None:
        """End the groups whose time is up."""
        while True:
            due = self._groups.next_due()
            wait_seconds = None if due is None else max(due - self._clock.now(), 0.001)
            await sleep_or(self._clock, wait_seconds, self._news.wait())
            self._news.clear()
            try:
                await for_each(self._groups.overdue(self._clock.now()), self._end_overdue, _AT_ONCE)
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
        group, how, reason = ending_of(ending)
        async with self._to_send(group, how, delivery) as parts:
            # Asked after they were read: whoever dealt with the group before has then removed some, or none.
            if await self._store.mark(group) is None:
                if parts is None:
                    burial = self._courier.burial_of(delivery) or Burial(
                        self._why(how, reason), delivery.attempt
                    )
                    try:
                        indexes = await self._bury_group(group, burial, delivery)
                    except EventLogError:
                        await self._courier.put_off(delivery, burial)
                        return
                    self._courier.settled(delivery)
                elif await self._send(group, [event for _, event in parts], delivery):
                    indexes = [index for index, _ in parts]
                else:
                    return
                if not self._endings.leased():
                    raise EventLogError("another process may have dealt with the group meanwhile")
                await self._store.add_mark(ending, delivery.record.stored_at, indexes)
        await self._done(delivery)
        await self._store.clear(group)

    def _to_send(self, group: str, how: str, delivery: Delivery) -> AbstractAsyncContextManager[Parts | None]:
        """A block that has the parts of a group, if it is to be sent; else they become dead letters."""
        if how == _EXPIRED or self._courier.burial_of(delivery):
            return contextlib.nullcontext()
        return self._loader.loaded(self._store.parts(group, delivery.record.sequence))

    def _why(self, how: str, reason: str) -> DeadLetter:
        """Why a group is not sent."""
        if how == _EXPIRED:
            return DeadLetter(f"the group was not whole in time: {reason}")
        large = f"the group has more than {MAX_GROUP_BYTES} bytes, too many to send"
        return DeadLetter(self._claims.too_large(large))

    async def _send(self, group: str, events: list[WireEvent], delivery: Delivery) -> bool:
        """Have the function called with a whole group; whether that is done with."""
        if not events:
            self._lost_parts(group)
            return True
        fields = encode_fields([(b"content-type", BATCH), (b"torpor-joined", encode_value(group))])
        if not await self._throttle.turn():
            await delivery.retry(0.0)
            return False
        message = Message(fields + trace_fields(events[0]), encode_batch(events), events, group)
        return await self._courier.deliver(self.route, message, delivery)

    async def _bury_group(self, group: str, burial: Burial, delivery: Delivery) -> list[int]:
        """Make the parts of a group dead letters, some at a time; the indexes of all.

        After a crash all are made again, which changes nothing. What became of the group is noted once.
        """
        before, why = delivery.record.sequence, burial.why
        about = {"trigger": self.route.key, "group": group, "reason": why.reason}
        _LOG.warning("the parts of a group become dead letters", extra=about)
        indexes: list[int] = []
        async for page, is_last in pages(self._store.parts(group, before)):
            if not page:
                self._lost_parts(group)
                break
            message = Message(b"", b"", [event for _, event in page], group)
            await self._courier.bury(
                self.route, message, delivery, why, burial.data, attempts=burial.attempts, noted=is_last
            )
            indexes += [index for index, _ in page]
        return indexes

    def _lost_parts(self, group: str) -> None:
        _LOG.error("a group has lost its parts", extra={"trigger": self.route.key, "group": group})

    # --- after a start --------------------------------------------------------------------------------------

    async def _take_up(self) -> bool:
        """Learn from the log which groups are open, and go on with what a crash interrupted; whether all is
        known now.
        """
        try:
            ended = await self._store.endings()
            await self._endings.start()
            await for_each(ended, self._clear_leftover, _AT_ONCE)
            async for part, stored_at in self._store.all_parts():
                if part.group not in ended:
                    self._groups.observe(part, stored_at)
            await for_each(self._groups.names(), self._clear_leftover, _AT_ONCE)
            for group in self._groups.whole():
                await self._end(group, _WHOLE, "all parts came")
        except TorporError as error:
            about = {"trigger": self.route.key, "error": str(error)}
            _LOG.warning("which groups are open can't be learnt yet", extra=about)
            return False
        return True

    async def _clear_leftover(self, group: str) -> None:
        """Remove what is left of a group that was dealt with: a crash came in between, or parts were stored
        while it was removed.
        """
        if await self._store.mark(group) is not None:
            await self._store.clear(group)
            self._groups.close(group)


def _all_came(size: int) -> str:
    return f"all {size} parts came" if size > 1 else "its only part came"
