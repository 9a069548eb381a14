"""From what a handler gave back to the events that follow.

Identities derive from the input's alone, so that a second run of the handler gives the same ones and the
broker can tell a reply that it has already. The id of a reply is always ``<id>.<mark>/<index>``, whatever id
an event had that the author made; its source is the author's, or else the function. ``<id>`` is the input's,
and of a joined group its ``fanoutid``, which does not depend on the order in which its parts came; any other
batch has a hash of the identities in it. The mark is a hash of what else tells inputs and functions apart:
two producers may use the same id, since an event is identified by its source too (CloudEvents 1.0.2, ``id``),
and two functions may split the same event.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cloudevents.core.exceptions import BaseCloudEventException
from cloudevents.core.v1.event import CloudEvent
from pydantic_core import PydanticSerializationError, to_json

from torpor.binding import WireEvent, from_sdk
from torpor.errors import MalformedEventError
from torpor.runtime import groups
from torpor.runtime.refusals import InvalidReplyError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"

_TRACE = ("traceparent", "tracestate")
_PARTITION_KEY = "partitionkey"


@dataclass(frozen=True, slots=True)
class Cause:
    """What replies derive from.

    ``kept`` is the group that a single reply stays in; ``nested_in`` the attributes whose group encloses one
    that is made of many replies; ``handed_on`` goes to replies that don't say otherwise.
    """

    base: str
    kept: Mapping[str, str]
    nested_in: Mapping[str, str]
    handed_on: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Maker:
    """What the plain values of one function become: events of the type ``emits``, from ``source``."""

    source: str
    emits: str


def cause_of(event: WireEvent, maker: Maker, trace: Mapping[str, str]) -> Cause:
    """The cause of the replies of ``maker`` to one event; ``trace`` is the context to hand on."""
    attributes = event.attributes
    handed_on = dict(trace)
    if _PARTITION_KEY in attributes:
        handed_on[_PARTITION_KEY] = attributes[_PARTITION_KEY]
    base = f"{event.id}.{_mark(maker.source, event.source)}"
    return Cause(base, groups.kept(attributes), attributes, handed_on)


def cause_of_batch(events: Sequence[WireEvent], maker: Maker, trace: Mapping[str, str]) -> Cause:
    """The cause of the replies of ``maker`` to a batch that one call took, a joined group or any other.

    Raises :class:`~torpor.errors.MalformedEventError`.
    """
    handed_on = dict(trace)
    keys = {event.attributes.get(_PARTITION_KEY) for event in events}
    key = keys.pop() if len(keys) == 1 else None
    if key is not None:
        handed_on[_PARTITION_KEY] = key
    group = groups.joined([event.attributes for event in events])
    if group is None:
        identities = "\n".join(sorted(f"{event.source} {event.id}" for event in events))
        digest = hashlib.sha256(identities.encode("utf-8", "surrogatepass")).hexdigest()
        return Cause(f"{digest[:32]}.{_mark(maker.source, 'batch')}", {}, {}, handed_on)
    kind = min(event.type for event in events)
    enclosing = groups.restored(min((e.attributes for e in events), key=lambda a: int(a[groups.INDEX])))
    return Cause(f"{group}.{_mark(maker.source, 'join', kind)}", enclosing, enclosing, handed_on)


def _mark(*texts: str) -> str:
    """Eight hexadecimal digits that stand for ``texts``."""
    whole = "".join(f"{len(text)}:{text}" for text in texts)
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def in_order(events: Sequence[WireEvent]) -> list[WireEvent]:
    """The events of a batch, a joined group's in the order of its parts."""
    if groups.joined([event.attributes for event in events]) is None:
        return list(events)
    return sorted(events, key=lambda event: int(event.attributes[groups.INDEX]))


def single(value: Any, cause: Cause, maker: Maker, now: str) -> WireEvent:
    """The one reply that ``value`` is. Raises :class:`InvalidReplyError`."""
    return _event(value, f"{cause.base}/0", cause.kept, cause.handed_on, maker, now)


def many(values: Sequence[Any], cause: Cause, maker: Maker, now: str) -> list[WireEvent]:
    """The group of replies that ``values`` are. Raises :class:`InvalidReplyError`."""
    size = len(values)
    if size > groups.MAX_PARTS:
        raise InvalidReplyError(
            f"the handler yielded more than {groups.MAX_PARTS} replies, the most of one group"
        )
    try:
        outer = groups.outer_of_parts(cause.nested_in)
    except ValueError as error:
        raise InvalidReplyError(str(error)) from None
    return [
        _event(
            value,
            f"{cause.base}/{index}",
            groups.part(cause.base, index, size, outer),
            cause.handed_on,
            maker,
            now,
        )
        for index, value in enumerate(values)
    ]


def data_of(value: Any) -> tuple[bytes, str]:
    """A plain value as bytes, and their content type. Raises :class:`InvalidReplyError`."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), BYTES
    if isinstance(value, str):
        try:
            return value.encode(), TEXT
        except UnicodeEncodeError as error:
            raise InvalidReplyError(f"the handler's text can't be written as UTF-8: {error}") from None
    try:
        return to_json(value, bytes_mode="base64", inf_nan_mode="null"), JSON
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise InvalidReplyError(
            f"the handler gave back a {type(value).__name__}, which can't be written as JSON: {error}"
        ) from None


def is_event(value: Any) -> bool:
    """Whether ``value`` is an event that the author made."""
    return isinstance(value, CloudEvent)


def now() -> str:
    """The time, as events have it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _event(
    value: Any,
    identity: str,
    group: Mapping[str, str],
    handed_on: Mapping[str, str],
    maker: Maker,
    now: str,
) -> WireEvent:
    if isinstance(value, CloudEvent):
        return _own_event(value, identity, group, handed_on)
    data, content_type = data_of(value)
    attributes = {
        "specversion": "1.0",
        "id": identity,
        "source": maker.source,
        "type": maker.emits,
        "time": now,
        "datacontenttype": content_type,
    }
    if handed_on:
        attributes.update(handed_on)
    if group:
        attributes.update(group)
    return WireEvent(attributes, data)


def _own_event(
    value: CloudEvent, identity: str, group: Mapping[str, str], handed_on: Mapping[str, str]
) -> WireEvent:
    """An event that the author made, with the identity and the place that are not the author's to give."""
    try:
        event = from_sdk(value)
    except (MalformedEventError, BaseCloudEventException) as error:
        raise InvalidReplyError(f"the handler gave back an event that is not valid: {error}") from None
    attributes = event.attributes
    attributes["id"] = identity
    for name, text in handed_on.items():
        if name in _TRACE or name not in attributes:
            attributes[name] = text
    if group:
        for name in groups.ATTRIBUTES:
            attributes.pop(name, None)
        attributes.update(group)
    if event.data is not None:
        attributes.pop("dataref", None)  # it was the claim check of other data
    return event
