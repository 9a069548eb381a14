"""Answers as ASGI messages. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torpor.binding import BATCH, encode_batch, encode_binary
from torpor.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torpor.binding import Headers, WireEvent
    from torpor.problems import ProblemType


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, as the two messages that ASGI wants, and what it counts as."""

    start: dict[str, Any]
    body: dict[str, Any]
    outcome: str


def answer(status: int, headers: Headers, body: bytes, outcome: str) -> Answer:
    """An answer; its length is added to ``headers``."""
    headers.append((b"content-length", b"%d" % len(body)))
    return Answer(
        {"type": "http.response.start", "status": status, "headers": headers},
        {"type": "http.response.body", "body": body},
        outcome,
    )


_NOTHING_START: dict[str, Any] = {"type": "http.response.start", "status": 204, "headers": []}
_NOTHING_BODY: dict[str, Any] = {"type": "http.response.body", "body": b""}


def nothing(outcome: str, headers: Headers | None = None) -> Answer:
    """204: all went well, and there is nothing to say but ``headers``."""
    if headers:
        return Answer({**_NOTHING_START, "headers": headers}, _NOTHING_BODY, outcome)
    return Answer(_NOTHING_START, _NOTHING_BODY, outcome)


def event(reply: WireEvent, outcome: str, more: Sequence[tuple[bytes, bytes]] = ()) -> Answer:
    """One event, in binary mode; ``more`` headers go with it."""
    headers, body = encode_binary(reply)
    return answer(200, [*headers, *more], body, outcome)


def batch(replies: Sequence[WireEvent], outcome: str, more: Sequence[tuple[bytes, bytes]] = ()) -> Answer:
    """Events that are taken in all together or not at all; ``more`` headers go with them."""
    if not replies:
        return nothing(outcome, list(more))
    return answer(200, [(b"content-type", BATCH), *more], encode_batch(replies), outcome)


def problem(
    kind: ProblemType,
    detail: str,
    request_id: str,
    outcome: str,
    extras: dict[str, Any] | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> Answer:
    """A problem document."""
    document = Problem(kind, detail, request_id, extras=extras)
    body = document.body()
    return Answer(
        {
            "type": "http.response.start",
            "status": kind.status,
            "headers": [*document.headers(body), *headers],
        },
        {"type": "http.response.body", "body": body},
        outcome,
    )
