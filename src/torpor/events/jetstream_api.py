"""One connection to NATS, and requests on it that outlast a short outage of the server.

A request that got no answer, since the connection broke or JetStream is not up yet, is made again until
:data:`PATIENCE_SECONDS` are over: everything that is asked of JetStream here is harmless to repeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from nats.errors import (
    ConnectionClosedError,
    ConnectionDrainingError,
    ConnectionReconnectingError,
    Error,
    MaxPayloadError,
    OutboundBufferLimitError,
)

from torpor.clock import SystemClock
from torpor.errors import EventLogError, RecordTooLargeError
from torpor.events.nats_client import Client, Heard

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from torpor.clock import Clock

T = TypeVar("T")
_LOG = logging.getLogger("torpor.events")
PATIENCE_SECONDS = 10.0
"""How long a request is made again before it fails."""
_ATTEMPT_SECONDS = 4.0
_PAUSE_SECONDS = 0.05
_RECONNECT_SECONDS = 0.1
_PENDING_BYTES = 32 * 1024 * 1024
_API = "$JS.API."
_UNAVAILABLE = 10008
_WRITE_UNDER_WAY = 10164

STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014


class ApiRefusedError(EventLogError):
    """JetStream answered with an error; ``code`` is its ``err_code``."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(f"JetStream refused: {description} ({code})")
        self.code = code
        self.description = description


class UnansweredError(Exception):
    """No answer came to one attempt; the text says why."""


class NobodyThereError(UnansweredError):
    """Nobody listens: JetStream is not up yet, or there is no such stream."""


