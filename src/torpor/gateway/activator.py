"""Holds requests while their function has no instance, wakes it, and passes them on; streams both ways.

Envoy sends requests here when a function has no endpoint, and some for a moment after it got one. A request
is sent to an instance at most once: it is tried again only while nothing of it was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torpor.errors import ConnectError, TimedOutError, TransportError
from torpor.gateway import names
from torpor.gateway.caller import Caller
from torpor.gateway.spans import Wait
from torpor.gateway.starts import Starts
from torpor.gateway.targets import Holding, HoldLimits, Targets
from torpor.problems import Problem, ProblemType
from torpor.transport.deadlines import Deadlines
from torpor.transport.message import HOP_BY_HOP, Head, encode_fields, encode_head

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from torpor.clock import Clock
    from torpor.endpoint import Endpoint
    from torpor.gateway.caller import Request
    from torpor.gateway.spans import ColdStartSpans
    from torpor.transport import Client, Exchange, Headers

_LOG = logging.getLogger("torpor.gateway")
_BACKLOG = 4096
_RETRY_SECONDS = 0.25
_RETRY_AFTER_SECONDS = 1
_FAILED_RETRY_AFTER_SECONDS = 5
_NO_BODY = (204, 304)
_INSTANCE = names.INSTANCE_HEADER.encode()


class _RefusedError(Exception):
    """The request is answered with a problem instead of being passed on."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


@dataclass(slots=True)
class _Held:
    """What is counted of a request while it is held."""

    bytes: int
    over: bool = False


