"""The client that the command line, and anyone else in Python, asks a running platform with.

Answers are read into the models that the API writes. What goes wrong is raised as one of two errors, each
with words that a person can act on: :class:`~torpor.errors.UnreachableError` and
:class:`~torpor.errors.RefusedError`.
"""

from __future__ import annotations

import contextlib
from typing import IO, TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote, urlencode

import httpx
import orjson
from pydantic import BaseModel, ValidationError

from torpor.api.documents import (
    BrokerList,
    FunctionList,
    Health,
    LetterOutcomes,
    ScheduleList,
    StoredBlob,
    TriggerList,
)
from torpor.api.places import Place, find
from torpor.binding import BATCH, STRUCTURED, WireEvent, decode_structured, encode_batch, encode_structured
from torpor.errors import ApiError, MalformedEventError, RefusedError, UnreachableError
from torpor.settings import PlatformSettings
from torpor.spec.calls import CallPage, CallSelection, CallStatus, CallSummary
from torpor.spec.history import Answer
from torpor.spec.letters import DeadLetter, LetterOutcome, LetterSelection
from torpor.spec.replays import Replay, ReplayPage
from torpor.spec.status import (
    BrokerStatus,
    FunctionStatus,
    LogLine,
    PlatformStatus,
    ScheduleStatus,
    TriggerStatus,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
# A quiet stream has an empty line every fifteen seconds.
_LONG_TIMEOUT = httpx.Timeout(150.0, connect=5.0)
_STREAM_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
# As long as the longest `timeoutSeconds` of a function, and the time it may be held before.
_INVOKE_TIMEOUT = httpx.Timeout(3720.0, connect=5.0)
_MAX_LINE_BYTES = 64 * 1024 * 1024
M = TypeVar("M", bound=BaseModel)


class Client:
    """A connection to the platform that a context names. Close it, or use it in a ``with`` block.

    Raises what :func:`~torpor.api.places.find` raises; as that, it is not to be made on a running loop.
    """

    def __init__(
        self, context: str | Place = "local", *, transport: httpx.BaseTransport | None = None
    ) -> None:
        if isinstance(context, str):
            context = find(context, PlatformSettings.from_environment().kubeconfig)
        self.place = place = context
        options = {**place.options, "headers": {"user-agent": "torpor"} | place.options.get("headers", {})}
        self._http = httpx.Client(timeout=_TIMEOUT, transport=transport, **options)
        self._extensions = {"sni_hostname": place.server_name} if place.server_name else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    # --- reads ----------------------------------------------------------------------------------------------

    def functions(self) -> list[FunctionStatus]:
        """Every declared function."""
        return self._read("/api/v1/functions", FunctionList).items

    def function(self, name: str, namespace: str = "default") -> FunctionStatus:
        """One function."""
        return self._read(f"/api/v1/functions/{_path(namespace, name)}", FunctionStatus)

    def triggers(self) -> list[TriggerStatus]:
        """Every declared trigger."""
        return self._read("/api/v1/triggers", TriggerList).items

    def schedules(self) -> list[ScheduleStatus]:
        """Every declared schedule."""
        return self._read("/api/v1/schedules", ScheduleList).items

    def brokers(self) -> list[BrokerStatus]:
        """Every broker."""
        return self._read("/api/v1/brokers", BrokerList).items

    def status(self) -> PlatformStatus:
        """The platform itself."""
        return self._read("/api/v1/status", PlatformStatus)

    def health(self) -> Health:
        """Whether the platform's parts are well."""
        return self._read("/api/v1/health", Health)

    # --- streams --------------------------------------------------------------------------------------------

    def logs(
        self, name: str, namespace: str = "default", *, tail: int = 100, follow: bool = False
    ) -> Iterator[LogLine]:
        """The last ``tail`` lines of a function's instances, then, with ``follow``, each new one."""
        path = f"/api/v1/functions/{_path(namespace, name)}/logs"
        with self._stream(path, {"tail": tail, "follow": follow}) as lines:
            for line in lines:
                yield _parse(LogLine, line)

    @contextlib.contextmanager
    def tail(
        self, broker: str = "default", namespace: str = "default", *, filters: Sequence[str] = ()
    ) -> Iterator[Iterator[WireEvent]]:
        """A block in which each event that the broker takes in can be iterated, from the block's start on.

        ``filters`` narrow them, such as ``type=image.*``; all must match.
        """
        with self._stream(
            f"/api/v1/brokers/{_path(namespace, broker)}/tail", {"filter": list(filters)}
        ) as lines:
            yield map(_event, lines)

    def dead_letters(self, selection: LetterSelection | None = None) -> Iterator[DeadLetter]:
        """The dead letters of ``selection`` (default: all), broker by broker, the oldest first."""
        chosen = (selection or LetterSelection()).model_dump(mode="json", exclude_defaults=True)
        with self._stream("/api/v1/dead-letters", chosen) as lines:
            for line in lines:
                yield _parse(DeadLetter, line)

    def dead_letter(self, letter_id: str) -> DeadLetter:
        """One dead letter, with its event."""
        return self._read(f"/api/v1/dead-letters/{_path(letter_id)}", DeadLetter)

    def explain(self, event_id: str, source: str | None = None, broker: str | None = None) -> Answer:
        """What happened to the events of ``event_id``; ``broker`` is ``namespace/name``."""
        given = {"id": event_id, "source": source, "broker": broker}
        query = urlencode({name: value for name, value in given.items() if value is not None})
        return self._read(f"/api/v1/explanation?{query}", Answer, _LONG_TIMEOUT)

    def call(self, call_id: str) -> CallStatus:
        """How far a call is that nobody waits for, and what came of it."""
        return self._read(f"/api/v1/calls/{_path(call_id)}", CallStatus)

    def calls(self, selection: CallSelection | None = None) -> Iterator[CallSummary]:
        """The calls of ``selection`` (default: all), the newest first; page by page, as they are wanted."""
        chosen: CallSelection | None = selection or CallSelection()
        while chosen is not None:
            query = urlencode(chosen.model_dump(mode="json", exclude_defaults=True), doseq=True)
            page = self._read(f"/api/v1/calls?{query}", CallPage, _LONG_TIMEOUT)
            yield from page.items
            chosen = chosen.model_copy(update={"after": page.next}) if page.next is not None else None

    # --- writes ---------------------------------------------------------------------------------------------

    def send(self, events: Sequence[WireEvent], broker: str = "default", namespace: str = "default") -> None:
        """Publish ``events``, all or none; returns when they are durable."""
        single = len(events) == 1
        body = encode_structured(events[0]) if single else encode_batch(events)
        headers = {"content-type": (STRUCTURED if single else BATCH).decode()}
        self._send("POST", f"{self.place.gateway}/events/{_path(namespace, broker)}", body, headers)

    def replay(self, letter_ids: Sequence[str], *, dry_run: bool = False) -> list[LetterOutcome]:
        """Deliver dead letters again, each to the trigger that had failed with it."""
        return self._act("replay", letter_ids, dry_run=dry_run)

    def drop(self, letter_ids: Sequence[str], *, dry_run: bool = False) -> list[LetterOutcome]:
        """Remove dead letters for good."""
        return self._act("drop", letter_ids, dry_run=dry_run)

    def replay_events(
        self, replay: Replay, broker: str = "default", namespace: str = "default"
    ) -> ReplayPage:
        """Deliver a page of the events again that a broker still has."""
        response = self._send(
            "POST",
            f"{self.place.api}/api/v1/brokers/{_path(namespace, broker)}/replay",
            replay.model_dump_json(exclude_none=True).encode(),
            {"content-type": "application/json"},
            _LONG_TIMEOUT,
        )
        return _parse(ReplayPage, response.content)

    def _act(self, name: str, letter_ids: Sequence[str], *, dry_run: bool) -> list[LetterOutcome]:
        body = orjson.dumps({"ids": list(letter_ids), "dryRun": dry_run})
        response = self._send(
            "POST", f"{self.place.api}/api/v1/dead-letters:{name}", body, {"content-type": "application/json"}
        )
        return _parse(LetterOutcomes, response.content).items

    def put_blob(
        self, content: bytes | IO[bytes] | Iterable[bytes], content_type: str | None = None
    ) -> StoredBlob:
        """Store a blob; what is returned has the reference that an event carries as its ``dataref``."""
        headers = {"content-type": content_type} if content_type else {}
        response = self._send("PUT", f"{self.place.api}/api/v1/blobs", content, headers)
        return _parse(StoredBlob, response.content)

    def get_blob(self, name: str) -> bytes:
        """The bytes of a blob."""
        return self._send("GET", f"{self.place.api}/api/v1/blobs/{_path(name)}").content

    @contextlib.contextmanager
    def invoke(
        self,
        name: str,
        namespace: str = "default",
        *,
        method: str = "GET",
        path: str = "/",
        headers: Sequence[tuple[str, str]] = (),
        content: bytes | IO[bytes] | Iterable[bytes] | None = None,
        waits: bool = True,
    ) -> Iterator[httpx.Response]:
        """Call a function through the gateway; the response's body is still to be read, within the block.

        Who does not wait has 202 once the call is durable; :meth:`call` tells what becomes of it.

        Every status is a response here, not an error, but one of the API server before the gateway.
        """
        route = "function" if waits else "async-function"
        target = f"{self.place.gateway}/{route}/{_path(f'{name}.{namespace}')}/{path.removeprefix('/')}"
        sent = [(header.encode("ascii"), value.encode()) for header, value in headers]
        with (
            _mapped(self.place),
            self._http.stream(
                method,
                target,
                headers=sent,
                content=content,
                timeout=_INVOKE_TIMEOUT,
                extensions=self._extensions,
            ) as response,
        ):
            if (
                response.is_error
                and self.place.cluster is not None
                and "x-request-id" not in response.headers
            ):
                response.read()
                if (refusal := self.place.refusal(response)) is not None:
                    raise refusal
            yield response

    # --- within ---------------------------------------------------------------------------------------------

    def _read(self, path: str, model: type[M], timeout: httpx.Timeout = _TIMEOUT) -> M:
        return _parse(model, self._send("GET", f"{self.place.api}{path}", timeout=timeout).content)

    def _send(
        self,
        method: str,
        url: str,
        content: bytes | IO[bytes] | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: httpx.Timeout = _TIMEOUT,
    ) -> httpx.Response:
        with _mapped(self.place):
            response = self._http.request(
                method,
                url,
                content=content,
                headers=headers,
                timeout=timeout,
                extensions=self._extensions,
            )
        self._check(response)
        return response

    def _check(self, response: httpx.Response) -> None:
        if not response.is_success:
            refusal = self.place.refusal(response)
            raise refusal or refused(response.status_code, response.headers, response.content)

    @contextlib.contextmanager
    def _stream(self, path: str, query: Mapping[str, Any]) -> Iterator[Iterator[bytes]]:
        with (
            _mapped(self.place),
            self._http.stream(
                "GET",
                f"{self.place.api}{path}",
                params=query,
                timeout=_STREAM_TIMEOUT,
                extensions=self._extensions,
            ) as response,
        ):
            if response.is_error:
                response.read()
            self._check(response)
            with _broken_off(self.place):
                yield _lines(response.iter_bytes())


def _path(*segments: str) -> str:
    return "/".join(quote(segment, safe="") for segment in segments)


@contextlib.contextmanager
def _mapped(place: Place) -> Iterator[None]:
    try:
        yield
    except httpx.ConnectError as error:
        raise place.unreachable(error) from error
    except httpx.TimeoutException as error:
        raise UnreachableError(f"the platform at {place.name} did not answer in time") from error
    except httpx.InvalidURL as error:
        raise ApiError(f"so much can't be asked for at once: {error}") from error
    except httpx.NetworkError as error:
        raise UnreachableError(_ended(place)) from error
    except httpx.TransportError as error:  # it may be no HTTP at all: the library knows best
        raise UnreachableError(f"{_ended(place)}: {error}") from error


@contextlib.contextmanager
def _broken_off(place: Place) -> Iterator[None]:
    """A block that reads an answer which has begun: the library's words for its end are no help."""
    try:
        yield
    except httpx.RemoteProtocolError as error:
        raise UnreachableError(_ended(place)) from error


def _ended(place: Place) -> str:
    return f"the platform at {place.name} ended the connection"


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    # Not httpx's own: that ends lines at U+2028 and the like too, which JSON leaves as they are.
    unfinished = b""
    for chunk in chunks:
        *lines, unfinished = (unfinished + chunk).split(b"\n")
        yield from filter(None, lines)
        if len(unfinished) > _MAX_LINE_BYTES:
            raise ApiError(f"a line of the answer is longer than {_MAX_LINE_BYTES} bytes")


def refused(status: int, headers: httpx.Headers, body: bytes) -> RefusedError:
    """The error that an answer of ``status`` stands for: what its problem says, or what is known."""
    document: object = None
    if headers.get("content-type", "").startswith("application/problem+json"):
        with contextlib.suppress(orjson.JSONDecodeError):
            document = orjson.loads(body)
    request_id = headers.get("x-request-id")
    if not isinstance(document, dict):
        return RefusedError(status, f"HTTP status {status} without a problem document", "", "", request_id)
    return RefusedError(
        status,
        str(document.get("title", f"HTTP status {status}")),
        str(document.get("detail", "")),
        str(document.get("type", "")),
        str(document.get("requestId") or request_id or "") or None,
    )


def _parse(model: type[M], text: str | bytes) -> M:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise ApiError(f"the answer is not what this version of torpor reads: {error}") from error


def _event(line: bytes) -> WireEvent:
    try:
        return decode_structured(line)
    except MalformedEventError as error:
        raise ApiError(f"the answer is not what this version of torpor reads: {error}") from error
