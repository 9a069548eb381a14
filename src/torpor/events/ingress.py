"""Where events come in: ``POST /events/<namespace>/<broker>``, 202 once they are durable, all or none; and
calls that nobody waits for, ``/async-function/<name>``.

A raw ASGI application. Everything that may come over the wire is bounded, and what is refused is refused with
a problem document that says why. An event that was taken in before (same source and id) is answered 202 as
well: a producer that got no answer may send it again.
"""

from __future__ import annotations

import itertools
import logging
import uuid
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torpor.binding import WireEvent, decode
from torpor.errors import (
    BlobError,
    EventLogError,
    MalformedEventError,
    RecordTooLargeError,
    StreamFullError,
)
from torpor.events import names
from torpor.events.admission import Admission, BacklogFullError
from torpor.events.calls import CALL_ID_HEADER, ROUTE
from torpor.events.claims import Claims
from torpor.events.records import taken_in
from torpor.events.refusals import RefusedError
from torpor.events.retry_after import LEAST_SECONDS, Outages
from torpor.problems import Problem, ProblemType, there_are
from torpor.spec.view import MAX_ATTRIBUTE_BYTES
from torpor.transport.deadlines import Deadlines
from torpor.transport.message import first

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence

    from torpor.clock import Clock
    from torpor.events.call_intake import CallIntake
    from torpor.events.intake import Intake
    from torpor.events.recorder import Recorder
    from torpor.events.stats import Stats
    from torpor.serving import Receive, Scope, Send

_LOG = logging.getLogger("torpor.events")


@dataclass(frozen=True, slots=True)
class IngressLimits:
    """What one request may hold, and all of them together."""

    body_bytes: int = 16 * 1024 * 1024
    events: int = 1000
    attributes: int = 64
    attribute_bytes: int = MAX_ATTRIBUTE_BYTES
    """Of one event, names and values together: they travel as HTTP headers."""
    body_seconds: float = 30.0
    """How long a request's body may take to come."""
    buffered_bytes: int = 128 * 1024 * 1024
    """Of all requests at once; further ones get 503."""
    requests: int = 4096
    """Under way at once; further ones get 503."""


