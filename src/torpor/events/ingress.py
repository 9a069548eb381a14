"""Where events come in: ``POST /events/<namespace>/<broker>``, 202 once they are durable, all or none.

A raw ASGI application. Everything that may come over the wire is bounded, and what is refused is refused with
a problem document that says why. An event that was taken in before (same source and id) is answered 202 as
well: a producer that got no answer may send it again.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torpor.binding import WireEvent, decode
from torpor.errors import BlobError, EventLogError, MalformedEventError, RecordTooLargeError
from torpor.events.claims import Claims
from torpor.events.courier import publish
from torpor.events.records import taken_in
from torpor.events.stats import Stats
from torpor.problems import Problem, ProblemType

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    from torpor.events.log import EventLog
    from torpor.events.recorder import Recorder
    from torpor.serving import Receive, Scope, Send

_LOG = logging.getLogger("torpor.events")
_RETRY_AFTER_SECONDS = 1


@dataclass(frozen=True, slots=True)
class IngressLimits:
    """What one request may hold, and all of them together."""

    body_bytes: int = 16 * 1024 * 1024
    events: int = 1000
    attributes: int = 64
    attribute_bytes: int = 16 * 1024
    """Of one event, names and values together: they travel as HTTP headers."""
    body_seconds: float = 30.0
    """How long a request's body may take to come."""
    buffered_bytes: int = 128 * 1024 * 1024
    """Of all requests at once; further ones get 503."""


class _RefusedError(Exception):
    def __init__(self, kind: ProblemType, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class Ingress:
    """The ASGI application."""

    def __init__(
        self,
        log: EventLog,
        *,
        claims: Claims | None = None,
        stats: Stats | None = None,
        limits: IngressLimits | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._log = log
        self._claims = claims or Claims(None)
        self._stats = stats or Stats()
        self._limits = limits or IngressLimits()
        self._recorder = recorder
        self._brokers: frozenset[str] = frozenset()
        self._buffered_bytes = 0

    def set_brokers(self, broker_keys: Iterable[str]) -> None:
        """Which brokers there are, by key; requests for others get 404."""
        self._brokers = frozenset(broker_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"the ingress serves HTTP, not {scope['type']!r}")
        request_id = _request_id(scope["headers"])
        try:
            broker = self._broker(scope)
            async with self._budget() as take:
                body = await self._read(scope["headers"], receive, take)
                await self._publish(broker, self._decode(scope["headers"], body))
        except _DisconnectedError:
            return
        except _RefusedError as refused:
            self._stats.count_refused(refused.kind.slug)
            await _send_problem(send, refused, request_id)
            return
        headers = [(b"content-length", b"0"), (b"x-request-id", request_id.encode())]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    def _broker(self, scope: Scope) -> str:
        parts = scope["path"].split("/")
        if len(parts) != 4 or parts[0] or parts[1] != "events":
            raise _RefusedError(ProblemType.NOT_FOUND, "events are sent to /events/<namespace>/<broker>")
        broker = f"{parts[2]}/{parts[3]}"
        if broker not in self._brokers:
            known = ", ".join(sorted(self._brokers)[:20]) or "none"
            raise _RefusedError(
                ProblemType.UNKNOWN_BROKER, f"there is no broker {broker[:200]!r}; there are: {known}"
            )
        if scope["method"] != "POST":
            raise _RefusedError(ProblemType.METHOD_NOT_ALLOWED, "events are sent with POST")
        return broker

    @asynccontextmanager
    async def _budget(self) -> AsyncGenerator[Callable[[int], None], None]:
        """What one request takes of the memory for all; it is given back when the request ends."""
        taken = 0

        def take(size_bytes: int) -> None:
            nonlocal taken
            taken += size_bytes
            self._buffered_bytes += size_bytes
            if self._buffered_bytes > self._limits.buffered_bytes:
                raise _RefusedError(ProblemType.OVERLOADED, "too many events are being taken in already")

        try:
            yield take
        finally:
            self._buffered_bytes -= taken

    async def _read(
        self, headers: Sequence[tuple[bytes, bytes]], receive: Receive, take: Callable[[int], None]
    ) -> bytes:
        limit = self._limits.body_bytes
        announced = next((value for name, value in headers if name == b"content-length"), b"")
        if announced.isdigit() and int(announced[:18]) > limit:
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _DisconnectedError
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > limit:
                        raise self._too_large()
                    take(len(chunk))
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            detail = f"the body did not come within {self._limits.body_seconds:g} seconds"
            raise _RefusedError(ProblemType.MALFORMED_REQUEST, detail) from None

    def _too_large(self) -> _RefusedError:
        return _RefusedError(ProblemType.TOO_LARGE, f"the body has more than {self._limits.body_bytes} bytes")

    def _decode(self, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> list[WireEvent]:
        try:
            events = decode(headers, body)
        except MalformedEventError as error:
            raise _RefusedError(ProblemType.MALFORMED_EVENT, str(error)) from error
        if events is None:
            raise _RefusedError(
                ProblemType.UNSUPPORTED_MEDIA_TYPE,
                "a CloudEvent was expected: 'ce-' headers, or content type application/cloudevents+json or "
                "application/cloudevents-batch+json",
            )
        if len(events) > self._limits.events:
            raise _RefusedError(
                ProblemType.TOO_LARGE,
                f"the batch has {len(events)} events, at most {self._limits.events} were expected",
            )
        for event in events:
            self._check_size(event)
        return events

    def _check_size(self, event: WireEvent) -> None:
        size = len("".join([*event.attributes, *event.attributes.values()]).encode())
        if len(event.attributes) > self._limits.attributes or size > self._limits.attribute_bytes:
            raise _RefusedError(
                ProblemType.TOO_LARGE,
                f"event {event.id[:200]!r} has {len(event.attributes)} attributes of {size} bytes together, "
                f"at most {self._limits.attributes} and {self._limits.attribute_bytes} were expected",
            )

    async def _publish(self, broker: str, events: list[WireEvent]) -> None:
        if not events:
            return
        recorder = self._recorder
        at = recorder.now() if recorder is not None else 0.0
        try:
            checked = [await self._claims.check_in(event) for event in events]
            new = await publish(self._log, self._stats, broker, checked)
        except RecordTooLargeError as error:
            raise _RefusedError(ProblemType.TOO_LARGE, str(error)) from error
        except (EventLogError, BlobError) as error:
            _LOG.warning("events could not be stored", extra={"broker": broker, "error": str(error)})
            raise _RefusedError(
                ProblemType.UNAVAILABLE, "the events could not be stored; send them again"
            ) from error
        if recorder is not None:
            recorder.add(broker, taken_in(events, new, at=at, by=recorder.name, how="sent"))
            await recorder.flush(broker)


class _DisconnectedError(Exception):
    """The producer went away before its request was whole."""


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == b"x-request-id" and 0 < len(value) <= 200 and value.isascii():
            text = value.decode()
            if text.isprintable():
                return text
    return str(uuid.uuid4())


async def _send_problem(send: Send, refused: _RefusedError, request_id: str) -> None:
    again = refused.kind.status == 503
    problem = Problem(
        refused.kind, str(refused), request_id, retry_after_seconds=_RETRY_AFTER_SECONDS if again else None
    )
    body = problem.body()
    headers = problem.headers(body)
    if refused.kind is ProblemType.METHOD_NOT_ALLOWED:
        headers.append((b"allow", b"POST"))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
