"""Calls that nobody waits for: what a request for one means, and how a call and its outcome are kept. Pure.

A call is a record of the stream ``calls`` until it is done; its outcome is one of the stream ``outcomes``.
The key of both is the call's id, ``<namespace>.<name>.<mark>``, so that each function's calls can be read
apart from others', and a call is found by its id alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from torpor.binding import WireEvent
from torpor.transport.message import HOP_BY_HOP

if TYPE_CHECKING:
    from torpor.binding import Headers

ROUTE = "/async-function"
METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
"""What can be done without anybody waiting; the function's own list may be shorter."""
CALLBACK_HEADER = b"x-callback-url"
CALL_ID_HEADER = b"x-call-id"
NO_CALLBACKS = "A callback leads here, and the platform itself takes none."
"""What its own APIs say to a request with :data:`CALL_ID_HEADER`, which every callback has."""
ONCE_HEADER = b"idempotency-key"
CALL_TYPE = "dev.torpor.call"
_OUTCOME_TYPE = "dev.torpor.call.outcome"
_CALL_ID = re.compile(r"[a-z0-9-]{1,63}\.[a-z0-9-]{1,63}\.[0-9a-f]{32}\Z")
_NAME = re.compile(rb"([a-z0-9-]{1,63})(?:\.([a-z0-9-]{1,63}))?\Z")
_ENVOYS_OWN = b"x-envoy-"
_NOT_PASSED_ON = HOP_BY_HOP | {
    b"content-length",
    b"expect",
    CALLBACK_HEADER,
    CALL_ID_HEADER,
    b"x-forwarded-prefix",
}
_KEPT_HEADERS = frozenset(
    (
        b"content-disposition",
        b"content-encoding",
        b"content-language",
        b"content-type",
        b"etag",
        b"last-modified",
        b"location",
    )
)
_MAX_KEPT_HEADER_BYTES = 1024
OUTCOME_BYTES = 1024
"""What an outcome tells at least beside what its call tells, as headers have it."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a request names: the function, and what it is to be called with."""

    function_key: str
    called: str
    """The function's name as the caller wrote it."""
    target: str
    """Path and query below the function."""


def target_of(raw_path: bytes, query: bytes) -> Target | None:
    """What a path below :data:`ROUTE` names; ``None`` where that can be no function."""
    name, slash, rest = raw_path.removeprefix(f"{ROUTE}/".encode()).partition(b"/")
    match = _NAME.match(name)
    if match is None:
        return None
    namespace = (match[2] or b"default").decode()
    target = (slash + rest or b"/") + (b"?" + query if query else b"")
    return Target(f"{namespace}/{match[1].decode()}", name.decode(), target.decode("latin-1"))


def call_id(function_key: str, mark: str) -> str:
    """The id of a call; ``mark`` is of 32 hexadecimal digits."""
    return f"{function_key.replace('/', '.')}.{mark}"


def mark_of(key: bytes) -> str:
    """The mark that a caller's own key gives, so that the same key is the same call."""
    return hashlib.sha256(key).hexdigest()[:32]


def is_call_id(text: str) -> bool:
    """Whether ``text`` could be a call's id."""
    return _CALL_ID.match(text) is not None


def function_of(an_id: str) -> str:
    """The key of the function that a call is for."""
    namespace, name, _ = an_id.split(".")
    return f"{namespace}/{name}"


def time_of(seconds: float) -> datetime:
    """A time as documents have it; ``seconds`` are since the epoch."""
    return datetime.fromtimestamp(seconds, UTC)


def told(call: Call) -> dict[str, Any]:
    """What documents tell of a call, however far it is."""
    return {
        "id": call.id,
        "function": call.function_key,
        "method": call.method,
        "path": call.target,
        "accepted_at": time_of(call.accepted_at),
    }


def passed_on(headers: Headers, called: str) -> Headers:
    """What the function gets of a request's headers, and under which path it is called by those who wait."""
    named = {
        name.strip().lower() for key, value in headers if key == b"connection" for name in value.split(b",")
    }
    kept = [
        (name, value)
        for name, value in headers
        if name not in _NOT_PASSED_ON and name not in named and not name.startswith((b"torpor-", _ENVOYS_OWN))
    ]
    return [*kept, (b"x-forwarded-prefix", f"/function/{called}".encode())]


