"""What ``/api/v1`` and the command line show of dead letters, and what they are asked about them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool

from torpor.spec.replays import Condition, Time
from torpor.spec.selectors import MAX_FILTERS
from torpor.spec.view import AttributeText, Key, Matching, Request, View

ID_DIGITS = 28
"""How many hexadecimal digits the id of a dead letter has."""
MAX_IDS = 100
"""Most dead letters that one request names."""
MAX_NAMES = 100
"""Most names of a kind in one selection."""


ID_FORM = Matching(f"^[0-9a-f]{{{ID_DIGITS}}}$", f"{ID_DIGITS} digits and letters a to f were expected")
"""The form of the id of a dead letter."""
_Id = Annotated[str, ID_FORM]


class DeadLetter(View):
    """An event that could not be delivered to one trigger's function."""

    id: str
    """Its own id, by which it is replayed or dropped; not that of the event."""
    broker: str
    """The broker that had the event, `namespace/name`."""
    trigger: str
    """The trigger that failed with it, `namespace/name`."""
    function: str
    """The function that did not take it, `namespace/name`."""
    at: datetime
    """When it became a dead letter."""
    reason: str
    """Why."""
    attempts: int
    """How often it was delivered."""
    code: int | None = None
    """The last HTTP status, if there was an answer."""
    event_type: str
    """The event's type."""
    event_source: str
    """The event's source."""
    event_id: str
    """The event's id."""
    data_bytes: int
    """How much data it has."""
    answer: str | None = None
    """The beginning of the last answer's body; shown of a single dead letter."""
    event: dict[str, Any] | None = None
    """The event as it was delivered, in CloudEvents' JSON format; shown of a single dead letter."""


class LetterSelection(Request):
    """Which dead letters are meant: those that meet everything that is given; each list is a choice."""

    brokers: tuple[Key, ...] = Field((), max_length=MAX_NAMES)
    """Of these brokers, `namespace/name`; none given means of any."""
    triggers: tuple[Key, ...] = Field((), max_length=MAX_NAMES)
    """Of these triggers, `namespace/name`."""
    functions: tuple[Key, ...] = Field((), max_length=MAX_NAMES)
    """Of these functions, `namespace/name`."""
    event_ids: tuple[AttributeText, ...] = Field((), max_length=MAX_NAMES)
    """Whose events have one of these ids."""
    filters: tuple[Condition, ...] = Field((), max_length=MAX_FILTERS)
    """Conditions on attributes of the event, such as `type=image.*`; all must be met."""
    since: Time | None = None
    """That became dead letters then or later."""
    until: Time | None = None
    """That became dead letters before then."""


class LetterAction(Request):
    """Dead letters to do something with."""

    ids: tuple[_Id, ...] = Field(min_length=1, max_length=MAX_IDS)
    """Their ids."""
    dry_run: StrictBool = False
    """Only say what would happen."""


class LetterOutcome(View):
    """What became of one dead letter; in a dry run what would."""

    id: str
    """Its id."""
    outcome: Literal["replayed", "dropped", "refused", "unknown"]
    """`refused`: it stays where it is; `unknown`: there is no such dead letter, or no more."""
    detail: str
    """The same in words."""
