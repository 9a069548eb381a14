"""What ``/api/v1`` and the command line show of a call that nobody waits for."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from torpor.spec.view import View


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


class CallStatus(View):
    """One call: how far it is, and what came of it."""

    id: str
    """The id that the caller was told."""
    function: str
    """The function, `namespace/name`."""
    method: str
    """The request's method."""
    path: str
    """The request's path below the function."""
    state: Literal["accepted", "running", "succeeded", "failed"]
    """`accepted`: it waits, for its first attempt or the next; `running`: the function is being called."""
    accepted_at: datetime
    """When it was on the disk."""
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
