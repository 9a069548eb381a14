"""What ``/api/v1`` and the command line show of a call that nobody waits for."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from torpor.spec.view import Matching, Request, View

MAX_CALLS = 100
"""Most calls of one page."""
CallState = Literal["accepted", "running", "succeeded", "failed"]
_Name = Annotated[
    str, Matching("^[a-z0-9-]{1,63}$", "1 to 63 lower-case letters, digits and '-' were expected")
]
_Place = Annotated[str, Matching("^[ae][0-9]{1,19}$", "the 'next' of the page before was expected")]


class CallResult(View):
    """What the function answered last."""

    status: int
    """The HTTP status."""
    headers: dict[str, str]
    """Those of its headers that are kept, by name in lower case."""
    size_bytes: int
    """How long the body was."""
    body: str | None = None
    """The body, where it is kept here and is text in UTF-8."""
    body_base64: str | None = None
    """The body, where it is kept here and is anything else."""
    blob: str | None = None
    """The name of the blob that has the body, where it was too large to be kept here."""
    truncated: bool = False
    """Whether only the body's beginning was kept."""


class CallbackStatus(View):
    """How it is with the callback."""

    url: str
    """Where it goes, without the query."""
    state: Literal["waiting", "delivered", "failed"]
    """Whether the receiver took it, or it was given up."""
    attempts: int = 0
    """How often it was tried."""
    reason: str = ""
    """Why the last attempt did not succeed."""


class _Call(View):
    id: str
    """The id that the caller was told."""
    function: str
    """The function, `namespace/name`."""
    method: str
    """The request's method."""
    path: str
    """The request's path below the function."""
    state: CallState
    """`accepted`: it waits, for its first attempt or the next; `running`: the function is being called."""
    accepted_at: datetime
    """When it was on the disk."""


class CallStatus(_Call):
    """One call: how far it is, and what came of it."""

    attempts: int = 0
    """How often the function was called."""
    reason: str = ""
    """Why the last attempt did not succeed."""
    finished_at: datetime | None = None
    """When it succeeded or failed."""
    duration_seconds: float | None = None
    """How long the last attempt took."""
    result: CallResult | None = None
    """What the function answered; none while it is not finished, or when no answer came at all."""
    callback: CallbackStatus | None = None
    """The callback that was asked for."""


class CallSummary(_Call):
    """One call among many; `GET /api/v1/calls/ID` has the rest."""

    finished_at: datetime | None = None
    """When it succeeded or failed."""
    attempts: int | None = None
    """How often the function was called; told once the call has ended."""
    status: int | None = None
    """The HTTP status that the function answered last; none while it is open, or when no answer came."""
    reason: str = ""
    """Why the last attempt did not succeed; told once the call has ended."""


class CallSelection(Request):
    """Which calls are meant: those that meet everything that is given."""

    namespace: _Name | None = None
    """Of functions of this namespace."""
    function: _Name | None = None
    """Of the function of this name; its namespace is `default` where none is given."""
    state: tuple[CallState, ...] = Field((), max_length=4)
    """In one of these states; none given means in any."""
    limit: int = Field(50, ge=1, le=MAX_CALLS)
    """Most calls of the page."""
    after: _Place | None = None
    """The `next` of the page before, which was asked for with the same selection."""


class CallPage(View):
    """Some calls, the newest first. There may be more even where there are no items."""

    items: tuple[CallSummary, ...]
    """The calls."""
    next: str | None = None
    """The `after` of the next page; none when this is the last."""


class CallQuestion(View):
    """What an events process is asked for a page of calls."""

    selection: CallSelection
    """Which."""
    running: tuple[str, ...] = ()
    """The ids of calls that other processes are making."""
