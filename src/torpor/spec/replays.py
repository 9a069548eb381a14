"""What ``/api/v1`` is asked and answers about events that are to be delivered again."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, BeforeValidator, Field, StrictBool, StringConstraints

from torpor.spec.selectors import FORM, MAX_FILTERS, MAX_LENGTH
from torpor.spec.view import Matching, Request, View

MAX_EVENTS = 100
"""Most events that one request has delivered again."""
REPLAYED = "torporreplay"
"""The extension of an event in a tail that is in the broker once more, for one trigger or function alone."""
REVISION = "^[a-z0-9-]{1,63}$"
"""The form of a revision's name."""
_DATE = re.compile(r"\d{4}-\d\d-\d\d[Tt]")


def _no_number(value: object) -> object:
    """Numbers are no times here, though pydantic takes them for such."""
    if not isinstance(value, datetime) and not (isinstance(value, str) and _DATE.match(value)):
        raise ValueError("a time such as 2026-01-31T12:00:00Z was expected")
    return value


def _number(value: object) -> object:
    """Texts and booleans are no numbers here, though pydantic takes them for such."""
    if isinstance(value, (bool, str)):
        raise ValueError("a whole number was expected")  # noqa: TRY004 - pydantic's way to refuse
    return value


Time = Annotated[AwareDatetime, BeforeValidator(_no_number)]
"""A time with a zone, in ISO 8601."""
Condition = Annotated[
    str,
    StringConstraints(max_length=MAX_LENGTH),
    Matching(FORM, "ATTRIBUTE=PATTERN was expected, such as type=image.*"),
]
"""A condition on an attribute, such as ``type=image.*``."""

_Target = Annotated[
    str,
    StringConstraints(min_length=1, max_length=512),
    Matching("^[^/@]+/[^/@]+(@[^/@]+)?$", "NAMESPACE/NAME or NAMESPACE/NAME@REVISION was expected"),
]


class Replay(Request):
    """Events to deliver again, a page of them a request."""

    since: Time
    """Accepted then or later."""
    until: Time
    """Accepted before then."""
    filters: tuple[Condition, ...] = Field((), max_length=MAX_FILTERS)
    """Conditions on attributes, such as `type=image.*`; all must be met."""
    function: _Target | None = None
    """To this function of the broker's namespace alone, `namespace/name`, whatever its triggers are; or to
    one revision of it, `namespace/name@revision`: what would come to another one becomes a dead letter."""
    run: Annotated[str, Matching("^[0-9a-f]{32}$", "32 digits and letters a to f were expected")]
    """Tells this replay from others: what was done in it is not done again, if a request is repeated."""
    after: Annotated[int, Field(ge=0, le=2**53), BeforeValidator(_number)] = 0
    """The `nextAfter` of the page before."""
    limit: Annotated[int, Field(ge=1, le=MAX_EVENTS), BeforeValidator(_number)] = MAX_EVENTS
    """Most events of the page."""
    dry_run: StrictBool = False
    """Only say what would happen."""

    @property
    def target(self) -> tuple[str, str | None] | None:
        """The function that is meant by name, and the revision if one is."""
        if self.function is None:
            return None
        function, _, revision = self.function.partition("@")
        return function, revision or None


class ReplayedEvent(View):
    """An event that was, or would be, delivered again."""

    id: str
    """Its id."""
    source: str
    """Its source."""
    type: str
    """Its type."""
    at: datetime
    """When it was accepted."""
    triggers: tuple[str, ...]
    """The triggers that it goes to, and to no others; `namespace/name`. A function that is meant by name is
    `namespace/function:name`."""


class ReplayPage(View):
    """Some of the events of a replay, the oldest first. There may be more even where there are no items."""

    items: tuple[ReplayedEvent, ...]
    """The events that a trigger matches, or that are for the function."""
    next_since: datetime | None = None
    """The `since` of the next request; none when this is the last page."""
    next_after: int = 0
    """The `after` of the next request."""
