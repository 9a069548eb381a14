"""The calls of one function that nobody waits for: made, tried again, their outcomes kept and called back.

The order is what keeps calls from being lost: the outcome is in the log, and after it the callback, before
the call is acknowledged. A call that comes again after a crash and has an outcome is not made again.
Callbacks are outcomes in a stream of their own, with a consumer of each function, so that a receiver that
does not answer holds up no call and no other function, and keeps no outcome from being forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from torpor.errors import (
    AnswerTooLargeError,
    BlobError,
    BlobLostError,
    ForbiddenAddressError,
    RecordTooLargeError,
    TransportError,
)
from torpor.events import calls, names
from torpor.events.attempts import answer_of, attempt_of
from torpor.events.callback_urls import shown
from torpor.events.calls import Call, Outcome, call_of, outcome_of
from torpor.events.delivery import Answer, DeadLetter, Delivered, NoAnswer, Retry, decide, schedule
from torpor.events.intake import store_in
from torpor.events.log import ConsumerSpec, Delivery, EventLog, Record, oldest
from torpor.events.patience import Patience
from torpor.events.pump import Pump
from torpor.events.recorder import keep
from torpor.events.records import tried
from torpor.events.sender import instance_of
from torpor.events.subscription import ACK_WAIT_SECONDS, MAX_WAITING
from torpor.spec import models
from torpor.transport import encode_fields

if TYPE_CHECKING:
    from torpor.binding import WireEvent
    from torpor.clock import Clock
    from torpor.events.claims import Claims
    from torpor.events.lag import Queue
    from torpor.events.recorder import Recorder
    from torpor.events.records import Attempt
    from torpor.events.sender import Forwarder, Poster
    from torpor.events.stats import Stats
    from torpor.transport import Response

_LOG = logging.getLogger("torpor.events")
PARALLELISM = 32
"""Most calls of a function, and most of its callbacks, that are under way from one process. Of calls no more
than the function can serve at once: what waits there, waits on the time of its attempt."""
MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""How much of an answer's body is kept where there is no blob store for it."""
CALLBACK = "callback"
"""What attempts to call back are recorded as, in the place of a trigger."""
_CALLS = schedule(models.Delivery())
_CALLBACKS = schedule(models.Delivery(backoff_delay_seconds=1.0))
_CALLBACK_SECONDS = 30.0
_LARGE_AT_ONCE = 8


class Office:
    """What the workers of all functions share."""

    def __init__(
        self,
        log: EventLog,
        clock: Clock,
        forwarder: Forwarder,
        callbacks: Poster,
        claims: Claims,
        stats: Stats,
        recorder: Recorder,
    ) -> None:
        self.log = log
        self.clock = clock
        self.forwarder = forwarder
        self.callbacks = callbacks
        self.claims = claims
        self.stats = stats
        self.recorder = recorder
        self.patience = Patience(clock)
        self.large = asyncio.Semaphore(_LARGE_AT_ONCE)
        """For bodies that come from the blob store: few of them are in memory at once."""
        self.running: set[str] = set()
        """The ids of the calls that are being made."""


def _spec(stream: str, consumer: str, function_key: str) -> ConsumerSpec:
    return ConsumerSpec(
        stream=stream,
        name=consumer,
        keys=(names.call_keys(function_key),),
        ack_wait_seconds=ACK_WAIT_SECONDS,
        max_in_flight=MAX_WAITING + PARALLELISM,
        start="next",
    )


