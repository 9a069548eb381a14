"""What follows from one attempt to deliver an event: done, again later, or a dead letter. Pure.

Source: Knative's event delivery contract (data plane: 2xx is success; no answer, 408, 404, 409, 429 and 5xx
are tried again; any other status is final) and ``Retry-After`` of RFC 9110, section 10.2.3. The waits are a
list that is made once: what walks it and what tests check is the same list. Jitter only makes a wait longer,
so that neither the schedule nor a receiver is given less than it asks for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torpor.spec.models import Delivery

MAX_DELAY_SECONDS = 3600.0
"""Longest wait before a retry, whatever the policy or the receiver says; jitter comes on top."""
_AGAIN = frozenset({404, 408, 409, 429})


class Answer(NamedTuple):
    """A receiver's HTTP answer; ``detail`` is what it said of what was wrong."""

    status: int
    retry_after_seconds: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Nothing came back; ``reason`` says why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver took the event."""


DELIVERED = Delivered()


@dataclass(frozen=True, slots=True)
class Retry:
    """Deliver again after ``delay_seconds``."""

    delay_seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Not to be delivered any more; ``code`` is the last HTTP status, if there was an answer."""

    reason: str
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """When deliveries are tried again: ``delays_seconds`` has one entry for each retry.

    ``jitter`` is the part, 0 to 1, by which a wait may be longer, and ``retry_after_max_seconds`` what a
    receiver's ``Retry-After`` counts for at most.
    """

    delays_seconds: tuple[float, ...]
    jitter: float = 0.0
    retry_after_max_seconds: float = MAX_DELAY_SECONDS


def schedule(delivery: Delivery) -> Schedule:
    """The schedule that is declared."""
    return Schedule(
        delays_seconds(delivery), delivery.jitter_percentage / 100, delivery.retry_after_max_seconds
    )


def delays_seconds(delivery: Delivery) -> tuple[float, ...]:
    """How long to wait before each retry, in order: as many as there are retries."""
    base = delivery.backoff_delay_seconds
    if delivery.backoff_policy == "linear":
        waits = (base * number for number in range(1, delivery.retry + 1))
    else:
        waits = (base * 2.0**number for number in range(1, delivery.retry + 1))
    return tuple(min(wait, MAX_DELAY_SECONDS) for wait in waits)


def decide(
    schedule: Schedule,
    attempt: int,
    outcome: Answer | NoAnswer | DeadLetter,
    identity: str = "",
    who: str = "the function",
) -> Delivered | Retry | DeadLetter:
    """What follows from ``outcome`` of the ``attempt``-th delivery (the first is 1); a dead letter stays one.

    A receiver may ask for a longer wait than the schedule's, never for a shorter one. ``identity`` tells the
    event from others: with the attempt it gives the jitter, which so is the same whoever reckons it. ``who``
    is what reasons call the receiver.
    """
    if isinstance(outcome, DeadLetter):
        return outcome
    if isinstance(outcome, Answer):
        if 200 <= outcome.status < 300:
            return DELIVERED
        reason, code = f"{who} answered {outcome.status}", outcome.status
        detail = f": {outcome.detail}" if outcome.detail else ""
        if not _is_retried(outcome.status):
            return DeadLetter(f"{reason}, which is final{detail}", code)
        asked = outcome.retry_after_seconds or 0.0
    else:
        reason, code, asked, detail = outcome.reason, None, 0.0, ""
    if attempt > len(schedule.delays_seconds):
        return DeadLetter(f"{reason}, at attempt {attempt}, the last{detail}", code)
    wait = max(schedule.delays_seconds[attempt - 1], min(asked, schedule.retry_after_max_seconds))
    return Retry(wait * (1 + schedule.jitter * _spread(identity, attempt)), f"{reason}{detail}")


def _spread(identity: str, attempt: int) -> float:
    """A number from 0 to 1 that looks like chance, and is the same each time."""
    digest = hashlib.sha256(f"{attempt}:{identity}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _is_retried(status: int) -> bool:
    return status in _AGAIN or 500 <= status < 600


def parse_retry_after(value: bytes, now: float) -> float | None:
    """Seconds that a ``Retry-After`` header asks to wait; ``None`` if it is senseless.

    ``now`` is in seconds since the epoch.
    """
    text = value.decode("latin-1").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None
