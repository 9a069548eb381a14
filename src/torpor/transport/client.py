"""The client: whole requests for who wants an answer, exchanges for who passes one on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from torpor.clock import SystemClock
from torpor.errors import BrokenError, ConnectError
from torpor.transport.deadlines import Deadlines
from torpor.transport.exchange import Exchange, Whole
from torpor.transport.message import WITH_BODY, Response, encode_head
from torpor.transport.outbox import Outbox
from torpor.transport.pool import Pool

if TYPE_CHECKING:
    from torpor.clock import Clock
    from torpor.endpoint import Endpoint
    from torpor.transport.connection import Connection

_TRIES = 3
_DEFAULT_MAX_RESPONSE_BYTES = 64 * 1024 * 1024


class Client:
    """HTTP/1.1 over pooled connections; belongs to one running loop.

    An endpoint whose host begins with ``/`` is a unix socket. A connection that has been idle for
    ``idle_seconds`` is closed: keep that below what servers allow (uvicorn: 5 s), or a request may meet a
    connection that is just being closed. At most ``max_connections_per_endpoint`` are open to one endpoint,
    and at most ``max_waiting_per_endpoint`` requests wait for one of them, in order.

    Nothing is ever sent twice. :class:`~torpor.errors.ConnectError` means that nothing of the request was
    sent, so that its caller may safely send it again; :class:`~torpor.errors.BrokenError` that it may have
    been executed.
    """

    def __init__(
        self,
        *,
        max_connections_per_endpoint: int = 256,
        max_waiting_per_endpoint: int = 100_000,
        connect_timeout_seconds: float = 5.0,
        idle_seconds: float = 4.0,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._deadlines = Deadlines(self._clock)
        self._outbox = Outbox()
        self._max_connections = max_connections_per_endpoint
        self._max_waiting = max_waiting_per_endpoint
        self._connect_timeout_seconds = connect_timeout_seconds
        self._idle_seconds = idle_seconds
        self._pools: dict[Endpoint, Pool] = {}
        self._all: set[Pool] = set()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop

    async def request(
        self,
        endpoint: Endpoint,
        method: bytes,
        target: bytes,
        fields: bytes,
        body: bytes,
        *,
        timeout_seconds: float,
        max_response_bytes: int = _DEFAULT_MAX_RESPONSE_BYTES,
    ) -> Response:
        """Send a request and return the whole answer, whatever its status.

        ``target`` is path and query, ``fields`` are header lines as :func:`encode_fields` makes them;
        ``content-length`` and, if it is missing, ``host`` are added. Raises
        :class:`~torpor.errors.ConnectError`, :class:`~torpor.errors.BrokenError`,
        :class:`~torpor.errors.TimedOutError` or :class:`~torpor.errors.AnswerTooLargeError`, and
        ``ValueError`` for a target that would break the framing.
        """
        pool = self._pools.get(endpoint) or self._new_pool(endpoint)
        length = len(body) if body or method in WITH_BODY else None
        head = encode_head(method, target, fields, pool.authority, length)
        deadline = self._clock.monotonic() + timeout_seconds
        connection = pool.take() or await self._connection(endpoint, deadline)
        future: asyncio.Future[Response] = self._loop.create_future()
        whole = Whole(connection, future, max_response_bytes, timeout_seconds)
        connection.start(whole, head, body, head_only=method == b"HEAD", upgrade=False)
        self._deadlines.add(deadline, whole)
        try:
            return await future
        except asyncio.CancelledError:
            whole.cancel()
            raise

    async def open(self, endpoint: Endpoint, *, timeout_seconds: float | None = None) -> Exchange:
        """A connection for one streamed exchange; nothing is sent before :meth:`Exchange.start`.

        Raises :class:`~torpor.errors.ConnectError` or, when no connection became free in time,
        :class:`~torpor.errors.TimedOutError`.
        """
        deadline = None if timeout_seconds is None else self._clock.monotonic() + timeout_seconds
        return Exchange(await self._connection(endpoint, deadline))

    def forget(self, endpoint: Endpoint) -> None:
        """Close idle connections to ``endpoint`` now, and those under way after their answer.

        Requests that still wait for a connection to it get :class:`~torpor.errors.ConnectError`.
        """
        pool = self._pools.pop(endpoint, None)
        if pool is not None:
            pool.close(ConnectError(f"{endpoint} was withdrawn"))

    def open_connections(self, endpoint: Endpoint) -> int:
        """How many connections to ``endpoint`` are open now."""
        return sum(pool.open_connections for pool in self._all if pool.endpoint == endpoint)

    async def close(self) -> None:
        """Close everything; requests under way fail."""
        self._closed = True
        self._pools.clear()
        for pool in tuple(self._all):
            pool.close(ConnectError("the client was closed"), BrokenError("the client was closed"))
        await self._deadlines.close()

    async def _connection(self, endpoint: Endpoint, deadline: float | None) -> Connection:
        for _ in range(_TRIES):
            pool = self._pools.get(endpoint) or self._new_pool(endpoint)
            connection = pool.take() or await pool.wait(deadline)
            if connection.usable:
                return connection
        raise ConnectError(f"{endpoint} closes connections as soon as they are made")

    def _new_pool(self, endpoint: Endpoint) -> Pool:
        if self._closed:
            raise ConnectError("the client was closed")
        self._loop = asyncio.get_running_loop()
        pool = Pool(
            endpoint,
            clock=self._clock,
            deadlines=self._deadlines,
            outbox=self._outbox,
            max_connections=self._max_connections,
            max_waiting=self._max_waiting,
            connect_timeout_seconds=self._connect_timeout_seconds,
            idle_seconds=self._idle_seconds,
            on_empty=self._drop,
        )
        self._pools[endpoint] = pool
        self._all.add(pool)
        return pool

    def _drop(self, pool: Pool) -> None:
        self._all.discard(pool)
        if self._pools.get(pool.endpoint) is pool:
            del self._pools[pool.endpoint]
