"""The header lines of a call that brings an event (:func:`torpor.transport.encode_fields`). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torpor.binding import USUAL_HEADERS, encode_binary, is_plain, is_usual
from torpor.transport import encode_fields

if TYPE_CHECKING:
    from torpor.binding import WireEvent

_STARTS = {name: f"\r\n{header.decode()}: " for header, name in USUAL_HEADERS.items()}
_USUAL = _STARTS.keys()
_TRACE = ("traceparent", "tracestate")


def plain_fields(event: WireEvent) -> bytes | None:
    """The event's attributes in binary mode, where these are usual, plain and surely valid."""
    attributes = event.attributes
    values = "".join(attributes.values())
    if attributes.keys() <= _USUAL and is_plain(values) and is_usual(attributes, values):
        return "".join([_STARTS[name] + value for name, value in attributes.items()]).encode()
    return None


def event_fields(event: WireEvent) -> bytes:
    """The event's attributes in binary mode.

    Raises ``ValueError`` for attributes that are not valid and would break the message's framing.
    """
    return plain_fields(event) or encode_fields(encode_binary(event)[0])


def trace_fields(event: WireEvent) -> bytes:
    """The event's trace context as the call's own (CloudEvents extension "Distributed Tracing")."""
    attributes = event.attributes
    if "traceparent" not in attributes and "tracestate" not in attributes:
        return b""
    names = [name for name in _TRACE if name in attributes]
    return encode_fields([(name.encode(), attributes[name].encode("ascii", "replace")) for name in names])
