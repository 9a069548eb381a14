"""What the events service answers to the platform: ``GET /state``, ``GET /health``, ``GET /metrics`` and
``GET /tail/<namespace>/<broker>`` (a line of JSON for each event, which says so where it was there before);
and ``PUT /declared`` where somebody else knows what is declared.

``POST /backlogs`` with the keys of triggers and of functions' calls, and of each whether the age of what
waits longest is wanted: what waits (:mod:`torpor.scaling.backlog`).
``POST /explain`` with a :class:`~torpor.spec.history.Question`: what happened to an event.
``GET /calls/<id>``: how far a call is that nobody waits for. ``POST /calls/select`` with a
:class:`~torpor.spec.calls.CallQuestion`: a page of them; ``GET /calls/running``: the ids of those that this
process is making.
``POST /replay/<namespace>/<broker>`` with a :class:`~torpor.spec.replays.Replay`: events delivered again.
Of dead letters: ``GET /dead-letters/<id>``, and ``POST /dead-letters/select``, ``/replay`` and ``/drop`` with
the documents of :mod:`torpor.spec.letters`. What is selected comes as a line of JSON each; the last line is
:data:`END`, by which a list that is whole is told from one that was cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import TYPE_CHECKING, TypeVar

import orjson
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from pydantic import TypeAdapter

from torpor.binding import WireEvent, encode_structured
from torpor.clock import cancel, first_of
from torpor.errors import EventLogError, TorporError
from torpor.events import names
from torpor.events.calls import CALL_ID_HEADER, NO_CALLBACKS
from torpor.events.declaration import Declaration
from torpor.problems import ProblemType
from torpor.scaling.backlog import encode
from torpor.serving import answer, refuse
from torpor.spec.calls import CallQuestion
from torpor.spec.history import Question
from torpor.spec.letters import ID_DIGITS, LetterAction, LetterOutcome, LetterSelection
from torpor.spec.replays import REPLAYED, Replay

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from torpor.clock import Clock
    from torpor.events.log import Stored
    from torpor.events.service import Service
    from torpor.serving import Receive, Scope, Send

_LOG = logging.getLogger("torpor.events")
END = b"end"
_MAX_CONTROL_BYTES = 64 * 1024 * 1024
_HEARTBEAT_SECONDS = 15.0
_JSON = b"application/json"
_LINES = [(b"content-type", b"application/x-ndjson")]
_LETTERS = "/dead-letters/"
_REPLAY = "/replay/"
_CALLS = "/calls/"

_WANTED = TypeAdapter(dict[str, bool])
_OUTCOMES = TypeAdapter(list[LetterOutcome])
T = TypeVar("T")


class ControlApp:
    """The ASGI application. ``declares`` lets it take what is declared."""

    def __init__(self, service: Service, clock: Clock, *, declares: bool) -> None:
        self._service = service
        self._clock = clock
        self._declares = declares
        self._ended = asyncio.Event()

    def end(self) -> None:
        """End the tails."""
        self._ended.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if any(name == CALL_ID_HEADER for name, _ in scope["headers"]):
            await refuse(send, ProblemType.MALFORMED_REQUEST, NO_CALLBACKS)
            return
        try:
            await self._serve(scope, receive, send)
        except ValueError as error:  # pydantic's errors are such
            await refuse(send, ProblemType.MALFORMED_REQUEST, str(error))
        except TorporError as error:
            await refuse(send, ProblemType.UNAVAILABLE, str(error))

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        service = self._service
        if (method, path) == ("PUT", "/declared") and self._declares:
            await self._put_declared(receive)
            await answer(send, 204, _JSON, b"")
        elif (method, path) == ("GET", "/state"):
            await answer(send, 200, _JSON, (await service.state()).model_dump_json().encode())
        elif (method, path) == ("GET", "/health"):
            await answer(send, 200, _JSON, service.health().model_dump_json().encode())
        elif (method, path) == ("GET", "/metrics"):
            await answer(send, 200, CONTENT_TYPE_LATEST.encode(), generate_latest(service.registry))
        elif method == "GET" and path.startswith("/tail/"):
            await self._tail(path.removeprefix("/tail/"), receive, send)
        elif (method, path) == ("POST", "/backlogs"):
            wanted = _WANTED.validate_json(await _body(receive))
            await answer(send, 200, _JSON, encode(await service.backlogs(wanted)))
        elif (method, path) == ("POST", "/explain"):
            question = Question.model_validate_json(await _body(receive))
            told = await service.explainer.explain(question)
            await answer(send, 200, _JSON, told.model_dump_json().encode())
        elif path.startswith(_CALLS):
            await self._calls(method, path.removeprefix(_CALLS), receive, send)
        elif method == "POST" and path.startswith(_REPLAY):
            replay = Replay.model_validate_json(await _body(receive))
            page = await service.archive.replay(path.removeprefix(_REPLAY), replay)
            await answer(send, 200, _JSON, page.model_dump_json().encode())
        elif path.startswith(_LETTERS):
            await self._letters(method, path.removeprefix(_LETTERS), receive, send)
        else:
            await _unknown(scope, send)

    async def _put_declared(self, receive: Receive) -> None:
        body = await _body(receive)
        await self._service.declare(Declaration.model_validate_json(body, strict=False))

    async def _tail(self, broker_key: str, receive: Receive, send: Send) -> None:
        tail = await self._service.tail(broker_key)
        await self._stream(tail, lambda stored: encode_structured(_marked(stored)), receive, send)

    async def _stream(
        self, items: AsyncGenerator[T, None], line: Callable[[T], bytes], receive: Receive, send: Send
    ) -> None:
        """Answer with a line for each item, for as long as there are some and somebody listens."""
        forwarding = asyncio.ensure_future(_forward(items, line, send))
        await send({"type": "http.response.start", "status": 200, "headers": _LINES})
        try:
            await first_of(
                asyncio.shield(forwarding), _disconnected(receive), self._ended.wait(), self._beat(send)
            )
            if forwarding.done():
                forwarding.result()
        except TorporError as error:  # the last line is missing then
            _LOG.warning("a list could not be told to its end", extra={"error": str(error)})
        finally:
            await cancel(forwarding)
            await items.aclose()
        with contextlib.suppress(OSError):
            await send({"type": "http.response.body", "body": b""})

    async def _calls(self, method: str, name: str, receive: Receive, send: Send) -> None:
        service = self._service
        if (method, name) == ("POST", "select"):
            question = CallQuestion.model_validate_json(await _body(receive))
            page = await service.call_list.page(question.selection, question.running)
            await answer(send, 200, _JSON, page.model_dump_json().encode())
        elif (method, name) == ("GET", "running"):
            await answer(send, 200, _JSON, orjson.dumps(sorted(service.call_workers.running())))
        elif method == "GET":
            call = await service.calls.status(name)
            await answer(send, 200, _JSON, b"null" if call is None else call.model_dump_json().encode())
        else:
            await refuse(send, ProblemType.NOT_FOUND, f"{method} {_CALLS}{name[:200]} is not known")

    async def _letters(self, method: str, name: str, receive: Receive, send: Send) -> None:
        letters = self._service.dead_letters
        if (method, name) == ("POST", "select"):
            selection = LetterSelection.model_validate_json(await _body(receive))
            found = await letters.select(selection)
            await self._stream(found, lambda letter: letter.model_dump_json().encode(), receive, send)
        elif method == "POST" and name in ("replay", "drop"):
            action = LetterAction.model_validate_json(await _body(receive))
            act = letters.replay if name == "replay" else letters.drop
            await answer(send, 200, _JSON, _OUTCOMES.dump_json(await act(action.ids, dry_run=action.dry_run)))
        elif method == "GET":
            letter = await letters.get(name) if re.fullmatch(rf"[0-9a-f]{{{ID_DIGITS}}}", name) else None
            await answer(send, 200, _JSON, b"null" if letter is None else letter.model_dump_json().encode())
        else:
            await refuse(send, ProblemType.NOT_FOUND, f"{method} {_LETTERS}{name[:200]} is not known")

    async def _beat(self, send: Send) -> None:
        """Blank lines, by which each side notices that the other is gone."""
        while True:
            await send({"type": "http.response.body", "body": b"\n", "more_body": True})
            await self._clock.sleep(_HEARTBEAT_SECONDS)


def _marked(stored: Stored) -> WireEvent:
    """The event; one that is delivered again says so, to those who look on alone."""
    event = stored.event
    if names.addressee(stored.key) is None:
        return event
    return WireEvent({**event.attributes, REPLAYED: "true"}, event.data)


async def _forward(items: AsyncIterator[T], line: Callable[[T], bytes], send: Send) -> None:
    async for item in items:
        await send({"type": "http.response.body", "body": line(item) + b"\n", "more_body": True})
    await send({"type": "http.response.body", "body": END + b"\n", "more_body": True})


async def _body(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] == "http.disconnect" or len(body) > _MAX_CONTROL_BYTES:
            raise EventLogError("the request did not come whole")
        if not message.get("more_body", False):
            return body


async def _unknown(scope: Scope, send: Send) -> None:
    await refuse(send, ProblemType.NOT_FOUND, f"{scope['method']} {scope['path'][:200]} is not known")


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
