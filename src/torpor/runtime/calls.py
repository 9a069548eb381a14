"""Calls under way, and the one timer that ends those which take too long.

All calls of a function have the same time-out, so the oldest is always the next one due: one timer for all of
them, and starting or ending a call is an entry in a dict.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from torpor.tracing import Trace, trace_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torpor.binding import WireEvent
    from torpor.runtime.workers import Job

GRACE_SECONDS = 2.0
"""How long a call that was told to end may take to do so, before the whole instance is given up."""
_NUDGE_SECONDS = 0.25

CURRENT: ContextVar[Call | None] = ContextVar("torpor_call", default=None)


class Call:
    """One request that is being served."""

    # Set where they differ from these: a call is made for every request.
    started = 0.0
    """When it began (monotonic seconds)."""
    due = 0.0
    """When its time is up (monotonic seconds)."""
    events: Sequence[WireEvent] = ()
    job: Job | None = None
    span: Any = None
    status = 0
    """Status of an answer that an app gave itself."""
    has_place = False
    timed_out = False
    started_response = False
    abandoned = False
    """Whether somebody else has answered its caller."""
    _request_id: str | None = None
    _trace: Trace | None = None

    def __init__(
        self, scope: Any, headers: dict[bytes, bytes], send: Any, task: asyncio.Task[Any] | None
    ) -> None:
        self.scope = scope
        self.headers = headers
        self.send = send
        self.task = task

    @property
    def request_id(self) -> str:
        """The id that the gateway gave the request, or one made here."""
        if self._request_id is None:
            given = self.headers.get(b"x-request-id", b"")[:200].decode("latin-1")
            self._request_id = given if given and given.isprintable() else uuid.uuid4().hex
        return self._request_id

    @property
    def trace(self) -> Trace:
        """The trace context that the call belongs to, handed in or begun here."""
        if self._trace is None:
            attributes = self.events[0].attributes if self.events else {}
            self._trace = trace_of(self.headers, attributes)
        return self._trace

    @trace.setter
    def trace(self, trace: Trace) -> None:
        self._trace = trace

    @property
    def attempt(self) -> int:
        """1 at first, one more each time the event is delivered again."""
        text = self.headers.get(b"torpor-attempt", b"")[:9]
        return max(1, int(text)) if text.isdigit() else 1

    @property
    def client_address(self) -> str | None:
        """The address that the nearest proxy saw, or the peer's."""
        forwarded = self.headers.get(b"x-forwarded-for", b"")
        nearest = forwarded.rpartition(b",")[2].strip().decode("latin-1")
        client = self.scope.get("client")
        return nearest or (client[0] if client else None)

    @property
    def client_scheme(self) -> str:
        """``http`` or ``https``, as the caller used it."""
        forwarded = self.headers.get(b"x-forwarded-proto", b"").partition(b",")[0].strip().lower()
        return forwarded.decode("latin-1") if forwarded in (b"http", b"https") else self.scope["scheme"]


class Calls:
    """The calls under way. ``give_up`` is told of a call that does not end though it was told to."""

    def __init__(self, timeout_seconds: float, give_up: Callable[[Call], None]) -> None:
        self.timeout_seconds = timeout_seconds
        self._give_up = give_up
        self._active: dict[Call, None] = {}
        self._expired: dict[Call, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.next_due = float("inf")
        """When the timer fires (monotonic seconds): read by the watchdog's thread."""
        self.on_armed: Callable[[], None] = _nothing

    def __len__(self) -> int:
        return len(self._active) + len(self._expired)

    def begin(self, call: Call) -> None:
        """``call`` is under way and is ended when it is due."""
        call.started = started = time.monotonic()
        call.due = started + self.timeout_seconds
        self._active[call] = None
        if self._timer is None:
            self._arm(call.due)

    def end(self, call: Call) -> None:
        """All work for ``call`` has ended."""
        if call.timed_out:
            self._expired.pop(call, None)
        else:
            self._active.pop(call, None)

    def end_blocked(self, call: Call) -> None:
        """``call`` was ended by the watchdog, before the timer could."""
        self._active.pop(call, None)

    def _arm(self, due: float) -> None:
        self.next_due = due
        delay = max(0.0, due - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._tick)
        self.on_armed()

    def _tick(self) -> None:
        self._timer = None
        now = time.monotonic()
        for call in list(self._active):
            if call.due > now:
                break
            del self._active[call]
            self._expired[call] = now + GRACE_SECONDS
            call.timed_out = True
            if call.task is not None:
                call.task.cancel()
        for call, last in list(self._expired.items()):
            if call.job is not None:
                call.job.interrupt()
            if now >= last:
                del self._expired[call]
                self._give_up(call)
        if self._expired:
            self._arm(now + _NUDGE_SECONDS)
        elif self._active:
            self._arm(next(iter(self._active)).due)
        else:
            self.next_due = float("inf")

    def cancel_all(self) -> list[asyncio.Task[Any]]:
        """End everything that is under way, as the instance itself ends; returns what is to wait for."""
        tasks = []
        for call in [*self._active, *self._expired]:
            if call.task is not None:
                call.task.cancel()
                tasks.append(call.task)
            if call.job is not None:
                call.job.interrupt()
        return tasks


def _nothing() -> None:
    return
