"""Takes one message to a function, and makes durable what follows: its replies, a retry, or dead letters.

The order is what keeps events from being lost: the replies are in the log before the delivery is
acknowledged. Made again after a crash, it ends the same, since replies are appended under the identity that
their source and id give.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

from torpor.binding import validate
from torpor.errors import (
    AnswerTooLargeError,
    EventLogError,
    MalformedEventError,
    RecordTooLargeError,
    TransportError,
)
from torpor.events import names
from torpor.events.attempts import answer_of, attempt_of
from torpor.events.burials import Burial, Burials
from torpor.events.dead_letters import dead_letters, reduced, salvaged
from torpor.events.delivery import Answer, DeadLetter, Delivered, NoAnswer, Retry, Schedule, decide
from torpor.events.patience import Patience
from torpor.events.records import died, taken_in, tried
from torpor.events.replies import replies
from torpor.events.sender import instance_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torpor.binding import WireEvent
    from torpor.clock import Clock
    from torpor.events.claims import Claims
    from torpor.events.filters import Matcher
    from torpor.events.intake import Intake
    from torpor.events.log import Delivery, EventLog, Record
    from torpor.events.recorder import Recorder
    from torpor.events.sender import Sender
    from torpor.events.stats import Stats
    from torpor.spec.models import Trigger
    from torpor.transport import Response

_LOG = logging.getLogger("torpor.events")
PREFER = b"\r\nprefer: reply"
"""Knative's data plane contract: that a reply is welcome."""
_SMALL_BYTES = 64 * 1024
"""Most of an event and its answer for which others are called before that is written."""


@dataclass(frozen=True)
class Route:
    """A trigger, ready to be worked with.

    ``timeout_seconds`` bounds one delivery, and ``parallelism`` how many are under way.
    With ``sink`` it is the way of the trigger's dead letters to their sink: who does not take one there
    leaves it where it is. With ``direct`` it stands for all ways of a broker's events to functions by name.
    """

    trigger: Trigger
    matcher: Matcher
    schedule: Schedule
    timeout_seconds: float
    parallelism: int
    sink: bool = False
    direct: bool = False

    @cached_property
    def key(self) -> str:
        """The trigger's key."""
        return self.trigger.key

    @cached_property
    def broker_key(self) -> str:
        """The key of its broker."""
        return self.trigger.broker_key

    @cached_property
    def function_key(self) -> str:
        """The key of its function."""
        return self.trigger.function_key

    @cached_property
    def one_worker(self) -> bool:
        """Whether no two processes may deliver for it at the same time."""
        return self.trigger.spec.one_worker

    @cached_property
    def one_by_one(self) -> bool:
        """Whether each event is settled before the next one is begun."""
        return self.trigger.spec.one_by_one

    @cached_property
    def slot(self) -> str:
        """What tells it from all others, the way to the trigger's sink among them."""
        if self.direct:
            return direct_slot(self.trigger.broker_key)
        return f"{self.key} sink" if self.sink else self.key

    def addressed(self, mark: str, revision: str | None = None) -> str:
        """The key of an event that is for it alone; ``mark`` tells two apart."""
        if names.meant_by_name(self.key) is None:
            return names.addressed_key(self.key, mark)
        return names.direct_key(self.trigger.spec.subscriber.function, revision, mark)


def direct_slot(broker_key: str) -> str:
    """The slot of what brings a broker's events to functions by name."""
    return f"{broker_key} direct"


class Message(NamedTuple):
    """What is sent, and the events that it stands for: they become the dead letters, if it comes to that.

    ``fields`` are header lines, ``group`` is the name of a joined group.
    """

    fields: bytes
    body: bytes
    events: Sequence[WireEvent]
    group: str | None = None


