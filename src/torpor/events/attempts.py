"""An attempt to have something taken by who answers by HTTP: what the answer says, what is recorded. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torpor.events.delivery import Answer, DeadLetter, Delivered, Retry, parse_retry_after
from torpor.events.records import Attempt
from torpor.problems import detail_of

if TYPE_CHECKING:
    from torpor.transport import Response

_ENDS = {Delivered: "delivered", Retry: "retried", DeadLetter: "given up"}


def answer_of(response: Response, now: float) -> Answer:
    """What a response says to whoever may try again; ``now`` in seconds since the epoch."""
    if 200 <= response.status < 300:
        return Answer(response.status)
    asked = response.header(b"retry-after")
    wait = parse_retry_after(asked, now) if asked is not None else None
    return Answer(response.status, wait, detail_of(response.header(b"content-type"), response.body))


def attempt_of(
    of: str,
    number: int,
    decision: Delivered | Retry | DeadLetter,
    took_seconds: float,
    *,
    status: int | None = None,
    instance: str = "",
    replies: int = 0,
) -> Attempt:
    """What is written down of the attempt of this ``number`` that ``of`` made; ``decision`` came of it."""
    why = "" if isinstance(decision, Delivered) else decision.reason
    delay_seconds = decision.delay_seconds if isinstance(decision, Retry) else None
    end = _ENDS[type(decision)]
    return Attempt(of, number, took_seconds, end, status, why, delay_seconds, replies, instance)
