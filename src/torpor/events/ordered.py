"""One trigger at work whose events go one at a time for each key, in the order in which the broker took them.

The key is the extension ``partitionkey`` (CloudEvents extension "Partitioning"); an event without one has a
key of its own. A window of deliveries is held in memory. One that failed waits here for its retry, holding
its key, and is then given back to the log, so that the log counts its attempts.

An event is begun only after the log has said that all it delivered, to whomever, and that is not done with is
at hand here. So no later event of a key overtakes one that another worker still has, had when it was killed,
or that was lost on its way here: such a one comes again when its time to acknowledge is over, and until then
nothing new is begun.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Literal

from torpor.clock import cancel
from torpor.errors import TorporError
from torpor.events.lanes import Lanes
from torpor.events.log import Passed
from torpor.events.pump import RESTING, Pump
from torpor.events.subscription import WINDOW, Reading, Sieve, consumer_spec, message_of
from torpor.events.throttle import Throttle
from torpor.events.waiting import sleep_or

if TYPE_CHECKING:
    from torpor.binding import WireEvent
    from torpor.clock import Clock
    from torpor.events.courier import Courier, Route
    from torpor.events.log import Delivery, EventLog, Stored

_LOG = logging.getLogger("torpor.events")
_KEY = "partitionkey"
_FIRST_PAUSE_SECONDS = 0.002
_LONGEST_PAUSE_SECONDS = 0.25
_TELL_SECONDS = 30.0

_Word = Literal["go", "done", "back", "leave"]
"""What becomes of an event that waits: it is begun, is done with, is given back, or is another delivery's."""


def key_of(event: WireEvent, sequence: int) -> str:
    """What an event is ordered by; one without a key has the sequence as its own."""
    key = event.attributes.get(_KEY)
    return f"key {key}" if key else f"sequence {sequence}"


