"""Plain HTTP to a function: to the author's app, to a handler of requests, or to one that takes data.

A handler that is made for events can be called without one: POST what it takes, and the answer is what it
gave back, as JSON.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import orjson

from torpor.binding import WireEvent, is_json
from torpor.errors import MalformedEventError
from torpor.problems import ProblemType
from torpor.runtime import answers, bodies, metrics, mount, replies
from torpor.runtime.plan import Takes
from torpor.runtime.refusals import RefusalError

if TYPE_CHECKING:
    from torpor.runtime.answers import Answer
    from torpor.runtime.calls import Call
    from torpor.runtime.events import Events
    from torpor.runtime.runtime import Runtime

_LOG = logging.getLogger("torpor.runtime")


def _handler(runtime: Runtime) -> Events:
    if runtime.events is None:
        raise RuntimeError("this function has no handler")
    return runtime.events


# --- the author's app -------------------------------------------------------------------------------------


class _Exchange:
    """One request to an ASGI app: watches how much comes in and whether the answer has begun."""

    def __init__(self, receive: Any, send: Any, max_body_bytes: int, call: Call) -> None:
        self._receive = receive
        self._send = send
        self._left = max_body_bytes
        self._call = call
        self.too_large = False
        self.status = 0
        self.complete = False

    async def receive(self) -> Any:
        """The next message; a body over the limit ends here."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                self.too_large = True
                raise RefusalError(ProblemType.TOO_LARGE, "The body is larger than allowed.")
        return message

    async def send(self, message: Any) -> None:
        """Pass the app's answer on, unless ours stands in its place."""
        if self._call.abandoned or (self.too_large and not self.status):
            return
        kind = message["type"]
        if kind == "http.response.start":
            self.status = self._call.status = message["status"]
            self._call.started_response = True
        elif kind == "http.response.body" and not message.get("more_body", False):
            self.complete = True
        await self._send(message)


async def serve_app(
    runtime: Runtime, scope: Any, receive: Any, send: Any, headers: dict[bytes, bytes]
) -> None:
    """Serve a request by the author's app, within the function's limits."""
    call = runtime.begin(scope, headers, send)
    exchange = _Exchange(receive, send, runtime.settings.max_body_bytes, call)
    _apply_forwarded(scope, call)

    async def work() -> Answer | None:
        bodies.check_length(headers, runtime.settings.max_body_bytes)
        await runtime.enter(call)
        try:
            mount.apply(scope, headers)
            await runtime.target.app(scope, exchange.receive, exchange.send)
        except Exception:
            if exchange.too_large and not exchange.status:
                raise bodies.too_large(runtime.settings.max_body_bytes) from None
            if not exchange.status:
                raise
            _LOG.exception("the app failed after its answer had begun")
            runtime.metrics.outcomes[metrics.FAILED] += 1
            return None
        if exchange.too_large and not exchange.status:
            raise bodies.too_large(runtime.settings.max_body_bytes)
        _count(runtime, exchange.status, call)
        return None

    await runtime.run(call, work())


def _count(runtime: Runtime, status: int, call: Call) -> None:
    if call.timed_out:
        return
    outcome = metrics.OK if status < 400 else metrics.REFUSED if status < 500 else metrics.FAILED
    runtime.metrics.outcomes[outcome] += 1
    runtime.metrics.duration.observe(time.monotonic() - call.started)


def _apply_forwarded(scope: Any, call: Call) -> None:
    """Let the app see scheme and client as the caller used them, as the nearest proxy says."""
    if b"x-forwarded-proto" in call.headers:
        scope["scheme"] = call.client_scheme
    if b"x-forwarded-for" in call.headers and call.client_address:
        scope["client"] = (call.client_address, 0)


async def serve_websocket(
    runtime: Runtime, scope: Any, receive: Any, send: Any, headers: dict[bytes, bytes]
) -> None:
    """Hand a WebSocket to the author's app; it holds a place, and its time is limited until it is
    accepted.
    """
    if runtime.target.app is None:
        await receive()
        await send({"type": "websocket.close", "code": 1000})
        return
    call = runtime.begin(scope, headers, send)

    async def watched(message: Any) -> None:
        if message["type"] == "websocket.accept":
            runtime.calls.end(call)
        await send(message)

    try:
        await runtime.enter(call)
        mount.apply(scope, headers)
        await runtime.target.app(scope, receive, watched)
    finally:
        runtime.leave(call)


# --- a handler that takes the request ---------------------------------------------------------------------


