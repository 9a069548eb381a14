"""The events in a function's answer, and how they continue the way of the event that they answer. Pure.

A chain of replies is bounded: each carries in ``knativebrokerttl`` how many more brokers it may pass, as
Knative's broker has it, so that a function that answers itself does not go on for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torpor.binding import WireEvent, decode
from torpor.errors import MalformedEventError
from torpor.events.log import MAX_APPEND

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torpor.transport import Response

MAX_HOPS = 255
_HOPS = "knativebrokerttl"


def replies(response: Response, to: Iterable[WireEvent]) -> list[WireEvent]:
    """The events of ``response`` in whatever mode; none when its body is not a CloudEvent.

    ``to`` are the events that it answers. Raises :class:`~torpor.errors.MalformedEventError` when the answer
    claims to be events and is not, or when the chain has become too long.
    """
    try:
        events = decode(response.headers, response.body)
    except MalformedEventError as error:
        raise MalformedEventError(f"the function's reply is no valid CloudEvent: {error}") from None
    if not events:
        return []
    if len(events) > MAX_APPEND:
        raise MalformedEventError(f"the function's reply has {len(events)} events, at most {MAX_APPEND}")
    hops_left = min(hops(event) for event in to)
    if hops_left <= 1:
        raise MalformedEventError(
            f"the function replied to the last of {MAX_HOPS} replies in a row: is it answering itself?"
        )
    return [WireEvent({**event.attributes, _HOPS: str(hops_left - 1)}, event.data) for event in events]


def hops(event: WireEvent) -> int:
    """How many more brokers a reply to ``event``, and replies to that, may pass."""
    text = event.attributes.get(_HOPS, "")
    return min(int(text[:9]), MAX_HOPS) if text.isascii() and text.isdigit() else MAX_HOPS
