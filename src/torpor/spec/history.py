"""What ``/api/v1`` and the command line show of what happened to an event."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from torpor.spec.view import AttributeText, Matching, Request, View

_Broker = Annotated[
    str,
    StringConstraints(min_length=1, max_length=512),
    Matching("^([^/]+/[^/]+|calls)$", "NAMESPACE/NAME was expected"),
]
"""A broker's name with its namespace, or where what happened to calls is recorded."""


class Question(Request):
    """Which event is asked about."""

    id: AttributeText
    """The event's id."""
    source: AttributeText | None = None
    """Its source; none given means of any source."""
    broker: _Broker | None = None
    """The broker that it was sent to, `namespace/name`; none given means any."""


class Step(View):
    """One thing that happened to an event, or to the group that it is part of."""

    at: datetime
    """When; of a delivery when it began."""
    what: Literal["accepted", "delivery", "part", "group", "dead letter"]
    """The kind of thing."""
    trigger: str = ""
    """The trigger that did it, `namespace/name`; followed by ` sink` where it is the trigger's sink."""
    text: str
    """What happened, in words."""
    by: str = ""
    """The process that wrote it down."""
    attempt: int | None = None
    """Of a delivery: which one."""
    status: int | None = None
    """Of a delivery: the HTTP status of the answer, if there was one."""
    instance: str | None = None
    """Of a delivery: the instance that answered, or broke off; none where none was reached."""
    duration_seconds: float | None = None
    """Of a delivery: how long it took."""
    delay_seconds: float | None = None
    """Of a delivery: how long until the next one, if it is tried again."""
    group: str | None = None
    """The group that it is about."""


class Standing(View):
    """What a trigger that reads the event's broker has to do with it."""

    trigger: str
    """The trigger, `namespace/name`."""
    function: str
    """Its function, `namespace/name`."""
    matches: bool | None
    """Whether its filters, as they are now, match the event; none where the event is not kept any more."""
    reason: str
    """Why they do, or do not."""
    attribute: str = ""
    """The attribute that decided; empty where none did."""
    state: str
    """How far the trigger is with it, in words."""


class GroupStanding(View):
    """A group that the event is part of, at a trigger that joins."""

    trigger: str
    """The trigger, `namespace/name`."""
    group: str
    """The group."""
    size: int
    """How many parts it has when it is whole."""
    present: int
    """How many of them came, since it was opened last."""
    missing: tuple[int, ...] = ()
    """The first hundred of the indexes that are missing."""
    state: str
    """How it ended, or that it waits."""


class Reply(View):
    """An event that a function answered with; it can be explained in turn."""

    id: str
    """Its id."""
    source: str
    """Its source."""
    type: str
    """Its type."""


class Explanation(View):
    """What happened to one event."""

    broker: str
    """The broker that took it in, `namespace/name`."""
    id: str
    """Its id."""
    source: str
    """Its source."""
    type: str | None = None
    """Its type, if it is known."""
    kept: bool
    """Whether the broker still has it."""
    steps: tuple[Step, ...] = ()
    """What happened, in the order of time."""
    triggers: tuple[Standing, ...] = ()
    """The triggers that read its broker now."""
    groups: tuple[GroupStanding, ...] = ()
    """The groups that it is part of."""
    replies: tuple[Reply, ...] = ()
    """The first hundred of the replies to it, or to its group."""
    replies_total: int = 0
    """How many replies there were."""
    dead_letters: tuple[str, ...] = ()
    """The ids of its dead letters that are still there."""


class Answer(View):
    """What is known of the events of one id."""

    looked_at: tuple[str, ...]
    """The brokers whose records were looked through, `namespace/name`."""
    since: datetime | None = None
    """How far back the records go; none when there are none."""
    items: tuple[Explanation, ...] = Field(())
    """The events, of which each has another source or broker."""