class CallWorker:
    """Works on the calls of one function; others may do so at the same time.

    A call takes ``timeout_seconds`` at most; ``parallelism`` of them are under way.
    """

    def __init__(self, function_key: str, office: Office, timeout_seconds: float, parallelism: int) -> None:
        self._function_key = function_key
        self._office = office
        self._timeout_seconds = timeout_seconds
        self.terms = (timeout_seconds, parallelism)
        """What it was made with."""
        callback = _spec(names.CALLBACKS, names.callback_consumer(function_key), function_key)
        call = _spec(names.CALLS, names.call_consumer(function_key), function_key)
        self._specs = (callback, call)  # in this order: no callback may be passed by
        self._callbacks = Pump(office.log, office.clock, callback, self._call_back, PARALLELISM)
        self._calls = Pump(office.log, office.clock, call, self._call, parallelism)

    @property
    def busy(self) -> int:
        """How many calls and callbacks are under way."""
        return self._calls.busy + self._callbacks.busy

    @property
    def queue(self) -> Queue:
        """The calls that wait, or are under way; callbacks are none of the function's work."""
        return self._calls

    async def start(self) -> None:
        """Begin; when this returns, no call passes by."""
        await self._callbacks.start()
        await self._calls.start()

    async def left(self) -> int:
        """How many calls and callbacks wait, by the log alone; has what keeps calls from passing by."""
        total = 0
        for spec in self._specs:
            consumer = await self._office.log.consumer(spec, keep=True)
            total += await consumer.pending()
            await consumer.close()
        return total

    async def pending(self) -> int:
        """How many calls and callbacks wait, or are under way."""
        return await self._calls.pending() + await self._callbacks.pending()

    async def halt(self) -> None:
        """Begin nothing more."""
        await self._calls.halt()
        await self._callbacks.halt()

    async def stop(self, grace_seconds: float) -> None:
        """Stop; what is not done after ``grace_seconds`` is done again later."""
        await asyncio.gather(self._calls.stop(grace_seconds), self._callbacks.stop(grace_seconds))

    # --- calls ----------------------------------------------------------------------------------------------

    async def _call(self, delivery: Delivery) -> None:
        office, call = self._office, call_of(delivery.record.event)
        if delivery.attempt > 1 and (outcome := await self._outcome(call)) is not None:
            await self._have_told(call, outcome)
            await delivery.ack()
            return
        office.running.add(call.id)
        office.recorder.began()
        try:
            settled = await self._make(call, delivery)
        finally:
            office.running.discard(call.id)
            office.recorder.ended()
        if isinstance(settled, Retry):
            await office.recorder.flush(names.CALLS)
            await delivery.retry(settled.delay_seconds)
        else:
            await office.recorder.afterwards(names.CALLS, delivery.ack)

    async def _make(self, call: Call, delivery: Delivery) -> Delivered | Retry | DeadLetter:
        """One attempt: the call itself, and its outcome where that is the end."""
        clock = self._office.clock
        at, began = clock.now(), clock.monotonic()
        response, answer = await self._send(call, delivery)
        took_seconds = clock.monotonic() - began
        decision = decide(_CALLS, delivery.attempt, answer, call.id)
        status = response.status if response is not None else None
        instance = instance_of(response) if response is not None else ""
        attempt = attempt_of(
            self._function_key, delivery.attempt, decision, took_seconds, status=status, instance=instance
        )
        self._record(delivery, attempt, at)
        counts = self._office.stats.of_function(self._function_key)
        if isinstance(decision, Retry):
            counts.retried += 1
            return decision
        outcome = Outcome(
            call=call,
            succeeded=isinstance(decision, Delivered),
            attempts=delivery.attempt,
            finished_at=clock.now(),
            duration_seconds=took_seconds,
            status=status,
            headers=calls.kept_headers(response.headers) if response is not None else [],
            reason="" if isinstance(decision, Delivered) else decision.reason,
            size_bytes=len(response.body) if response is not None else 0,
        )
        kept = await self._keep(outcome, response.body if response is not None else b"")
        if outcome.succeeded:
            counts.succeeded += 1
        else:
            counts.failed += 1
            about = {"call": call.id, "attempts": outcome.attempts, "reason": outcome.reason}
            _LOG.warning("a call that nobody waits for has failed", extra=about)
        await self._have_told(call, kept)
        return decision

    async def _send(
        self, call: Call, delivery: Delivery
    ) -> tuple[Response | None, Answer | NoAnswer | DeadLetter]:
        office, event = self._office, delivery.record.event
        own = [(calls.CALL_ID_HEADER, call.id.encode()), (b"torpor-attempt", b"%d" % delivery.attempt)]
        try:
            async with _Large(office, event.data is None):
                response = await office.forwarder.forward(
                    self._function_key,
                    call.method.encode(),
                    call.target.encode("latin-1"),
                    encode_fields([*call.headers, *own]),
                    await office.claims.check_out(event),
                    self._timeout_seconds,
                )
        except AnswerTooLargeError as error:
            return None, DeadLetter(f"the function's answer is too large: {error}")
        except BlobLostError as error:
            return None, DeadLetter(f"the call's body is gone: {error}")
        except TransportError as error:
            return None, NoAnswer(f"the function did not answer: {error}")
        except ValueError as error:
            return None, DeadLetter(f"the call can't be sent: {error}")
        return response, answer_of(response, office.clock.now())

    async def _outcome(self, call: Call) -> WireEvent | None:
        """What came of the call, if it was made before."""
        stored = await oldest(self._office.log, names.OUTCOMES, call.id)
        return None if stored is None else stored.event

    async def _keep(self, outcome: Outcome, body: bytes) -> WireEvent:
        """Have the outcome in the log; of a body that is too large and can't be a blob, its beginning.

        What is kept of it; waits for as long as the log can't take it.
        """
        office = self._office
        try:
            event = await office.claims.check_in(outcome.event(body))
        except BlobError as error:
            # The function has done its work: to do it again would be worse than to lose what it said.
            _LOG.warning(
                "an answer can't be stored as a blob", extra={"call": outcome.call.id, "error": str(error)}
            )
            event = outcome.event(body)
        if event.data is not None and len(event.data) > MAX_ANSWER_BYTES:
            event = event.replace(data=event.data[:MAX_ANSWER_BYTES], truncated="1")
        try:
            return await self._write(outcome.call, event)
        except RecordTooLargeError as error:
            # What the function did is done: to call it again would change nothing.
            bare = replace(outcome, headers=[], reason=f"its outcome is too large: {error}", truncated=True)
            return await self._write(outcome.call, bare.event(b""))

    async def _write(self, call: Call, outcome: WireEvent) -> WireEvent:
        office = self._office
        record = Record(call.id, call.id, outcome)
        is_new = await office.patience.write(
            self._function_key,
            "outcomes of calls",
            lambda: keep(office.log, names.OUTCOMES, record, office.clock.now()),
        )
        # Where this one was cut off for a while, another process may have made the call too.
        return outcome if is_new else await self._outcome(call) or outcome

    async def _have_told(self, call: Call, outcome: WireEvent) -> None:
        """Have the callback made, if there is to be one. Raises ``EventLogError``: then the call comes again,
        and has an outcome.
        """
        if call.callback:
            await store_in(self._office.log, names.CALLBACKS, [Record(call.id, call.id, outcome)])

    # --- callbacks ------------------------------------------------------------------------------------------

    async def _call_back(self, delivery: Delivery) -> None:
        office, outcome = self._office, outcome_of(delivery.record.event)
        at, began = office.clock.now(), office.clock.monotonic()
        status, answer = await self._send_back(outcome, delivery)
        decision = decide(_CALLBACKS, delivery.attempt, answer, outcome.call.id, "the receiver")
        took_seconds = office.clock.monotonic() - began
        self._record(
            delivery, attempt_of(CALLBACK, delivery.attempt, decision, took_seconds, status=status), at
        )
        counts = office.stats.of_function(self._function_key)
        if isinstance(decision, Retry):
            counts.callbacks_retried += 1
            await office.recorder.flush(names.CALLS)
            await delivery.retry(decision.delay_seconds)
            return
        if isinstance(decision, DeadLetter):
            counts.callbacks_failed += 1
            about = {"call": outcome.call.id, "to": shown(outcome.call.callback), "reason": decision.reason}
            _LOG.warning("a callback is given up", extra=about)
        else:
            counts.callbacks_delivered += 1
        await office.recorder.afterwards(names.CALLS, delivery.ack)

    async def _send_back(
        self, outcome: Outcome, delivery: Delivery
    ) -> tuple[int | None, Answer | NoAnswer | DeadLetter]:
        office, event = self._office, delivery.record.event
        headers = calls.callback_headers(outcome)
        try:
            async with _Large(office, event.data is None):
                body = await office.claims.check_out(event)
                response = await office.callbacks.send(
                    outcome.call.callback, headers, body, _CALLBACK_SECONDS
                )
        except (ForbiddenAddressError, BlobLostError) as error:
            return None, DeadLetter(str(error))
        except TransportError as error:
            return None, NoAnswer(f"the receiver did not answer: {error}")
        return response.status, answer_of(response, office.clock.now())

    # --- both -----------------------------------------------------------------------------------------------

    def _record(self, delivery: Delivery, attempt: Attempt, at: float) -> None:
        recorder = self._office.recorder
        recorder.add(names.CALLS, [tried([delivery.record.event], None, attempt, at=at, by=recorder.name)])


class _Large:
    """A block that waits for its turn where the body is ``large``."""

    def __init__(self, office: Office, large: bool) -> None:
        self._turns = office.large if large else None

    async def __aenter__(self) -> None:
        if self._turns is not None:
            await self._turns.acquire()

    async def __aexit__(self, *_: object) -> None:
        if self._turns is not None:
            self._turns.release()
