"""The connections to one endpoint: so many at most, the one used last is used next, callers wait in order."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from torpor.errors import BrokenError, ConnectError, TimedOutError, TransportError
from torpor.transport.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.clock import Clock
    from torpor.endpoint import Endpoint
    from torpor.transport.deadlines import Deadlines
    from torpor.transport.outbox import Outbox


class Pool:
    """Connections to one endpoint.

    A connection is idle, lent, or being made. ``on_empty`` is called when there is none and nobody waits.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        clock: Clock,
        deadlines: Deadlines,
        outbox: Outbox,
        max_connections: int,
        max_waiting: int,
        connect_timeout_seconds: float,
        idle_seconds: float,
        on_empty: Callable[[Pool], None],
    ) -> None:
        self.endpoint = endpoint
        self.authority = _authority(endpoint)
        self._clock = clock
        self._deadlines = deadlines
        self._outbox = outbox
        self._max_connections = max_connections
        self._max_waiting = max_waiting
        self._connect_timeout_seconds = connect_timeout_seconds
        self._idle_seconds = idle_seconds
        self._on_empty = on_empty
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._making: set[asyncio.Task[None]] = set()
        self._waiting: deque[asyncio.Future[Connection]] = deque()
        self._closed = False
        self._sweeping = False

    @property
    def open_connections(self) -> int:
        """How many connections there are, idle or lent."""
        return len(self._open)

    @property
    def idle_connections(self) -> int:
        """How many of them are idle."""
        return len(self._idle)

    def take(self) -> Connection | None:
        """An idle connection that is still open, or ``None``."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
        return None

    async def wait(self, deadline: float | None) -> Connection:
        """A connection, once one is made or given back. ``deadline`` is a time of the clock.

        Raises :class:`~torpor.errors.ConnectError`, or :class:`~torpor.errors.TimedOutError` at the deadline.
        Either way nothing was sent.
        """
        if len(self._waiting) >= self._max_waiting:
            raise ConnectError(
                f"{self._max_waiting} requests wait for a connection to {self.endpoint} already"
            )
        waiter: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._make()
        alarm = None
        if deadline is not None:
            late = TimedOutError(f"no connection to {self.endpoint} became free in time")
            alarm = self._deadlines.at(deadline, partial(_fail, waiter, late))
        try:
            return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._rest(waiter.result())  # it came at the moment its caller was cancelled
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            raise
        finally:
            if alarm is not None:
                alarm.cancel()

    def close(self, error: ConnectError, broken: BrokenError | None = None) -> None:
        """Close what is idle; what is lent is closed when it is given back or, with ``broken``, now.

        Callers that wait get ``error``, those with a request under way ``broken``.
        """
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        for task in self._making:
            task.cancel()
        while self._waiting:
            _fail(self._waiting.popleft(), error)
        if broken is not None:
            for connection in tuple(self._open):
                connection.abort(broken)

    # --- making connections -----------------------------------------------------------------------------

    def _make(self) -> None:
        """Start as many connections as callers wait for, within the limit."""
        wanted = len(self._waiting) - len(self._making)
        room = self._max_connections - len(self._making) - len(self._open)
        for _ in range(min(wanted, room)):
            task = asyncio.get_running_loop().create_task(self._connect())
            self._making.add(task)
            task.add_done_callback(self._made)

    async def _connect(self) -> None:
        connection = Connection(self._outbox, self._rest, self._gone)
        seconds = self._connect_timeout_seconds
        try:
            with self._deadlines.limit(seconds):
                await self._reach(connection)
        except ConnectError as error:
            self._refuse(error)
        except TimeoutError:
            connection.abort()
            self._refuse(ConnectError(f"no connection to {self.endpoint} within {seconds:g} s"))
        except asyncio.CancelledError:
            connection.abort()
            raise
        else:
            self._open.add(connection)
            self._rest(connection)

    async def _reach(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        host, port = self.endpoint
        try:
            if host.startswith("/"):
                await loop.create_unix_connection(lambda: connection, host)
            else:
                await loop.create_connection(lambda: connection, host, port)
        except OSError as error:  # which may be the system's own time-out
            raise ConnectError(f"no connection to {self.endpoint}: {error.strerror or error}") from error

    def _made(self, task: asyncio.Task[None]) -> None:
        self._making.discard(task)
        if not self._closed:
            self._make()
        self._report_empty()

    def _refuse(self, error: ConnectError) -> None:
        """One attempt failed, and so does one caller: each has an attempt, so that none waits for ever."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(error)
                return

    # --- connections' own news --------------------------------------------------------------------------

    def _rest(self, connection: Connection) -> None:
        while self._waiting and connection.usable:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        if self._closed:
            connection.close()
        elif connection.usable:
            connection.rested_at = self._clock.monotonic()
            self._idle.append(connection)
            if not self._sweeping:
                self._sweeping = True
                self._deadlines.after(self._idle_seconds, self._sweep)

    def _gone(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._closed:
            self._make()
        self._report_empty()

    def _sweep(self) -> None:
        """Close what has been idle for too long: the other side may be about to do the same."""
        oldest = self._clock.monotonic() - self._idle_seconds
        keep = [connection for connection in self._idle if connection.rested_at > oldest]
        for connection in self._idle[: len(self._idle) - len(keep)]:
            connection.close()
        self._idle = keep
        self._sweeping = bool(keep) and not self._closed
        if self._sweeping:
            self._deadlines.at(keep[0].rested_at + self._idle_seconds, self._sweep)

    def _report_empty(self) -> None:
        if not self._open and not self._making and not self._waiting:
            self._on_empty(self)


def _authority(endpoint: Endpoint) -> bytes:
    host, port = endpoint
    if host.startswith("/"):
        return b"localhost"
    return f"[{host}]:{port}".encode() if ":" in host else f"{host}:{port}".encode()


def _fail(waiter: asyncio.Future[Connection], error: TransportError) -> None:
    if not waiter.done():
        waiter.set_exception(error)
