"""Dead letters: events that could not be delivered, with why. Pure.

Source: Knative's delivery contract (extensions ``knativeerrordest``, ``knativeerrorcode`` and
``knativeerrordata``, the last one base64 of at most 1,024 characters). ``torportrigger``, ``torporattempts``
and ``torporerror`` say the rest.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from torpor.binding import WireEvent
from torpor.events.log import Record
from torpor.events.names import identity, token

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_ERROR_DATA = 1024
_MAX_REASON = 512


def dead_letters(
    events: Sequence[WireEvent],
    *,
    trigger_key: str,
    function_key: str,
    attempt: int,
    reason: str,
    code: int | None,
    data: bytes,
) -> list[Record]:
    """The records for a broker's stream of dead letters; an event of a trigger has one identity there."""
    namespace, name = function_key.split("/")
    extensions = {
        "knativeerrordest": f"/function/{name}.{namespace}",
        "torportrigger": trigger_key,
        "torporattempts": str(attempt),
        "torporerror": _printable(reason),
    }
    if code is not None:
        extensions["knativeerrorcode"] = str(code)
    if data:
        extensions["knativeerrordata"] = base64.b64encode(data[: _MAX_ERROR_DATA * 3 // 4]).decode()
    return [
        Record(
            key=f"{token(trigger_key)}.{token(event.type)}",
            identity=f"{token(trigger_key)}:{identity(event.source, event.id)}",
            event=WireEvent({**event.attributes, **extensions}, event.data),
        )
        for event in events
    ]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:_MAX_REASON]
