"""How a handler that takes a list says that it failed with some of it. Pure.

The answer names those events in the header ``torpor-failed-ids``, and a trigger with a ``batch`` delivers
them, and them alone, again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from torpor.problems import ProblemType
from torpor.runtime.refusals import InvalidReplyError, RefusalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torpor.binding import WireEvent

HEADER = b"torpor-failed-ids"
ASKS, PARTIAL = b"torpor-batch", b"partial"
"""The header of a call, and its value, that asks for the other."""
MAX_HEADER_BYTES = 16 * 1024


class Failed:
    """What a handler gives back, or yields, beside its replies: that it failed with items of its list.

    ``positions`` are those of the items in the list, from 0. The others are done with; these are delivered
    again, as an event is whose handler raised an error.
    """

    def __init__(self, positions: Iterable[int]) -> None:
        self.positions = tuple(positions)

    def __repr__(self) -> str:
        return f"Failed({list(self.positions)})"


def split(values: Iterable[Any]) -> tuple[list[Any], list[int]]:
    """Of what a handler gave back: its replies, and the positions that it failed with."""
    replies: list[Any] = []
    positions: set[int] = set()
    for value in values:
        if isinstance(value, Failed):
            positions.update(value.positions)
        else:
            replies.append(value)
    return replies, sorted(positions)


def header(
    positions: Sequence[int], events: Sequence[WireEvent], *, understood: bool
) -> list[tuple[bytes, bytes]]:
    """The header that names the events at ``positions``; none where there are none.

    Raises :class:`InvalidReplyError` for a position outside the list, and :class:`RefusalError`, which has
    all of them delivered again, where their caller can't be told or they are too many.
    """
    if not positions:
        return []
    if not all(0 <= each < len(events) for each in positions):
        raise InvalidReplyError(f"{positions} are not all positions in a list of {len(events)} items")
    value = ",".join(quote(events[each].id, safe="") for each in positions).encode()
    if not understood or len(value) > MAX_HEADER_BYTES:
        raise RefusalError(ProblemType.TRY_AGAIN, f"The handler failed with {len(positions)} of the items.")
    return [(HEADER, value)]