class Api:
    """A connection that is made anew for ever, until it is closed."""

    def __init__(self, client: Client, clock: Clock, patience_seconds: float) -> None:
        self._client = client
        self._clock = clock
        self._patience_seconds = patience_seconds
        self._attempt_seconds = min(_ATTEMPT_SECONDS, patience_seconds)
        self._inbox = client.new_inbox()
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Future[Heard]] = {}
        self.reconnects = 0
        self._listeners: set[Callable[[], None]] = set()

    @classmethod
    async def connect(
        cls, url: str, *, token: str | None, name: str, clock: Clock | None, patience_seconds: float
    ) -> Api:
        """Connect; raises :class:`~torpor.errors.EventLogError` when no server is there in time.

        ``url`` may name several servers of one cluster, with commas between.
        """
        client = Client()
        api = cls(client, clock or SystemClock(), patience_seconds)
        try:
            async with asyncio.timeout(patience_seconds):
                await client.connect(
                    [server.strip() for server in url.split(",")],
                    name=name,
                    token=token,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=_RECONNECT_SECONDS,  # type: ignore[arg-type]
                    connect_timeout=2,
                    ping_interval=10,
                    max_outstanding_pings=2,
                    pending_size=_PENDING_BYTES,
                    skip_subject_validation=True,  # all are made of tokens here
                    error_cb=_on_error,
                    disconnected_cb=api._on_disconnected,
                    reconnected_cb=api._on_reconnected,
                )
                await client.hear(f"{api._inbox}.*", api._on_answer)
        except (Error, OSError, TimeoutError) as error:
            with contextlib.suppress(Error, OSError, AssertionError):  # the last one if it never began
                await client.close()
            raise EventLogError(f"there is no NATS at {url}: {_text(error)}") from error
        except asyncio.CancelledError:
            with contextlib.suppress(Error, OSError):
                await client.close()
            raise
        return api

    @property
    def client(self) -> Client:
        """The connection itself."""
        return self._client

    @property
    def connected(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._client.is_connected

    @property
    def max_payload_bytes(self) -> int:
        """The largest message that the server takes, headers included."""
        return int(self._client.max_payload)

    def on_reconnect(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after each loss of the connection; what is returned ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    async def close(self) -> None:
        """Send what is still to be sent, and close."""
        if self._client.is_closed:
            return
        with contextlib.suppress(Error, OSError):
            if self._client.is_connected:
                await self._client.flush(2)
        with contextlib.suppress(Error, OSError):
            await self._client.close()
        self._fail("the connection is closed")

    # --- requests -------------------------------------------------------------------------------------------

    async def call(
        self, verb: str, body: dict[str, Any] | None = None, *, patience_seconds: float | None = None
    ) -> dict[str, Any]:
        """Call JetStream's API. Raises :class:`ApiRefusedError`, :class:`~torpor.errors.EventLogError`."""
        payload = b"" if body is None else orjson.dumps(body)
        return await self._ask(_API + verb, payload, patience_seconds, answer_of)

    async def request(self, subject: str, payload: bytes, patience_seconds: float | None = None) -> Heard:
        """One request and its answer."""
        return await self._ask(subject, payload, patience_seconds, lambda message: message)

    async def _ask(
        self, subject: str, payload: bytes, patience_seconds: float | None, read: Callable[[Heard], T]
    ) -> T:
        """What ``read`` says of the answer, once it does not find that there is none yet."""
        patience = self._patience_seconds if patience_seconds is None else patience_seconds
        deadline = self._clock.monotonic() + patience
        while True:
            try:
                request = await self.post(subject, payload)
                return read(await self.answer(request, min(self._attempt_seconds, patience)))
            except UnansweredError as error:
                await self.pause(deadline, error)

    async def post(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None
    ) -> asyncio.Future[Heard]:
        """Send a request; the answer is for :meth:`answer`. Requests go out in the order of the calls."""
        token = str(next(self._numbers))
        future: asyncio.Future[Heard] = asyncio.get_running_loop().create_future()
        self._waiting[token] = future
        future.add_done_callback(lambda _: self._waiting.pop(token, None))
        try:
            await self.publish(subject, payload, f"{self._inbox}.{token}", headers)
        except BaseException:
            future.cancel()
            raise
        return future

    @contextlib.asynccontextmanager
    async def stream(self, subject: str, payload: bytes) -> AsyncGenerator[AsyncIterator[Heard], None]:
        """Send a request that has many answers: an iterator over them, which ends when one is overdue."""
        inbox = self._client.new_inbox()
        arrived: asyncio.Queue[Heard] = asyncio.Queue()
        try:
            subscription = await self._client.hear(inbox, arrived.put_nowait)
        except Error as error:
            raise UnansweredError(_text(error)) from error
        try:
            await self.publish(subject, payload, inbox)
            yield _answers(arrived, self._attempt_seconds)
        finally:
            with contextlib.suppress(Error, OSError):
                await subscription.unsubscribe()

    async def publish(
        self, subject: str, payload: bytes, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Send a message; during an outage it waits in a buffer."""
        try:
            await self._client.publish(subject, payload, reply=reply, headers=headers)
        except MaxPayloadError as error:
            raise RecordTooLargeError(f"a message has {len(payload)} bytes, more than NATS takes") from error
        except OutboundBufferLimitError:
            raise UnansweredError("too much waits for NATS to come back") from None
        except (ConnectionClosedError, ConnectionDrainingError) as error:
            raise EventLogError("the connection to NATS is closed") from error
        except (ConnectionReconnectingError, OSError) as error:
            raise UnansweredError(_text(error)) from None
        except (Error, ValueError) as error:  # such as a header's name that no header can have
            raise EventLogError(f"NATS can't be sent a message: {_text(error)}") from error

    async def answer(self, future: asyncio.Future[Heard], timeout_seconds: float | None = None) -> Heard:
        """The answer to what :meth:`post` sent, in one attempt's time."""
        try:
            async with asyncio.timeout(timeout_seconds or self._attempt_seconds):
                message = await future
        except TimeoutError:
            raise UnansweredError("NATS did not answer in time") from None
        if message.status == "503":
            raise NobodyThereError("JetStream is not ready")
        return message

    async def pause(self, deadline: float, error: Exception) -> None:
        """Wait a little before the next attempt; raises when ``deadline`` (monotonic) has passed."""
        if self._clock.monotonic() >= deadline:
            raise EventLogError(f"NATS can't be reached: {error}") from error
        await self._clock.sleep(_PAUSE_SECONDS)

    def deadline(self) -> float:
        """Until when a call that starts now may try (monotonic)."""
        return self._clock.monotonic() + self._patience_seconds

    def left_seconds(self, deadline: float) -> float:
        """How long it is until ``deadline``."""
        return max(0.0, deadline - self._clock.monotonic())

    # --- what the connection says ---------------------------------------------------------------------------

    def _on_answer(self, message: Heard) -> None:
        future = self._waiting.get(message.subject.rpartition(".")[2])
        if future is not None and not future.done():
            future.set_result(message)

    async def _on_disconnected(self) -> None:
        # What was sent into the dying connection gets no answer any more; what is sent from now on is
        # buffered and goes out when there is a connection again.
        self._fail("the connection to NATS broke")

    async def _on_reconnected(self) -> None:
        self.reconnects += 1
        for listener in list(self._listeners):
            listener()

    def _fail(self, reason: str) -> None:
        for future in list(self._waiting.values()):
            if not future.done():
                future.set_exception(UnansweredError(reason))
                future.exception()  # who waits for it sees it, who has gone away need not


async def _answers(arrived: asyncio.Queue[Heard], timeout_seconds: float) -> AsyncIterator[Heard]:
    while True:
        try:
            async with asyncio.timeout(timeout_seconds):
                message = await arrived.get()
        except TimeoutError:
            return
        yield message


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def answer_of(message: Heard) -> dict[str, Any]:
    """The JSON of an answer. Raises :class:`ApiRefusedError` when it is an error.

    It is no answer yet (:class:`UnansweredError`) that servers which keep copies have no leader for now.
    Nor is that they refuse one of two writes that expect the same of a subject at the same time: they do so
    before they know what becomes of the other.
    """
    try:
        document = orjson.loads(message.data)
    except orjson.JSONDecodeError as error:
        raise EventLogError(f"JetStream answered {message.data[:100]!r}") from error
    if not isinstance(document, dict):
        raise EventLogError(f"JetStream answered {message.data[:100]!r}")
    refusal = document.get("error")
    if refusal is None:
        return document
    code, description = int(refusal.get("err_code", 0)), str(refusal.get("description", "no reason"))
    if code == _UNAVAILABLE:
        raise UnansweredError(description)
    if code == _WRITE_UNDER_WAY:
        raise UnansweredError("another write that expects the same is under way")
    raise ApiRefusedError(code, description)


async def _on_error(error: Exception) -> None:
    _LOG.debug("the connection to NATS has trouble", extra={"error": _text(error)})
