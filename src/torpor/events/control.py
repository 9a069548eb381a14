"""The platform's side of the control API of an events process, or of an events pod."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import httpx
import orjson
from pydantic import TypeAdapter, ValidationError

from torpor.binding import WireEvent, decode_structured
from torpor.endpoint import Endpoint
from torpor.errors import EventLogError, MalformedEventError
from torpor.events.control_app import END
from torpor.events.declaration import Declaration, EventsHealth, EventsState
from torpor.problems import detail_of
from torpor.scaling.backlog import Backlog, decode
from torpor.spec.calls import CallPage, CallQuestion, CallStatus
from torpor.spec.history import Answer, Question
from torpor.spec.letters import DeadLetter, LetterAction, LetterOutcome, LetterSelection
from torpor.spec.replays import Replay, ReplayPage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
    from pathlib import Path

_TIMEOUT_SECONDS = 5.0
_DECLARE_SECONDS = 60.0
_TAIL_SILENCE_SECONDS = 40.0  # the process sends something every 15 s
_ACTION_SECONDS = 60.0
_EXPLAIN_SECONDS = 120.0
_BASE = "http://events"
_LETTER = TypeAdapter(DeadLetter | None)
_IDS = TypeAdapter(list[str])
_CALL = TypeAdapter(CallStatus | None)
_OUTCOMES = TypeAdapter(list[LetterOutcome])
T = TypeVar("T")


class ControlClient:
    """Talks to the events process through its unix socket, or to an events pod at its address.

    Every call raises :class:`~torpor.errors.EventLogError` when the process does not answer, or answers that
    it can't; while the process is started again, calls wait for it as long as their time allows.
    """

    def __init__(self, where: Path | Endpoint) -> None:
        self._client = httpx.AsyncClient(
            transport=(
                httpx.AsyncHTTPTransport(verify=False)  # it is plain HTTP, and reading authorities takes long
                if isinstance(where, Endpoint)
                else httpx.AsyncHTTPTransport(uds=str(where))
            ),
            base_url=f"http://{where}" if isinstance(where, Endpoint) else _BASE,
            timeout=_TIMEOUT_SECONDS,
        )

    async def declare(self, declaration: Declaration) -> None:
        """Have everything brought to what is declared; when this returns, events reach every trigger."""
        body = declaration.model_dump_json(exclude_none=True)
        await self._call("PUT", "/declared", content=body, timeout_seconds=_DECLARE_SECONDS)

    async def state(self) -> EventsState:
        """All counters."""
        return EventsState.model_validate_json(await self._call("GET", "/state"))

    async def backlogs(self, wanted: Mapping[str, bool]) -> dict[str, Backlog]:
        """What waits at triggers and in functions' calls, by the keys of these queues.

        ``wanted`` says of which, and whether by age too.
        """
        body = await self._call("POST", "/backlogs", content=orjson.dumps(wanted).decode())
        try:
            return decode(body)
        except ValueError as error:
            raise EventLogError(f"the events process does not tell what waits: {error}") from error

    async def health(self) -> EventsHealth:
        """How the process is."""
        return EventsHealth.model_validate_json(await self._call("GET", "/health"))

    async def metrics(self) -> str:
        """The counters for Prometheus."""
        return (await self._call("GET", "/metrics")).decode()

    async def tail(self, broker_key: str) -> AsyncGenerator[WireEvent, None]:
        """Each event that the broker takes in from the return of this call on.

        The iterator raises :class:`~torpor.errors.EventLogError` when the process ends.
        """
        stack, lines = await self._stream("GET", f"/tail/{broker_key}")
        return _read(stack, lines, decode_structured)

    async def dead_letters(self, selection: LetterSelection) -> AsyncGenerator[DeadLetter, None]:
        """The dead letters of ``selection``, broker by broker, the oldest first.

        The iterator raises :class:`~torpor.errors.EventLogError` when they can't be told to the end.
        """
        stack, lines = await self._stream(
            "POST", "/dead-letters/select", selection.model_dump_json(exclude_none=True)
        )
        return _read(stack, lines, DeadLetter.model_validate_json)

    async def dead_letter(self, letter_id: str) -> DeadLetter | None:
        """One dead letter with all there is to say of it, if it is there."""
        return _LETTER.validate_json(await self._call("GET", f"/dead-letters/{quote(letter_id, safe='')}"))

    async def replay(self, action: LetterAction) -> list[LetterOutcome]:
        """Have dead letters delivered again, each to the trigger that had failed with it."""
        return await self._act("replay", action)

    async def drop(self, action: LetterAction) -> list[LetterOutcome]:
        """Remove dead letters for good."""
        return await self._act("drop", action)

    async def replay_events(self, broker_key: str, replay: Replay) -> ReplayPage:
        """Have a page of a broker's events delivered again."""
        body = await self._call(
            "POST",
            f"/replay/{broker_key}",
            content=replay.model_dump_json(exclude_none=True),
            timeout_seconds=_ACTION_SECONDS,
        )
        return ReplayPage.model_validate_json(body)

    async def explain(self, question: Question) -> Answer:
        """What happened to the events of an id."""
        body = await self._call(
            "POST", "/explain", content=question.model_dump_json(), timeout_seconds=_EXPLAIN_SECONDS
        )
        return Answer.model_validate_json(body)

    async def call(self, call_id: str) -> CallStatus | None:
        """How far a call is that nobody waits for, if it is known."""
        return _CALL.validate_json(await self._call("GET", f"/calls/{quote(call_id, safe='')}"))

    async def calls(self, question: CallQuestion) -> CallPage:
        """A page of the calls that are known, the newest first."""
        body = await self._call(
            "POST",
            "/calls/select",
            content=question.model_dump_json(exclude_none=True),
            timeout_seconds=_ACTION_SECONDS,
        )
        return CallPage.model_validate_json(body)

    async def running_calls(self) -> list[str]:
        """The ids of the calls that the process is making."""
        return _IDS.validate_json(await self._call("GET", "/calls/running"))

    async def _act(self, name: str, action: LetterAction) -> list[LetterOutcome]:
        body = await self._call(
            "POST",
            f"/dead-letters/{name}",
            content=action.model_dump_json(),
            timeout_seconds=_ACTION_SECONDS,
        )
        return _OUTCOMES.validate_json(body)

    async def _stream(
        self, method: str, path: str, content: str = ""
    ) -> tuple[contextlib.AsyncExitStack, AsyncIterator[bytes]]:
        """The lines of an answer, and what closes it."""
        stack = contextlib.AsyncExitStack()
        timeout = httpx.Timeout(_TIMEOUT_SECONDS, read=_TAIL_SILENCE_SECONDS)
        try:
            response = await stack.enter_async_context(
                self._client.stream(method, path, content=content, timeout=timeout)
            )
            if response.status_code != 200:
                await response.aread()
        except httpx.HTTPError as error:
            await stack.aclose()
            raise EventLogError(f"the events process does not answer: {_text(error)}") from error
        except BaseException:
            await stack.aclose()
            raise
        if response.status_code != 200:
            await stack.aclose()
            raise EventLogError(_detail(response))
        return stack, _lines(response.aiter_bytes())

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _call(
        self, method: str, path: str, *, content: str = "", timeout_seconds: float = _TIMEOUT_SECONDS
    ) -> bytes:
        try:
            response = await self._client.request(method, path, content=content, timeout=timeout_seconds)
        except httpx.HTTPError as error:
            raise EventLogError(f"the events process does not answer: {_text(error)}") from error
        if not response.is_success:
            raise EventLogError(_detail(response))
        return response.content


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    # Not httpx's own: that ends lines at U+2028 and the like too, which JSON leaves as they are.
    unfinished = b""
    async for chunk in chunks:
        *lines, unfinished = (unfinished + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line


async def _read(
    stack: contextlib.AsyncExitStack, lines: AsyncIterator[bytes], parse: Callable[[bytes], T]
) -> AsyncGenerator[T, None]:
    """What the lines hold, until the one that says that there are no more."""
    async with stack:
        try:
            async for line in lines:
                if line == END:
                    return
                yield parse(line)
        except (httpx.HTTPError, MalformedEventError, ValidationError) as error:
            raise EventLogError(f"the events process went away: {_text(error)}") from error
        raise EventLogError("the events process has ended")


def _detail(response: httpx.Response) -> str:
    body, status = response.content, response.status_code
    content_type = response.headers.get("content-type", "").encode()
    said = detail_of(content_type, body) or body[:500].decode(errors="replace")
    return said if status == 503 else f"the events process answered {status}: {said}"


def _text(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "nothing came in time"
    return str(error) or type(error).__name__