class Ingress:
    """The ASGI application."""

    def __init__(
        self,
        intake: Intake,
        clock: Clock,
        stats: Stats,
        *,
        claims: Claims | None = None,
        limits: IngressLimits | None = None,
        recorder: Recorder | None = None,
        calls: CallIntake | None = None,
        admission: Admission | None = None,
    ) -> None:
        self._intake = intake
        self._clock = clock
        self._outages = Outages()
        self._admission = admission
        self._claims = claims or Claims(None)
        self._stats = stats
        self._limits = limits or IngressLimits()
        self._recorder = recorder
        self._calls = calls
        self._brokers: frozenset[str] = frozenset()
        self._buffered_bytes = 0
        self._under_way = 0
        self._deadlines = Deadlines(self._clock)
        self._own = uuid.uuid4().hex
        self._numbers = itertools.count(1)

    async def close(self) -> None:
        """To be called once nothing is served any more."""
        await self._deadlines.close()

    def set_brokers(self, broker_keys: Iterable[str]) -> None:
        """Which brokers there are, by key; requests for others get 404."""
        self._brokers = frozenset(broker_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"the ingress serves HTTP, not {scope['type']!r}")
        request_id = _request_id(scope["headers"]) or f"{self._own}-{next(self._numbers)}"
        headers = [(b"content-length", b"0"), (b"x-request-id", request_id.encode())]
        try:
            if self._calls is not None and scope["path"].startswith(f"{ROUTE}/"):
                call_id = await self._take_call(self._calls, scope, receive)
                headers.append((CALL_ID_HEADER, call_id.encode()))
            else:
                await self._take_events(scope, receive)
        except _DisconnectedError:
            return
        except RefusedError as refused:
            self._stats.count_refused(refused.kind.slug)
            await _send_problem(send, refused, request_id)
            return
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _take_call(self, calls: CallIntake, scope: Scope, receive: Receive) -> str:
        expected = calls.expect(scope)
        limit = min(expected.body_bytes, self._limits.body_bytes)
        async with self._budget() as take:
            body = await self._read(scope["headers"], receive, take, limit)
            with self._storing(names.CALLS):
                return await calls.accept(expected, body)

    async def _take_events(self, scope: Scope, receive: Receive) -> None:
        broker = self._broker(scope)
        async with self._budget() as take:
            body = await self._read(scope["headers"], receive, take, self._limits.body_bytes)
            await self._publish(broker, self._decode(scope["headers"], body))

    @contextmanager
    def _storing(self, place: str) -> Iterator[None]:
        """A block that stores something: while that fails, who is refused is asked to wait ever longer."""
        try:
            yield
        except RefusedError as refused:
            if refused.kind is ProblemType.UNAVAILABLE:
                refused.retry_after_seconds = self._outages.failed(place, self._clock.monotonic())
            raise
        self._outages.stored(place)

    def _broker(self, scope: Scope) -> str:
        parts = scope["path"].split("/")
        if len(parts) != 4 or parts[0] or parts[1] != "events":
            raise RefusedError(ProblemType.NOT_FOUND, "events are sent to /events/<namespace>/<broker>")
        broker = f"{parts[2]}/{parts[3]}"
        if broker not in self._brokers:
            known = there_are(self._brokers)
            raise RefusedError(
                ProblemType.UNKNOWN_BROKER, f"there is no broker {broker[:200]!r}; there are: {known}"
            )
        if scope["method"] != "POST":
            raise RefusedError(ProblemType.METHOD_NOT_ALLOWED, "events are sent with POST")
        return broker

    @asynccontextmanager
    async def _budget(self) -> AsyncGenerator[Callable[[int], None], None]:
        """What one request takes of what there is for all; it is given back when the request ends."""
        if self._under_way >= self._limits.requests:
            raise RefusedError(ProblemType.OVERLOADED, "too many requests are under way already")
        taken = 0

        def take(size_bytes: int) -> None:
            nonlocal taken
            taken += size_bytes
            self._buffered_bytes += size_bytes
            if self._buffered_bytes > self._limits.buffered_bytes:
                raise RefusedError(ProblemType.OVERLOADED, "too many events are being taken in already")

        self._under_way += 1
        try:
            yield take
        finally:
            self._under_way -= 1
            self._buffered_bytes -= taken

    async def _read(
        self,
        headers: Sequence[tuple[bytes, bytes]],
        receive: Receive,
        take: Callable[[int], None],
        limit: int,
    ) -> bytes:
        announced = next((value for name, value in headers if name == b"content-length"), b"")
        if announced.isdigit() and int(announced[:18]) > limit:
            raise _too_large(limit)
        chunks: list[bytes] = []
        size = 0
        try:
            with self._deadlines.limit(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _DisconnectedError
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > limit:
                        raise _too_large(limit)
                    take(len(chunk))
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            detail = f"the body did not come within {self._limits.body_seconds:g} seconds"
            raise RefusedError(ProblemType.MALFORMED_REQUEST, detail) from None

    def _decode(self, headers: list[tuple[bytes, bytes]], body: bytes) -> list[WireEvent]:
        encoding = first(headers, b"content-encoding")
        if encoding is not None and encoding.strip().lower() != b"identity":
            shown = encoding[:100].decode("latin-1")
            detail = f"the body is encoded as {shown!r}, which is not kept: send it as it is"
            raise RefusedError(ProblemType.UNSUPPORTED_MEDIA_TYPE, detail)
        try:
            events = decode(headers, body)
        except MalformedEventError as error:
            raise RefusedError(ProblemType.MALFORMED_EVENT, str(error)) from error
        if events is None:
            raise RefusedError(
                ProblemType.UNSUPPORTED_MEDIA_TYPE,
                "a CloudEvent was expected: 'ce-' headers, or content type application/cloudevents+json or "
                "application/cloudevents-batch+json",
            )
        if len(events) > self._limits.events:
            raise RefusedError(
                ProblemType.TOO_LARGE,
                f"the batch has {len(events)} events, at most {self._limits.events} were expected",
            )
        for event in events:
            self._check_size(event)
        return events

    def _check_size(self, event: WireEvent) -> None:
        size = len("".join([*event.attributes, *event.attributes.values()]).encode())
        if len(event.attributes) > self._limits.attributes or size > self._limits.attribute_bytes:
            raise RefusedError(
                ProblemType.TOO_LARGE,
                f"event {event.id[:200]!r} has {len(event.attributes)} attributes of {size} bytes together, "
                f"at most {self._limits.attributes} and {self._limits.attribute_bytes} were expected",
            )

    async def _publish(self, broker: str, events: list[WireEvent]) -> None:
        if not events:
            return
        recorder = self._recorder
        at = recorder.now() if recorder is not None else 0.0
        with self._storing(broker):
            new = await self._store(broker, events)
        if recorder is not None:
            recorder.add(broker, taken_in(events, new, at=at, by=recorder.name, how="sent"))
            await recorder.flush(broker)

    async def _store(self, broker: str, events: list[WireEvent]) -> list[bool]:
        try:
            async with self._admitted(broker, events):
                checked = [await self._claims.check_in(event) for event in events]
                return await self._intake.publish(broker, checked)
        except BacklogFullError as error:
            full = error.problem
            seconds = full.retry_after_seconds
            raise RefusedError(
                full.type, full.detail, extras=full.extras, retry_after_seconds=seconds
            ) from error
        except RecordTooLargeError as error:
            raise RefusedError(ProblemType.TOO_LARGE, self._claims.too_large(error)) from error
        except StreamFullError as error:
            _LOG.warning("a broker is full", extra={"broker": broker, "error": str(error)})
            raise RefusedError(
                ProblemType.UNAVAILABLE, f"{error}; send the events again once there is room"
            ) from error
        except (EventLogError, BlobError) as error:
            _LOG.warning("events could not be stored", extra={"broker": broker, "error": str(error)})
            raise RefusedError(
                ProblemType.UNAVAILABLE, "the events could not be stored; send them again"
            ) from error

    def _admitted(self, broker: str, events: list[WireEvent]) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self._admission is None else self._admission.admitted(broker, events)


def _too_large(limit: int) -> RefusedError:
    return RefusedError(ProblemType.TOO_LARGE, f"the body has more than {limit} bytes")


class _DisconnectedError(Exception):
    """The producer went away before its request was whole."""


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    for name, value in headers:
        if name == b"x-request-id" and 0 < len(value) <= 200 and value.isascii():
            text = value.decode()
            if text.isprintable():
                return text
    return None


async def _send_problem(send: Send, refused: RefusedError, request_id: str) -> None:
    seconds = refused.retry_after_seconds
    if seconds is None and refused.kind.status in (429, 503):
        seconds = LEAST_SECONDS
    problem = Problem(
        refused.kind, str(refused), request_id, retry_after_seconds=seconds, extras=refused.extras
    )
    body = problem.body()
    headers = problem.headers(body)
    if refused.kind is ProblemType.METHOD_NOT_ALLOWED:
        headers.append((b"allow", refused.allow.encode()))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