class Activator:
    """Serves Envoy on a unix socket. ``wake`` is called, with the key, when a request finds no instance.

    Belongs to one running loop. ``client`` is the caller's to close. ``starts`` is told which functions are
    waited for and which answer; with :attr:`spans` each request that was held for a start has one.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        client: Client,
        wake: Callable[[str], None],
        limits: HoldLimits | None = None,
        starts: Starts | None = None,
    ) -> None:
        self._clock = clock
        self._client = client
        self._wake = wake
        self._starts = starts or Starts()
        self.spans: ColdStartSpans | None = None
        self._limits = limits or HoldLimits()
        self._holding = Holding(self._limits)
        self._deadlines = Deadlines(clock)
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._callers: set[Caller] = set()
        self._server: asyncio.Server | None = None
        self.targets = Targets()

    async def start(self, path: Path) -> None:
        """Listen on a unix socket at ``path``."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._accept, str(path), backlog=_BACKLOG)

    async def close(self) -> None:
        """Stop listening and give up what is under way."""
        if self._server is not None:
            self._server.close()
        for caller in tuple(self._callers):
            caller.abort()
        while self._callers:
            await self._clock.sleep(0)
        await self._deadlines.close()

    @property
    def held(self) -> int:
        """Requests that are held now."""
        return self._holding.requests

    def waits(self, key: str) -> bool:
        """Whether a request for the function waits for an instance."""
        return key in self._waiting

    def declare(self, keys: Collection[str]) -> None:
        """Make ``keys`` the functions that there are."""
        self._starts.keep(keys)
        gone = [key for key in self._waiting if key not in keys]
        for endpoint in self.targets.declare(keys):
            self._client.forget(endpoint)
        for key in gone:
            self._stir(key)

    def publish(self, key: str, endpoints: Iterable[Endpoint]) -> None:
        """Make ``endpoints`` the instances of a function, from this moment on; held requests go there."""
        for endpoint in self.targets.publish(key, endpoints):
            self._client.forget(endpoint)
        self._stir(key)

    def fail(self, key: str, problem: str | None) -> None:
        """Answer held and new requests with ``problem``, until it is ``None`` or an instance is published."""
        self.targets.fail(key, problem)
        self._stir(key)

    # --- one request --------------------------------------------------------------------------------------

    def _accept(self) -> Caller:
        caller = Caller(self._serve, self._callers.discard)
        self._callers.add(caller)
        return caller

    async def _serve(self, request: Request) -> None:
        try:
            await self._answer(request)
        finally:
            self._end_wait(request, None, "gone")

    async def _answer(self, request: Request) -> None:
        try:
            endpoint, exchange = await self._reach(request)
        except _RefusedError as refused:
            await self._refuse(request, refused.problem)
            return
        try:
            await _pass_on(request, exchange, endpoint, lambda status: self._answered(request, status))
        except TransportError as error:
            _LOG.warning("%s at %s: %s (request %s)", request.function, endpoint, error, request.request_id)
            if request.caller.answered:
                request.caller.abort()
            else:
                problem = Problem(ProblemType.UPSTREAM_BROKEN, f"{error}.", request_id=request.request_id)
                await self._refuse(request, problem, endpoint)
        finally:
            exchange.close()
            self.targets.release(request.function, endpoint)

    def _answered(self, request: Request, status: int) -> None:
        """The function's answer begins."""
        self._starts.reached(request.function, "first_byte", self._clock.monotonic())
        self._end_wait(request, status)

    async def _refuse(self, request: Request, problem: Problem, endpoint: Endpoint | None = None) -> None:
        self._end_wait(request, problem.status, problem.type.slug)
        await request.caller.problem(problem, _instance(endpoint))

    def _end_wait(self, request: Request, status: int | None, failure: str | None = None) -> None:
        wait, request.wait = request.wait, None
        if wait is not None and self.spans is not None:
            self.spans.end(wait, status, failure)

    async def _reach(self, request: Request) -> tuple[Endpoint, Exchange]:
        """A connection to an instance, as soon as there is one. Raises :class:`_RefusedError`."""
        held = _Held(request.head_bytes + request.body.size_bytes)
        if not self._holding.admit(held.bytes):
            raise _overloaded(request)

        def more(size_bytes: int) -> None:
            if self._holding.grow(size_bytes):
                held.bytes += size_bytes
            else:
                held.over = True
                self._stir(request.function)

        request.on_body = more
        try:
            return await self._find(request, held)
        finally:
            request.on_body = None
            self._holding.leave(held.bytes)

    async def _find(self, request: Request, held: _Held) -> tuple[Endpoint, Exchange]:
        deadline = self._clock.monotonic() + self._limits.max_seconds
        key = request.function
        unreachable: set[Endpoint] = set()
        # A drain can begin between the moment an instance is there and this request's turn: hence a loop.
        while True:
            self._check(request, held, deadline)
            endpoint = self.targets.pick(key, unreachable)
            if endpoint is None:
                if not unreachable:
                    self._hold(request)
                await self._change(key, deadline, retry=bool(unreachable))
                unreachable.clear()
                continue
            try:
                left_seconds = deadline - self._clock.monotonic()
                return endpoint, await self._client.open(endpoint, timeout_seconds=left_seconds)
            except ConnectError:
                self.targets.release(key, endpoint)
                unreachable.add(endpoint)
            except TimedOutError:
                self.targets.release(key, endpoint)
            except asyncio.CancelledError:
                self.targets.release(key, endpoint)
                raise

    def _hold(self, request: Request) -> None:
        """The request waits for an instance: have one started."""
        now = self._clock.monotonic()
        start = self._starts.held(request.function, now)
        if request.wait is None:
            request.wait = Wait(now, start)
            if self.spans is not None:
                self.spans.begin(request, request.wait)
        request.wait.start = start  # of several, one after another, the last one is what served it
        self._wake(request.function)

    def _check(self, request: Request, held: _Held, deadline: float) -> None:
        """Raise :class:`_RefusedError` when the request is to be held no longer."""
        key = request.function
        if key not in self.targets:
            detail = f"No function is called {key!r}."
            raise _RefusedError(Problem(ProblemType.UNKNOWN_FUNCTION, detail, request.request_id))
        if held.over:
            raise _overloaded(request)
        problem = self.targets.problem(key)
        if problem is not None:
            self._wake(key)  # the next request may find it mended
            raise _RefusedError(
                Problem(ProblemType.START_FAILED, problem, request.request_id, _FAILED_RETRY_AFTER_SECONDS)
            )
        if self._clock.monotonic() >= deadline:
            detail = f"No instance took the request within {self._limits.max_seconds:g} s."
            raise _RefusedError(
                Problem(ProblemType.HELD_TOO_LONG, detail, request.request_id, _RETRY_AFTER_SECONDS)
            )

    # --- waiting ------------------------------------------------------------------------------------------

    async def _change(self, key: str, deadline: float, *, retry: bool) -> None:
        """Return when something about the function has changed, at the deadline, or to try again."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, set()).add(waiter)
        until = min(deadline, self._clock.monotonic() + _RETRY_SECONDS) if retry else deadline
        alarm = self._deadlines.at(until, lambda: _wake(waiter))
        try:
            await waiter
        finally:
            alarm.cancel()
            waiting = self._waiting.get(key)
            if waiting is not None:
                waiting.discard(waiter)
                if not waiting:
                    del self._waiting[key]

    def _stir(self, key: str) -> None:
        for waiter in self._waiting.get(key, ()):
            _wake(waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _overloaded(request: Request) -> _RefusedError:
    detail = "As many requests as there is room for wait for functions to start."
    return _RefusedError(Problem(ProblemType.OVERLOADED, detail, request.request_id, _RETRY_AFTER_SECONDS))


# --- passing on -------------------------------------------------------------------------------------------


async def _pass_on(
    request: Request, exchange: Exchange, endpoint: Endpoint, answered: Callable[[int], None]
) -> None:
    """Send the request to ``endpoint`` and bring its answer back; ``answered`` is told its status.

    Raises :class:`~torpor.errors.TransportError`.
    """
    headers = list(request.headers)
    if request.upgrade is not None:
        headers += [(b"connection", b"upgrade"), (b"upgrade", request.upgrade)]
    elif request.chunked:
        headers.append((b"transfer-encoding", b"chunked"))
    head = encode_head(request.method, request.target, encode_fields(headers), b"localhost")
    whole = request.body.ended and not request.chunked and request.upgrade is None
    exchange.start(
        head,
        await request.body.read() if whole else None,
        chunked=request.chunked,
        head_only=request.method == b"HEAD",
        upgrade=request.upgrade is not None,
    )
    if whole or request.upgrade is not None:
        await _answer(request, exchange, endpoint, answered)
        return
    upload = asyncio.get_running_loop().create_task(_upload(request, exchange))
    try:
        await _answer(request, exchange, endpoint, answered)
    finally:
        await _stop(upload)


async def _upload(request: Request, exchange: Exchange) -> None:
    """Send the body as it comes. A failure shows at the other end too, where the answer is read."""
    with contextlib.suppress(TransportError):
        while data := await request.body.read():
            await exchange.send(data)
        exchange.finish()


async def _answer(
    request: Request, exchange: Exchange, endpoint: Endpoint, answered: Callable[[int], None]
) -> None:
    caller = request.caller
    head = await exchange.head()
    answered(head.status)
    if head.status == 101:
        await _tunnel(request, exchange, head)
        return
    has_body = head.status not in _NO_BODY and request.method != b"HEAD"
    has_length = head.header(b"content-length") is not None
    headers = [*_answer_headers(head), *_instance(endpoint)]
    await caller.head(head.status, headers, has_body=has_body, has_length=has_length)
    while data := await exchange.read():
        await caller.body(data)
    await caller.end()


async def _tunnel(request: Request, exchange: Exchange, head: Head) -> None:
    """Bytes both ways, until the instance has closed its side."""
    caller = request.caller
    headers = _answer_headers(head)
    headers += [(b"connection", b"upgrade"), (b"upgrade", head.header(b"upgrade") or request.upgrade or b"")]
    await caller.head(101, headers, has_body=False, has_length=False)
    upload = asyncio.get_running_loop().create_task(_upload(request, exchange))
    try:
        while data := await exchange.read():
            await caller.body(data)
        caller.end_tunnel()
    finally:
        await _stop(upload)


def _answer_headers(head: Head) -> Headers:
    return [header for header in head.headers if header[0] not in HOP_BY_HOP and header[0] != _INSTANCE]


def _instance(endpoint: Endpoint | None) -> Headers:
    """Who answered. Envoy says it of those that it calls itself, and lets no caller outside see it."""
    instance = endpoint.instance if endpoint is not None else ""
    return [(_INSTANCE, instance.encode())] if instance else []


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
