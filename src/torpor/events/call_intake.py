"""Takes calls in that nobody waits for: what is refused at once, and what is durable before its caller hears.

What a function declares of its requests (that it exists, its methods, the size of a body) holds here, so that
a caller hears of it while it is there.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torpor.errors import BlobError, EventLogError, RecordTooLargeError
from torpor.events import calls, names
from torpor.events.callback_urls import problem_of
from torpor.events.calls import Call, Target
from torpor.events.intake import store_in
from torpor.events.log import Record, oldest
from torpor.events.records import taken_in
from torpor.events.refusals import RefusedError
from torpor.problems import ProblemType, there_are

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torpor.binding import Headers
    from torpor.events.call_workers import CallWorkers
    from torpor.events.callback_urls import Networks
    from torpor.events.claims import Claims
    from torpor.events.declared import Callee
    from torpor.events.log import EventLog
    from torpor.events.recorder import Recorder
    from torpor.events.stats import Stats
    from torpor.serving import Scope

_LOG = logging.getLogger("torpor.events")
_MAX_HEADER_BYTES = 32 * 1024
_MAX_ONCE_BYTES = 255


@dataclass(frozen=True, slots=True)
class Expected:
    """A request that is a call, as far as its head says; its body has ``body_bytes`` at most."""

    method: str
    target: Target
    headers: Headers
    callback: str
    mark: str
    once: bool
    """Whether the mark is the caller's own, who may make the same call again."""
    body_bytes: int


class CallIntake:
    """Takes calls in for ``workers``."""

    def __init__(
        self,
        log: EventLog,
        workers: CallWorkers,
        claims: Claims,
        stats: Stats,
        recorder: Recorder,
        refused: Networks,
    ) -> None:
        self._log = log
        self._workers = workers
        self._claims = claims
        self._stats = stats
        self._recorder = recorder
        self._refused = refused
        self._callees: Mapping[str, Callee] = {}

    def set_callees(self, callees: Mapping[str, Callee]) -> None:
        """Which functions there are, by key; calls of others get 404."""
        self._callees = callees

    def expect(self, scope: Scope) -> Expected:
        """What the request is, by its head. Raises :class:`RefusedError`."""
        target = calls.target_of(scope["raw_path"], scope["query_string"])
        callee = self._callees.get(target.function_key) if target is not None else None
        if target is None or callee is None:
            known = there_are(self._callees)
            written = scope["path"].removeprefix(f"{calls.ROUTE}/").partition("/")[0]
            called = target.function_key if target is not None else written
            raise RefusedError(
                ProblemType.UNKNOWN_FUNCTION, f"there is no function {called[:200]!r}; there are: {known}"
            )
        method, headers = scope["method"], scope["headers"]
        allowed = [each for each in calls.METHODS if not callee.methods or each in callee.methods]
        if method not in allowed:
            detail = f"without waiting, {target.function_key} takes {', '.join(allowed) or 'no method'}"
            raise RefusedError(ProblemType.METHOD_NOT_ALLOWED, detail, allow=", ".join(allowed))
        size = sum(len(name) + len(value) for name, value in headers)
        if size > _MAX_HEADER_BYTES:
            detail = f"the headers have {size} bytes, at most {_MAX_HEADER_BYTES} were expected"
            raise RefusedError(ProblemType.HEADERS_TOO_LARGE, detail)
        return Expected(
            method,
            target,
            calls.passed_on(headers, target.called),
            self._callback(headers),
            *_mark(headers),
            callee.max_body_bytes,
        )

    def _callback(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        given = _one(headers, calls.CALLBACK_HEADER).decode("latin-1")
        problem = problem_of(given, self._refused) if given else None
        if problem is not None:
            raise RefusedError(ProblemType.MALFORMED_REQUEST, f"the header X-Callback-Url {problem}")
        return given

    async def accept(self, expected: Expected, body: bytes) -> str:
        """Make the call durable and return its id. Raises :class:`RefusedError`."""
        function_key, recorder = expected.target.function_key, self._recorder
        call = Call(
            calls.call_id(function_key, expected.mark),
            expected.method,
            expected.target.target,
            expected.headers,
            recorder.now(),
            expected.callback,
        )
        try:
            if expected.once and await oldest(self._log, names.OUTCOMES, call.id) is not None:
                return call.id  # it was made, and what came of it is kept
            event = await self._claims.check_in(call.event(body))
            async with self._workers.taking(function_key):
                record = Record(call.id, call.id, event, calls.OUTCOME_BYTES)
                new = await store_in(self._log, names.CALLS, [record])
        except RecordTooLargeError as error:
            raise RefusedError(ProblemType.TOO_LARGE, str(error)) from error
        except (EventLogError, BlobError) as error:
            _LOG.warning("a call could not be stored", extra={"function": function_key, "error": str(error)})
            raise RefusedError(
                ProblemType.UNAVAILABLE, "the call could not be stored; make it again"
            ) from error
        self._stats.of_function(function_key).accepted += sum(new)
        lines = taken_in([event], new, at=call.accepted_at, by=recorder.name, how="call")
        recorder.add(names.CALLS, lines)
        await recorder.flush(names.CALLS)
        return call.id


def _mark(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, bool]:
    """What tells the call from others of the function, and whether it is by the caller's own key."""
    once = _one(headers, calls.ONCE_HEADER)
    if len(once) > _MAX_ONCE_BYTES:
        detail = f"the header Idempotency-Key has {len(once)} bytes, at most {_MAX_ONCE_BYTES} were expected"
        raise RefusedError(ProblemType.MALFORMED_REQUEST, detail)
    return (calls.mark_of(once), True) if once else (uuid.uuid4().hex, False)


def _one(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes:
    found = [value.strip() for name, value in headers if name == wanted]
    if len(found) > 1:
        detail = f"the header {wanted.decode()} is there {len(found)} times, once was expected"
        raise RefusedError(ProblemType.MALFORMED_REQUEST, detail)
    return found[0] if found else b""