def kept_headers(headers: Headers) -> Headers:
    """What is kept of an answer's headers: of two of a name the first."""
    kept: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _KEPT_HEADERS and len(value) <= _MAX_KEPT_HEADER_BYTES:
            kept.setdefault(name, value)
    return list(kept.items())


@dataclass(frozen=True, slots=True)
class Call:
    """A request that was accepted, but for its body. ``callback`` is empty where none was asked for."""

    id: str
    method: str
    target: str
    headers: Headers
    accepted_at: float
    callback: str = ""

    @property
    def function_key(self) -> str:
        """The function that is to be called."""
        return function_of(self.id)

    def event(self, body: bytes) -> WireEvent:
        """The call as it is kept."""
        return WireEvent({**_attributes(CALL_TYPE, self), "headers": _text(self.headers)}, body)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of ``call``, but for the answer's body. ``status`` is ``None`` where no answer came."""

    call: Call
    succeeded: bool
    attempts: int
    finished_at: float
    duration_seconds: float
    status: int | None = None
    headers: Headers | None = None
    reason: str = ""
    size_bytes: int = 0
    truncated: bool = False

    def event(self, body: bytes) -> WireEvent:
        """The outcome as it is kept."""
        attributes = {
            **_attributes(_OUTCOME_TYPE, self.call),
            "succeeded": str(int(self.succeeded)),
            "attempts": str(self.attempts),
            "finished": repr(self.finished_at),
            "duration": repr(self.duration_seconds),
            "status": "" if self.status is None else str(self.status),
            "headers": _text(self.headers or []),
            "reason": self.reason,
            "size": str(self.size_bytes),
            "truncated": str(int(self.truncated)),
        }
        return WireEvent(attributes, body)


def call_of(event: WireEvent) -> Call:
    """The contrary of :meth:`Call.event`; of an outcome, the call without its headers."""
    given = event.attributes
    return Call(
        id=event.id,
        method=given["method"],
        target=given["target"],
        headers=_headers(given["headers"]) if event.type == CALL_TYPE else [],
        accepted_at=float(given["accepted"]),
        callback=given.get("callback", ""),
    )


def outcome_of(event: WireEvent) -> Outcome:
    """The contrary of :meth:`Outcome.event`."""
    given = event.attributes
    return Outcome(
        call=call_of(event),
        succeeded=given["succeeded"] == "1",
        attempts=int(given["attempts"]),
        finished_at=float(given["finished"]),
        duration_seconds=float(given["duration"]),
        status=int(given["status"]) if given.get("status") else None,
        headers=_headers(given["headers"]),
        reason=given.get("reason", ""),
        size_bytes=int(given["size"]),
        truncated=given["truncated"] == "1",
    )


def callback_headers(outcome: Outcome) -> Headers:
    """What a callback says beside the body: the contract of OpenFaaS.

    Where no answer came, its status is 504.
    """
    namespace, name = outcome.call.function_key.split("/")
    shown = name if namespace == "default" else f"{name}.{namespace}"
    of_body = [pair for pair in outcome.headers or [] if pair[0].startswith(b"content-")]
    return [
        *of_body,
        (CALL_ID_HEADER, outcome.call.id.encode()),
        (b"x-function-name", shown.encode()),
        (b"x-function-status", b"%d" % (outcome.status or 504)),
        (b"x-duration-seconds", b"%.6f" % outcome.duration_seconds),
    ]


def _attributes(event_type: str, call: Call) -> dict[str, str]:
    namespace, name = call.function_key.split("/")
    attributes = {
        "specversion": "1.0",
        "id": call.id,
        "source": f"{ROUTE}/{name}.{namespace}",
        "type": event_type,
        "datacontenttype": "application/octet-stream",
        "method": call.method,
        "target": call.target,
        "accepted": repr(call.accepted_at),
    }
    return {**attributes, "callback": call.callback} if call.callback else attributes


def _text(headers: Headers) -> str:
    """Headers as text in ASCII, whatever bytes they have."""
    return json.dumps([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])


def _headers(text: str) -> Headers:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in json.loads(text)]
