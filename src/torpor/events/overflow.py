"""Moves the oldest events that wait for a trigger to dead letters, once more wait than its backlog may have.

It reads the trigger's own durable consumer, beside the subscription: what comes next there has waited
longest. An event that fails while too many wait is older still, and is not tried again. What waits for a
retry is moved when its time comes. Of several processes that share the trigger the leading one alone does
so, or each would move as many.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from torpor.clock import cancel, first_of
from torpor.errors import TorporError
from torpor.events.backlog import limit_of, problem
from torpor.events.courier import Courier, Message, Route
from torpor.events.delivery import DeadLetter
from torpor.events.log import Passed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torpor.clock import Clock
    from torpor.events.log import Consumer, ConsumerSpec, Delivery, EventLog
    from torpor.events.pump import Pump
    from torpor.events.subscription import Sieve

_LOG = logging.getLogger("torpor.events")
_AGAIN_SECONDS = 1.0
_LOOK_SECONDS = 1.0
_PATIENCE_SECONDS = 0.5
_AT_ONCE = 256


class Overflow:
    """Of one trigger, whose subscription reads by ``pump``; looks only while something is under way there.

    A look counts once and moves no more than it found too many: an acknowledgement that was told just now may
    not be counted yet.
    """

    def __init__(
        self,
        route: Route,
        log: EventLog,
        clock: Clock,
        courier: Courier,
        spec: ConsumerSpec,
        pump: Pump,
        sieve: Sieve,
        leads: Callable[[], bool],
    ) -> None:
        self._route = route
        self._log = log
        self._clock = clock
        self._courier = courier
        self._spec = spec
        self._pump = pump
        self._sieve = sieve
        self._leads = leads
        self._limit = limit_of(route.trigger, "deadLetterOldest")
        self._left = self._waiting = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, if the trigger's backlog is of that kind."""
        if self._limit is not None:
            self._task = asyncio.create_task(self._run(self._limit))

    async def halt(self) -> None:
        """Move no more; what is being moved comes again."""
        self._left = 0
        if self._task is not None:
            await cancel(self._task)

    def limited(self, delivery: Delivery) -> Delivery:
        """The delivery, but that it is not tried again while too many wait."""
        return delivery if self._limit is None else _Limited(self, delivery)

    def takes(self) -> bool:
        """Whether one more is to be moved; then it counts as moved."""
        if not self._left:
            return False
        self._left -= 1
        return True

    def is_decided(self, delivery: Delivery) -> bool:
        """Whether it is to become a dead letter anyway, for a reason of its own."""
        return self._courier.burial_of(delivery) is not None

    async def move(self, delivery: Delivery, attempts: int) -> None:
        """Make a dead letter of what was attempted so often. Raises ``EventLogError``."""
        limit = self._limit or 0
        why = f"more than {limit} events waited for the trigger (backlog.limit), and it was among the oldest"
        told = problem(self._route.key, limit, self._waiting)
        await self._courier.bury(
            self._route,
            Message(b"", b"", [delivery.record.event]),
            delivery,
            DeadLetter(why, told.status),
            told.body(),
            attempts=attempts,
        )
        self._courier.stats.of(self._route.key).backlog_overflowed += 1
        await self._courier.acknowledge(self._route, delivery)

    # --- looking --------------------------------------------------------------------------------------------

    async def _run(self, limit: int) -> None:
        about = {"trigger": self._route.key}
        while True:
            await self._clock.sleep(_LOOK_SECONDS)
            self._left = 0
            if not self._pump.busy or not self._leads():
                continue
            try:
                self._waiting = await self._pump.pending()
                self._left = found = max(0, self._waiting - limit)
                if found:
                    await self._move_all()
                    moved = found - self._left
                    text = "more events wait than may, the oldest become dead letters"
                    _LOG.warning(text, extra={**about, "waiting": self._waiting, "moved": moved})
            except TorporError as error:
                text = "events that are too many can't be made dead letters yet"
                _LOG.warning(text, extra={**about, "error": str(error)})
            except Exception:  # noqa: BLE001 - one event that does so must not be the end of it
                _LOG.exception("making dead letters of what is too much failed unexpectedly", extra=about)

    async def _move_all(self) -> None:
        reader = await self._log.consumer(self._spec, keep=True)
        try:
            while self._left and (deliveries := await self._fetch(reader)):
                ends = await asyncio.gather(*map(self._take, deliveries), return_exceptions=True)
                for end in ends:
                    if isinstance(end, BaseException):
                        raise end
        finally:
            await reader.close()

    async def _fetch(self, reader: Consumer) -> Sequence[Delivery]:
        """The next that wait; none when what is too many waits for retries, or is under way."""
        fetching = asyncio.ensure_future(reader.fetch(min(self._left, _AT_ONCE)))
        await first_of(fetching, self._clock.sleep(_PATIENCE_SECONDS))
        return [] if fetching.cancelled() else fetching.result()

    async def _take(self, delivery: Delivery) -> None:
        if self.is_decided(delivery):
            await delivery.retry(_AGAIN_SECONDS)
        elif not self.takes():  # what failed meanwhile was enough
            await delivery.retry(0.0)
        elif not await self._sieve.passes_by(delivery):
            await self.move(delivery, delivery.attempt - 1)


class _Limited(Passed):
    """A delivery that is not tried again while too many wait."""

    def __init__(self, overflow: Overflow, delivery: Delivery) -> None:
        super().__init__(delivery)
        self._overflow = overflow

    async def retry(self, delay_seconds: float) -> None:
        """Deliver it again, or move it."""
        if not self._overflow.is_decided(self._delivery) and self._overflow.takes():
            await self._overflow.move(self._delivery, self._delivery.attempt)
        else:
            await super().retry(delay_seconds)
