"""Tells how far a call is, and what came of it: from the log, so that it is the same after any restart."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from torpor.events import names
from torpor.events.call_worker import CALLBACK
from torpor.events.callback_urls import shown
from torpor.events.calls import Call, Outcome, call_of, is_call_id, outcome_of, time_of, told
from torpor.events.log import oldest
from torpor.events.records import MANY, TRY, key_of_one, matching, needle
from torpor.spec.calls import CallbackStatus, CallResult, CallStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.binding import WireEvent
    from torpor.events.log import EventLog
    from torpor.events.timeline import Record

_EARLIER_SECONDS = 5.0
_STATES = {"delivered": "delivered", "given up": "failed", "retried": "waiting"}


class CallReader:
    """Reads calls; ``is_running`` tells whether this process is making one."""

    def __init__(self, log: EventLog, is_running: Callable[[str], bool]) -> None:
        self._log = log
        self._is_running = is_running

    async def status(self, call_id: str) -> CallStatus | None:
        """The call of this id, while it is known. Raises :class:`~torpor.errors.EventLogError`."""
        if not is_call_id(call_id):
            return None
        # The outcome comes second: a call is there until long after its outcome is.
        accepted = await oldest(self._log, names.CALLS, call_id)
        done = await oldest(self._log, names.OUTCOMES, call_id)
        if done is not None:
            return await self._finished(done.event)
        return await self._waiting(accepted.event) if accepted is not None else None

    async def _waiting(self, event: WireEvent) -> CallStatus:
        call = call_of(event)
        last = await self._last_try(call, call.function_key, call.accepted_at)
        running = self._is_running(call.id)
        attempts = last["n"] if last is not None else 0
        return CallStatus(
            **told(call),
            state="running" if running else "accepted",
            attempts=attempts + running,
            reason=last.get("why", "") if last is not None else "",
            callback=CallbackStatus(url=shown(call.callback), state="waiting") if call.callback else None,
        )

    async def _finished(self, event: WireEvent) -> CallStatus:
        outcome = outcome_of(event)
        return CallStatus(
            **told(outcome.call),
            state="succeeded" if outcome.succeeded else "failed",
            attempts=outcome.attempts,
            reason=outcome.reason,
            finished_at=time_of(outcome.finished_at),
            duration_seconds=round(outcome.duration_seconds, 6),
            result=_result(outcome, event),
            callback=await self._callback(outcome) if outcome.call.callback else None,
        )

    async def _callback(self, outcome: Outcome) -> CallbackStatus:
        last = await self._last_try(outcome.call, CALLBACK, outcome.finished_at)
        url = shown(outcome.call.callback)
        if last is None:
            return CallbackStatus(url=url, state="waiting")
        return CallbackStatus.model_validate(
            {
                "url": url,
                "state": _STATES[last["end"]],
                "attempts": last["n"],
                "reason": last.get("why", ""),
            }
        )

    async def _last_try(self, call: Call, of: str, since: float) -> Record | None:
        """The newest attempt that was written down; nothing comes after one that was the end."""
        newest: Record | None = None
        for key in (key_of_one(call.id), MANY):
            async for stored in self._log.read(
                names.records_stream(names.CALLS), key, since=since - _EARLIER_SECONDS
            ):
                for line in matching(stored.event.data or b"", [needle(call.id)]):
                    mine = line["k"] == TRY and line["trigger"] == of and line["ev"][0][0] == call.id
                    if mine and (newest is None or line["n"] >= newest["n"]):
                        newest = line
                if newest is not None and newest["end"] != "retried":
                    return newest
        return newest


def _result(outcome: Outcome, event: WireEvent) -> CallResult | None:
    if outcome.status is None:
        return None
    reference = event.attributes.get("dataref")
    body = event.data or b""
    try:
        text, other = body.decode(), None
    except UnicodeDecodeError:
        text, other = None, base64.b64encode(body).decode()
    return CallResult(
        status=outcome.status,
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in outcome.headers or []},
        size_bytes=outcome.size_bytes,
        body=text if reference is None else None,
        body_base64=other if reference is None else None,
        blob=None if reference is None else reference.rpartition("/")[2],
        truncated=outcome.truncated,
    )