class Courier:
    """Delivers messages for all triggers."""

    def __init__(
        self,
        log: EventLog,
        sender: Sender,
        clock: Clock,
        claims: Claims,
        stats: Stats,
        recorder: Recorder,
        intake: Intake,
    ) -> None:
        self.recorder = recorder
        self.intake = intake
        self._log = log
        self._patience = Patience(clock)
        self._burials = Burials()
        self._sender = sender
        self._clock = clock
        self.claims = claims
        self.stats = stats

    async def deliver(
        self, route: Route, message: Message, delivery: Delivery, answered: Callable[[], None] | None = None
    ) -> bool:
        """One attempt. True when the message is done with, which leaves ``delivery`` to be acknowledged.

        ``answered`` is called when the function has done its part, replies are still to be written, and the
        next event need not wait for them.

        False when it was given back to be tried again. To acknowledge it is :meth:`acknowledge`'s, which
        has it written down before. Waits for as long as replies can't be made durable; what becomes a dead
        letter and can't is given back, and its function not called again. Raises
        :class:`~torpor.errors.EventLogError`.
        """
        end = self.burial_of(delivery) or await self._attempt(route, message, delivery, answered)
        return await self.settle(route, message, delivery, end) if isinstance(end, Burial) else end

    def burial_of(self, delivery: Delivery) -> Burial | None:
        """What is known of an event that becomes a dead letter, and could not be written as one yet."""
        return self._burials.of(delivery.record.sequence)

    async def settle(self, route: Route, message: Message, delivery: Delivery, burial: Burial) -> bool:
        """Make it a dead letter; ``False`` where that can't be done yet, and it is given back."""
        try:
            await self.bury(route, message, delivery, burial.why, burial.data, attempts=burial.attempts)
        except EventLogError:
            await self.put_off(delivery, burial)
            return False
        self.settled(delivery)
        return True

    def settled(self, delivery: Delivery) -> None:
        """It was made dead letters, all of it."""
        self._burials.done(delivery.record.sequence)

    async def put_off(self, delivery: Delivery, burial: Burial) -> None:
        """Give back what can't be made a dead letter yet; its function is not called again."""
        await delivery.retry(self._burials.put_off(delivery.record.sequence, burial))

    async def _attempt(
        self, route: Route, message: Message, delivery: Delivery, answered: Callable[[], None] | None
    ) -> bool | Burial:
        """One attempt: whether the message is done with, or that it becomes a dead letter."""
        counts = self.stats.of_sink(route.key) if route.sink else self.stats.of(route.key)
        if delivery.attempt > 1:
            counts.redelivered += 1
        self.recorder.began()
        try:
            decision, response = await self._try(route, message, delivery, answered)
        finally:
            self.recorder.ended()
        if isinstance(decision, Delivered):
            counts.delivered += 1
            return True
        counts.failed += 1
        about = {"trigger": route.key, "event": message.events[0].id, "attempt": delivery.attempt}
        if isinstance(decision, Retry):
            _LOG.info(
                "a delivery failed and is tried again",
                extra={**about, "reason": decision.reason, "delay_seconds": decision.delay_seconds},
            )
            await self.recorder.flush(route.broker_key)
            await delivery.retry(decision.delay_seconds)
            return False
        if route.sink:
            counts.dead_lettered += 1
            _LOG.warning("a sink does not take a dead letter", extra={**about, "reason": decision.reason})
            return True
        _LOG.warning("an event becomes a dead letter", extra={**about, "reason": decision.reason})
        return Burial(decision, delivery.attempt, response.body if response else b"")

    def problem(self, route: Route) -> str:
        """What keeps the trigger's deliveries from being done with, if anything does."""
        return self._patience.problem(route.slot)

    async def acknowledge(self, route: Route, delivery: Delivery) -> None:
        """Acknowledge a delivery that is done with, once what happened is written down.

        Where the next one must not be begun before, this waits for it.
        """
        broker_key = route.broker_key
        if route.one_worker:
            await self.recorder.flush(broker_key)
            await delivery.ack()
        else:
            await self.recorder.afterwards(broker_key, delivery.ack)

    async def _try(
        self, route: Route, message: Message, delivery: Delivery, answered: Callable[[], None] | None
    ) -> tuple[Delivered | Retry | DeadLetter, Response | None]:
        """Call the function, write its replies, and have it noted."""
        at, began = self._clock.now(), self._clock.monotonic()
        fields = b"%b%b\r\ntorpor-attempt: %d" % (message.fields, PREFER, delivery.attempt)
        response: Response | None = None
        outcome: Answer | NoAnswer | DeadLetter
        try:
            response = await self._sender.send(
                route.function_key, fields, message.body, route.timeout_seconds
            )
            outcome = answer_of(response, self._clock.now())
        except AnswerTooLargeError as error:
            outcome = DeadLetter(f"the function's answer is too large: {error}")
        except TransportError as error:
            outcome = NoAnswer(f"the function did not answer: {error}")
        took_seconds = self._clock.monotonic() - began
        first = message.events[0]
        decision = decide(route.schedule, delivery.attempt, outcome, first.id)
        written = 0
        if isinstance(decision, Delivered) and response is not None:
            result = await self._publish(route, message, response, answered)
            if isinstance(result, DeadLetter):
                decision = result
            else:
                written = result
        attempt = attempt_of(
            route.slot,
            delivery.attempt,
            decision,
            took_seconds,
            status=response.status if response is not None else None,
            instance=instance_of(response) if response is not None else "",
            replies=written,
        )
        line = tried(message.events, message.group, attempt, at=at, by=self.recorder.name)
        self.recorder.add(route.broker_key, [line])
        return decision, response

    def apart(self) -> Courier:
        """The same courier for one subscription: what it remembers of records is of that one's stream."""
        other = copy.copy(self)
        other._burials = Burials()  # noqa: SLF001 - it is of this class
        return other

    def through(self, sender: Sender) -> Courier:
        """The same courier, but that it calls functions by ``sender``."""
        other = copy.copy(self)
        other._sender = sender  # noqa: SLF001 - it is of this class
        return other

    async def write_replies(self, route: Route, message: Message, response: Response) -> bool:
        """Append the replies in ``response``, whenever that can be done; ``False`` where it never can."""
        return not isinstance(await self._publish(route, message, response), DeadLetter)

    async def refuses(self, route: Route, delivery: Delivery) -> bool:
        """Whether the event is none that can be delivered; then it is a dead letter, and done with.

        Nothing of the platform makes such events, but other programs may have access to a broker. Raises
        :class:`~torpor.errors.EventLogError`.
        """
        event = delivery.record.event
        try:
            validate(event.attributes)
        except MalformedEventError as error:
            reason = f"it is no valid CloudEvent: {error}"
        else:
            return False
        about = {"trigger": route.key, "event": event.id, "reason": reason}
        if route.sink:
            self.stats.of_sink(route.key).dead_lettered += 1
            _LOG.warning("a sink is not given a dead letter", extra=about)
        else:
            _LOG.warning("an event becomes a dead letter", extra=about)
            message, attempts = Message(b"", b"", [salvaged(event)]), delivery.attempt - 1
            await self.bury(route, message, delivery, DeadLetter(reason), attempts=attempts)
        await self.acknowledge(route, delivery)
        return True

    async def bury(
        self,
        route: Route,
        message: Message,
        delivery: Delivery,
        why: DeadLetter,
        data: bytes = b"",
        *,
        attempts: int | None = None,
        noted: bool = True,
    ) -> None:
        """Make the events of ``message``, which ``delivery`` brought, dead letters of its broker.

        ``attempts`` says how many there were, where this delivery was none. It is ``noted``, unless others
        that it brought follow.
        """
        records = dead_letters(
            message.events,
            trigger_key=route.key,
            function_key=route.function_key,
            sequence=delivery.record.sequence,
            attempt=delivery.attempt if attempts is None else attempts,
            reason=why.reason,
            code=why.code,
            data=data,
        )
        broker_key = route.broker_key
        try:
            new = await self._keep(names.dead_stream(broker_key), records)
        except EventLogError as error:
            self._patience.failed(route.slot, "dead letters", error)
            raise
        self._patience.succeeded(route.slot)
        self.stats.of(route.key).dead_lettered += new  # not in one, else what others add meanwhile is lost
        if not noted:
            return
        line = died(
            message.events,
            message.group,
            at=self._clock.now(),
            by=self.recorder.name,
            trigger=route.key,
            sequence=delivery.record.sequence,
            why=why.reason,
        )
        self.recorder.add(broker_key, [line])
        await self.recorder.flush(broker_key)

    async def _keep(self, stream: str, letters: Sequence[Record]) -> int:
        """Append dead letters; how many of them were new."""
        try:
            return sum(await self._log.append(stream, letters))
        except RecordTooLargeError:
            pass  # one of them, of an event that another program wrote: for those of others there is room
        kept = 0
        for letter in letters:
            try:
                kept += sum(await self._log.append(stream, [letter]))
            except RecordTooLargeError as error:
                kept += sum(await self._log.append(stream, [reduced(letter, str(error))]))
        return kept

    async def _publish(
        self, route: Route, message: Message, response: Response, answered: Callable[[], None] | None = None
    ) -> DeadLetter | int:
        """Append the replies, all or none, and say how many they are; or why they never can be appended."""
        try:
            events = replies(response, message.events)
        except MalformedEventError as error:
            return DeadLetter(str(error), response.status)
        if not events:
            return 0
        size = len(message.body) + len(response.body)  # which is in memory while it waits
        if answered is not None and size <= _SMALL_BYTES and not route.one_by_one:
            answered()
        broker_key = route.broker_key
        at = self._clock.now()
        try:
            new = await self._patience.write(route.slot, "replies", partial(self._reply, broker_key, events))
        except RecordTooLargeError as error:
            return DeadLetter(
                f"the function's reply is too large: {self.claims.too_large(error)}", response.status
            )
        first = message.events[0]
        lines = taken_in(
            events,
            new,
            at=at,
            by=self.recorder.name,
            how="reply",
            trigger=route.slot,
            of=(first.id, first.source) if message.group is None else message.group,
        )
        self.recorder.add(broker_key, lines)
        return len(events)

    async def _reply(self, broker_key: str, events: Sequence[WireEvent]) -> list[bool]:
        return await self.intake.reply(broker_key, [await self.claims.check_in(each) for each in events])
