"""Reads a durable consumer and has each delivery handled: bounded, kept alive, not stopped by one failure."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torpor.clock import cancel
from torpor.errors import EventLogError, TorporError
from torpor.events.log import Consumer, ConsumerSpec, Delivery, EventLog

if TYPE_CHECKING:
    from torpor.clock import Clock

_LOG = logging.getLogger("torpor.events")
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 32.0
"""What can't be handled is given back for a second at first, and twice as long each time."""
_QUICK_SECONDS = 0.05
"""What is handled in less than this is quick: who asks for it when there is room has waited in vain. And so
much work is held ready: what others of this process wait for comes behind it."""
_SMALL_BYTES = 64 * 1024
"""Once one that is larger has come, none are held ready that were not asked for before."""
_AHEAD_BYTES = 16 * 1024 * 1024
"""Of so much that is held ready, none more are asked for."""
_AHEAD = 32
"""How many times as many are held ready as are handled at once, at most."""
_SMOOTHING = 1 / 16
"""How much of the usual time the last one makes."""
RESTING = 8
"""How many times as many may be settled beside those that have a place."""

Handle = Callable[[Delivery], Awaitable[None]]


@dataclass(slots=True)
class _Held:
    """A delivery that is here since ``began``; nobody else gets its record before ``until`` (monotonic)."""

    delivery: Delivery
    began: float
    until: float
    size_bytes: int