class OrderedSubscription(Reading):
    """Keeps :class:`torpor.events.subscription.AtWork` for a trigger that is ordered by key."""

    def __init__(
        self,
        route: Route,
        log: EventLog,
        clock: Clock,
        courier: Courier,
        *,
        shared: bool = False,
        fresh: bool = False,
    ) -> None:
        self.route = route
        self._clock = clock
        self._courier = courier
        spec = consumer_spec(route, fresh=fresh)
        self._pump = Pump(log, clock, spec, self._handle, WINDOW, self._room)
        self._sieve = Sieve(route, self._pump, courier, shared=shared)
        self._throttle = Throttle(route.trigger.spec.rate_limit, clock)
        self._lanes = Lanes(route.parallelism)
        self._settling: set[str] = set()  # keys whose function has answered
        self._words: dict[int, asyncio.Future[_Word]] = {}  # what those that wait are told, by sequence
        self._until = 0  # how many deliveries are to have come in all
        self._news = asyncio.Event()
        self._ended = asyncio.Event()
        self._verifier: asyncio.Task[None] | None = None

    @property
    def busy(self) -> int:
        """How many deliveries are under way; one that waits for its turn, or for a retry, is not."""
        return self._lanes.calls + len(self._settling) - self._throttle.waiting

    async def start(self) -> None:
        """Begin; when this returns, no event passes the trigger by."""
        await super().start()
        self._verifier = asyncio.create_task(self._verify())

    async def halt(self) -> None:
        """Begin nothing more; what was not begun is for others."""
        await super().halt()
        self._ended.set()
        self._throttle.end()
        for word in self._words.values():
            _tell(word, "back")
        if self._verifier is not None:
            await cancel(self._verifier)

    # --- one event ------------------------------------------------------------------------------------------

    async def _handle(self, delivery: Delivery) -> None:
        record = delivery.record
        self._news.set()
        if not self._sieve.has_to_fetch(record) and await self._sieve.passes_by(delivery):
            return
        word = await self._turn(record)
        if word == "done":
            await delivery.ack()
        elif word == "back":
            await delivery.retry(0.0)
        elif word == "go":
            await self._deliver(delivery, key_of(record.event, record.sequence))

    async def _turn(self, record: Stored) -> _Word:
        """Wait until the event may be begun, or must not be any more."""
        if self._ended.is_set():
            return "back"
        key, sequence = key_of(record.event, record.sequence), record.sequence
        if sequence in self._words:  # the one that waits has lost its lease, and this one has it
            _tell(self._words.pop(sequence), "leave")
            self._lanes.remove(key, sequence)
        word: asyncio.Future[_Word] = asyncio.get_running_loop().create_future()
        self._words[sequence] = word
        self._lanes.add(key, sequence)
        self._begin()
        try:
            return await word
        finally:
            if self._words.get(sequence) is word:
                del self._words[sequence]
                self._lanes.remove(key, sequence)

    async def _deliver(self, delivery: Delivery, key: str) -> None:
        """One attempt; holds the key until the event is done with, or comes again."""
        attempt = _Attempt(delivery)
        taken = done = False
        try:
            try:
                # Only now: while data is fetched for the filters, no other event of the key may overtake.
                if self._sieve.has_to_fetch(delivery.record) and await self._sieve.passes_by(delivery):
                    done = True
                    return
                # Without its lease, another worker may have it: then it is not called for, and comes again.
                known = self._courier.burial_of(delivery) is not None
                if (known or await self._throttle.turn()) and self._pump.leased():
                    message = message_of(delivery.record.event)
                    answered = partial(self._answered, key)
                    taken = await self._courier.deliver(self.route, message, attempt, answered)
            finally:
                self._settling.discard(key)
                self._rest(key)
            if taken:
                await self._courier.acknowledge(self.route, delivery)
                done = True
            elif self._ended.is_set() or attempt.delay_seconds is not None:
                await sleep_or(self._clock, attempt.delay_seconds or 0.0, self._ended.wait())
                await delivery.retry(0.0)
        finally:
            self._release(key, delivery.record.sequence, done)

    def _answered(self, key: str) -> None:
        if len(self._settling) < RESTING * self.route.parallelism:
            self._settling.add(key)
            self._rest(key)

    def _rest(self, key: str) -> None:
        """What holds the key leaves its place to the next of another key."""
        self._lanes.rest(key)
        self._begin()

    def _release(self, key: str, sequence: int, done: bool) -> None:
        if done:
            if (again := self._words.pop(sequence, None)) is not None:  # it came again meanwhile
                self._lanes.remove(key, sequence)
                _tell(again, "done")
            self._lanes.finish(key)
        else:
            self._lanes.give_back(key)
            self._news.set()  # it may come to another worker, who is done with it
            self._until += 1
            self._pump.look()
        self._begin()

    def _begin(self) -> None:
        if self._ended.is_set():
            return
        for sequence in self._lanes.begin():
            _tell(self._words.pop(sequence), "go")

    # --- what is at hand ------------------------------------------------------------------------------------

    def _room(self, held: int) -> int:
        """How many more to ask the log for.

        What was asked for comes, whatever happens; more is asked for only once all that came is verified: so
        there are moments at which nothing is under way here.
        """
        received = self._pump.received
        if self._lanes.verified and held <= WINDOW // 2:
            self._until = received + WINDOW - held
        return max(0, self._until - received)

    async def _verify(self) -> None:
        """Have what came begun, once all that was delivered before is at hand."""
        while True:
            await self._news.wait()
            self._news.clear()
            pause_seconds = _FIRST_PAUSE_SECONDS
            since, told = self._clock.monotonic(), False
            while not self._lanes.verified:
                if (sequences := await self._at_hand()) is not None:
                    self._lanes.verify(sequences)
                    self._begin()
                    self._pump.look()
                    await self._clock.sleep(0.0)  # what was given back may still be at hand for a turn
                    continue
                if not told and self._clock.monotonic() - since >= _TELL_SECONDS:
                    told = True
                    text = "events wait for earlier ones that another worker has, or that wait for a retry"
                    _LOG.warning(text, extra={"trigger": self.route.key})
                await self._clock.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)

    async def _at_hand(self) -> set[int] | None:
        """The sequences of what is at hand, if that is all."""
        try:
            sequences, more = await self._pump.at_hand()
        except TorporError as error:
            about = {"trigger": self.route.key, "error": str(error)}
            _LOG.debug("the log does not say what is outstanding", extra=about)
            return None
        if more == 0:
            return sequences
        # It must be able to come here, even if it is more than a window, as after a change of the trigger.
        self._until = max(self._until, self._pump.received + more)
        self._pump.look()
        return None


class _Attempt(Passed):
    """A delivery whose retry waits here."""

    delay_seconds: float | None = None

    async def retry(self, delay_seconds: float) -> None:
        """Remember when to deliver again."""
        self.delay_seconds = delay_seconds


def _tell(word: asyncio.Future[_Word], what: _Word) -> None:
    if not word.done():
        word.set_result(what)