async def serve_request(
    runtime: Runtime, scope: Any, receive: Any, send: Any, headers: dict[bytes, bytes]
) -> None:
    """Serve a request by a handler that takes Starlette's ``Request``."""
    from starlette.requests import Request  # noqa: PLC0415 - the handler's module has imported it
    from starlette.responses import Response  # noqa: PLC0415

    call = runtime.begin(scope, headers, send)
    exchange = _Exchange(receive, send, runtime.settings.max_body_bytes, call)
    _apply_forwarded(scope, call)

    async def work() -> Answer | None:
        bodies.check_length(headers, runtime.settings.max_body_bytes)
        await runtime.enter(call)
        try:
            result = await _handler(runtime).invoke(Request(scope, exchange.receive, exchange.send), call)
        except Exception:
            if exchange.too_large:
                raise bodies.too_large(runtime.settings.max_body_bytes) from None
            raise
        if isinstance(result, Response):
            await result(scope, exchange.receive, exchange.send)
            _count(runtime, exchange.status, call)
            return None
        return _value(runtime, result, call)

    await runtime.run(call, work())


# --- a handler that takes data ----------------------------------------------------------------------------


async def serve_value(
    runtime: Runtime, scope: Any, receive: Any, send: Any, headers: dict[bytes, bytes]
) -> None:
    """Call a handler for events with a plain body, and answer what it gives back."""
    call = runtime.begin(scope, headers, send)
    plan = _handler(runtime).plan

    async def work() -> Answer:
        if plan.takes is not Takes.NOTHING and scope["method"] != "POST":
            raise RefusalError(
                ProblemType.METHOD_NOT_ALLOWED,
                f"The function '{runtime.name}' takes {plan.takes.value}: POST it.",
                headers=((b"allow", b"POST"),),
            )
        bodies.check_length(headers, runtime.settings.max_body_bytes)
        body = await bodies.read(receive, runtime.settings.max_body_bytes)
        events = _as_events(runtime, call, body, headers.get(b"content-type"), many=plan.many)
        await runtime.enter(call, receive)
        try:
            arguments = [await _handler(runtime).argument(event) for event in events]
        except (MalformedEventError, RefusalError) as error:
            raise _about_the_request(error) from error
        result = await _handler(runtime).invoke(arguments if plan.many else arguments[0], call)
        return _value(runtime, result, call)

    await runtime.run(call, work())


def _about_the_request(error: MalformedEventError | RefusalError) -> RefusalError:
    if isinstance(error, MalformedEventError):
        text = str(error)
        return RefusalError(ProblemType.MALFORMED_REQUEST, f"{text[:1].upper()}{text[1:]}.")
    if error.problem_type is ProblemType.MALFORMED_EVENT:
        return RefusalError(ProblemType.MALFORMED_REQUEST, error.detail)
    return error


def _as_events(
    runtime: Runtime, call: Call, body: bytes, content_type: bytes | None, *, many: bool
) -> list[WireEvent]:
    """The body as the data of an event that stands for the call, or of as many as its array has items."""
    attributes = {
        "specversion": "1.0",
        "id": call.request_id,
        "source": f"{runtime.source}/http",
        "type": f"{runtime.name}.called",
    }
    if content_type is not None:
        attributes["datacontenttype"] = content_type.decode("latin-1")
    if not many:
        return [WireEvent(attributes, body or None)]
    if not is_json(attributes.get("datacontenttype")):
        raise RefusalError(
            ProblemType.UNSUPPORTED_MEDIA_TYPE,
            f"The function '{runtime.name}' takes a list: a JSON array was expected.",
        )
    try:
        items = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusalError(ProblemType.MALFORMED_REQUEST, f"The body is not JSON: {error}.") from None
    if not isinstance(items, list):
        raise RefusalError(
            ProblemType.INVALID_DATA,
            f"The function '{runtime.name}' takes a list: a JSON array was expected.",
        )
    return [WireEvent(attributes, orjson.dumps(item)) for item in items]


def _value(runtime: Runtime, result: Any, call: Call) -> Answer:
    """What a handler gave back to a plain call: its value, or its events where it made some itself."""
    if result is None:
        return answers.nothing(metrics.OK)
    plan = _handler(runtime).plan
    values = result if plan.yields else [result]
    if any(replies.is_event(value) for value in values):
        cause = replies.Cause(call.request_id, {}, {}, call.trace.attributes())
        maker = _handler(runtime).maker
        if plan.yields:
            return answers.batch(replies.many(values, cause, maker, replies.now()), metrics.OK)
        return answers.event(replies.single(result, cause, maker, replies.now()), metrics.OK)
    body, content_type = replies.data_of(result)
    return answers.answer(200, [(b"content-type", content_type.encode())], body, metrics.OK)