class Pump:
    """Has ``handle`` called for the deliveries of one consumer, at most ``parallelism`` at once.

    ``handle`` settles the delivery. When it raises a :class:`~torpor.errors.TorporError` (the log or the
    blobs can't be reached), the record is delivered again. Where it is given, ``room`` says how many more to
    ask for, from how many are being handled; :meth:`look` has it asked again.

    With ``ahead``, some more are asked for while all are small and are handled quickly, so that none waits
    for the broker; who halts gives them back. One that takes long ends that: what comes next may be for
    others who are free.

    What has only to be settled still can leave its place to the next one, by :meth:`rest`.
    """

    def __init__(
        self,
        log: EventLog,
        clock: Clock,
        spec: ConsumerSpec,
        handle: Handle,
        parallelism: int,
        room: Callable[[int], int] | None = None,
        *,
        ahead: bool = False,
    ) -> None:
        self._log = log
        self._clock = clock
        self._spec = spec
        self._handle = handle
        self._room = room
        self._parallelism = parallelism
        self._looks_ahead = ahead
        self._consumer: Consumer | None = None
        self._held: dict[asyncio.Task[None], _Held] = {}  # by who handles it, in the order of their begin
        self._resting: dict[asyncio.Task[None], _Held] = {}  # those that have no place any more
        self._ready: deque[_Held] = deque()
        self._ready_bytes = 0
        self._quick = 0  # so many in a row
        self._usual_seconds = _QUICK_SECONDS  # that they take
        self.received = 0
        """How many deliveries have come so far."""
        self._freed = asyncio.Event()
        self._taken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._halted = False

    @property
    def busy(self) -> int:
        """How many deliveries are being handled."""
        return len(self._held) + len(self._resting)

    async def open(self) -> None:
        """Open the consumer, so that from now on no record passes it by."""
        self._consumer = await self._log.consumer(self._spec)

    async def start(self) -> None:
        """Begin to read, from a consumer that is opened first unless it is. Once is enough."""
        if self._tasks or self._halted:
            return
        if self._consumer is None:
            await self.open()
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._keep())]
        for task in self._tasks:
            task.add_done_callback(self._fell)

    async def pending(self) -> int:
        """How many records wait to be delivered or acknowledged.

        Raises :class:`~torpor.errors.EventLogError` when it can't be known, or when reading has ended by a
        fault.
        """
        if not self._halted and any(task.done() for task in self._tasks):
            raise EventLogError("reading events has ended unexpectedly; the log has the cause")
        return await self._consumer.pending() if self._consumer is not None else 0

    async def waiting_since(self) -> float | None:
        """When the oldest record was stored that was never delivered. Raises ``EventLogError``."""
        return await self._consumer.waiting_since() if self._consumer is not None else None

    async def at_hand(self) -> tuple[set[int], int]:
        """The sequences of what is handled here, and how much more is out: delivered to whomever, not done.

        That there is more may be a matter of moments: of what is under way to this reader, or of
        acknowledgements that were not counted yet. That there is none is certain: what was handled here
        during the whole of the question is all that the log counted. Raises
        :class:`~torpor.errors.EventLogError`.
        """
        if self._consumer is None:
            raise EventLogError("reading events is interrupted")
        before = self._handled()
        outstanding = await self._consumer.outstanding()
        after = self._handled()
        stayed = {after[task].delivery.record.sequence for task in before.keys() & after.keys()}
        return stayed, outstanding - len(stayed)

    def leased(self) -> bool:
        """Whether the delivery whose handling asks is surely nobody else's at the moment."""
        task = asyncio.current_task()
        held = (self._held.get(task) or self._resting.get(task)) if task is not None else None
        return held is not None and self._clock.monotonic() < held.until

    def rest(self) -> None:
        """Leave the place of the delivery whose handling calls this, unless too many have done so."""
        task = asyncio.current_task()
        if task is None or task not in self._held or len(self._resting) >= RESTING * self._parallelism:
            return
        held = self._resting[task] = self._held.pop(task)
        self._note(held)
        self._freed.set()
        self._begin()

    def look(self) -> None:
        """See whether there is room for more."""
        self._freed.set()

    async def revision(self) -> str:
        """The revision of the spec that the consumer was brought to last, by whomever."""
        if self._consumer is None:
            raise EventLogError("reading events is interrupted")
        return await self._consumer.revision()

    async def halt(self) -> None:
        """Stop reading; what came and was not begun is for others at once. What is under way goes on."""
        if self._halted:
            return
        self._halted = True
        if self._tasks:
            await cancel(self._tasks[0])
        while self._ready:
            await self._give_back(self._take().delivery, 0.0)
        if self._consumer is not None:
            await self._consumer.close()

    async def stop(self, grace_seconds: float) -> None:
        """Stop reading, give what is under way ``grace_seconds``; the rest is delivered again."""
        await self.halt()
        if not self._tasks:
            return
        keeper = self._tasks[1]
        if self.busy and grace_seconds > 0:
            timer = asyncio.create_task(_sleep(self._clock, grace_seconds))
            while self.busy and not timer.done():
                await asyncio.wait([timer, *self._handled()], return_when=asyncio.FIRST_COMPLETED)
            await cancel(timer)
        for task in self._handled():
            await cancel(task)
        await cancel(keeper)
        self._tasks = []

    async def _read(self) -> None:
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            free = self._free()
            if free <= 0:
                self._freed.clear()
                await self._freed.wait()
                continue
            try:
                if self._consumer is None:
                    # As it is: another process may have brought it to a newer spec in the meantime.
                    self._consumer = await self._log.consumer(self._spec, keep=True)
                deliveries = await self._consumer.fetch(free)
            except TorporError as error:
                _LOG.warning("reading events is interrupted", extra=self._about(error))
                await self._reopen()
                await self._clock.sleep(pause_seconds)
                pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
                continue
            pause_seconds = _FIRST_PAUSE_SECONDS
            self.received += len(deliveries)
            self._make_ready(deliveries)
            self._begin()
            self._taken.set()
            await self._clock.sleep(0)  # where more is here already, the next fetch waits for nothing

    def _free(self) -> int:
        """How many to ask for; what is under way may come at any time."""
        if self._room is not None:
            return self._room(len(self._held))
        under_way = self._consumer.under_way if self._consumer is not None else 0
        ahead = self._ahead()
        if ahead and len(self._ready) > ahead // 2:
            return under_way  # to ask for each would cost the log more than they do
        here = len(self._held) + len(self._ready)
        return max(self._parallelism + ahead - here, under_way)

    def _ahead(self) -> int:
        """How many may be held ready."""
        if not self._looks_ahead or self._quick < self._parallelism or self._ready_bytes >= _AHEAD_BYTES:
            return 0
        oldest = next(iter(self._held.values()), None)
        if oldest is not None and self._clock.monotonic() - oldest.began >= _QUICK_SECONDS:
            return 0
        times = _QUICK_SECONDS / max(self._usual_seconds, _QUICK_SECONDS / _AHEAD)
        return int(times * self._parallelism)

    def _make_ready(self, deliveries: Sequence[Delivery]) -> None:
        now = self._clock.monotonic()
        until = now + self._spec.ack_wait_seconds
        for delivery in deliveries:
            attributes, data = delivery.record.event
            size_bytes = sum(map(len, attributes.values())) + len(data or b"")
            self._ready.append(_Held(delivery, now, until, size_bytes))
            self._ready_bytes += size_bytes
            if size_bytes > _SMALL_BYTES:
                self._quick = 0

    def _take(self) -> _Held:
        """The next of what is ready."""
        held = self._ready.popleft()
        self._ready_bytes -= held.size_bytes
        return held

    def _handled(self) -> dict[asyncio.Task[None], _Held]:
        """What is being handled, with a place or without."""
        return self._held | self._resting

    async def _reopen(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.close()

    def _begin(self) -> None:
        """Handle what is ready, as far as there is room."""
        while self._ready and self._has_place():
            task = asyncio.create_task(self._run())
            self._held[task] = self._take()
            task.add_done_callback(self._done)

    async def _run(self) -> None:
        """Handle one delivery after the other while any is ready: a task for each would cost as much."""
        me = asyncio.current_task()
        if me is None:
            return
        while True:
            held = self._held[me]
            delivery = held.delivery
            held.began = self._clock.monotonic()
            try:
                await self._handle(delivery)
            except TorporError as error:
                _LOG.warning("an event could not be handled and comes again", extra=self._about(error))
                longer = 2.0 ** min(delivery.attempt - 1, 16)
                await self._give_back(delivery, min(_RETRY_SECONDS * longer, _LONGEST_RETRY_SECONDS))
            if self._resting.pop(me, None) is None:
                self._note(held)
                del self._held[me]
            if not self._ready or not self._has_place():
                return
            self._held[me] = self._take()
            self._freed.set()

    def _note(self, held: _Held) -> None:
        """Take in how long a delivery had its place, and whether it was small."""
        took_seconds = self._clock.monotonic() - held.began
        if took_seconds < _QUICK_SECONDS and held.size_bytes <= _SMALL_BYTES:
            self._quick += 1
            self._usual_seconds += _SMOOTHING * (took_seconds - self._usual_seconds)
        else:
            self._quick, self._usual_seconds = 0, _QUICK_SECONDS

    def _has_place(self) -> bool:
        return self._room is not None or len(self._held) < self._parallelism

    async def _give_back(self, delivery: Delivery, delay_seconds: float) -> None:
        try:
            await delivery.retry(delay_seconds)
        except TorporError as error:
            _LOG.debug("it comes again when its time is up", extra=self._about(error))

    def _done(self, task: asyncio.Task[None]) -> None:
        self._held.pop(task, None)
        self._resting.pop(task, None)
        self._freed.set()
        self._begin()
        if not task.cancelled() and (error := task.exception()) is not None:
            # A fault in Torpor itself: the record stays unacknowledged and so comes again.
            _LOG.error("handling an event failed unexpectedly", exc_info=error, extra=self._about(error))

    def _fell(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("reading events ended unexpectedly", exc_info=error, extra=self._about(error))

    async def _keep(self) -> None:
        """Keep the log from delivering again what is still being handled."""
        while True:
            while not (self.busy or self._ready):
                self._taken.clear()
                await self._taken.wait()
            await self._clock.sleep(self._spec.ack_wait_seconds / 3)
            try:
                await self._extend([*self._handled().values(), *self._ready])
            except TorporError as error:
                _LOG.debug("deliveries could not be extended", extra=self._about(error))

    async def _extend(self, held: Sequence[_Held]) -> None:
        now = self._clock.monotonic()
        renewed = [each for each in held if now < each.until]  # a lease that has run out stays so
        for each in held:
            await each.delivery.extend()
        if self._room is not None and self._consumer is not None:
            await self._consumer.outstanding()  # that it is answered says that the log heard what was before
        for each in renewed:
            each.until = now + self._spec.ack_wait_seconds

    def _about(self, error: BaseException) -> dict[str, str]:
        return {"stream": self._spec.stream, "consumer": self._spec.name, "error": str(error)}


async def _sleep(clock: Clock, delay_seconds: float) -> None:
    await clock.sleep(delay_seconds)
