"""How records are written as NATS messages, and read again. Pure.

Source: the CloudEvents NATS protocol binding, binary mode: attributes are headers ``ce-<name>``, data is the
payload; so other programs that may use the same NATS can read a broker's events. A stream's records have the
subjects ``torpor.<stream>.<key>``, where ``.`` in a stream's or a consumer's name is ``+``.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from torpor.binding import USUAL_HEADERS, WireEvent, encode_value, is_plain, says_data
from torpor.errors import EventLogError
from torpor.events.log import Stored
from torpor.events.nats_client import BLANKS, header_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

_SUBJECTS = "torpor"
MESSAGE_ID = "Nats-Msg-Id"
_PREFIX = "ce-"
_CONTENT_TYPE = "content-type"
_OWN_TYPE = _PREFIX + "datacontenttype"
_ATTRIBUTES = {header.decode(): name for header, name in USUAL_HEADERS.items()}
"""Of the headers that come most often; the others are looked at by themselves."""
_PLAIN_TYPE = re.compile(r"[!-~]([ -~]*[!-~])?\Z")


def quoted(name: str) -> str:
    """The name of a stream or consumer as NATS takes it."""
    return name.replace(".", "+")


def unquoted(name: str) -> str:
    """The contrary of :func:`quoted`."""
    return name.replace("+", ".")


def subject(stream: str, key: str) -> str:
    """The subject of the records of ``key``, which may be a pattern."""
    return f"{_SUBJECTS}.{quoted(stream)}.{key}"


def is_stream(nats_name: str, subjects: list[str]) -> bool:
    """Whether a NATS stream is one of ours."""
    return subjects == [f"{_SUBJECTS}.{nats_name}.>"]


def headers_of(event: WireEvent) -> dict[str, str]:
    """The headers that carry the attributes."""
    attributes = event.attributes
    if is_plain("".join(attributes.values())):
        headers = {_PREFIX + name: value for name, value in attributes.items()}
        if (content_type := headers.pop(_OWN_TYPE, None)) is not None:
            headers[_CONTENT_TYPE] = content_type
        return headers
    headers = {
        _PREFIX + name: encode_value(value).decode("ascii")
        for name, value in attributes.items()
        if name != "datacontenttype"
    }
    content_type = attributes.get("datacontenttype")
    if content_type is not None:
        if _PLAIN_TYPE.match(content_type):
            headers[_CONTENT_TYPE] = content_type
        else:  # a header can't carry it as it is
            headers[_OWN_TYPE] = encode_value(content_type).decode("ascii")
    return headers


def event_of(lines: bytes, payload: bytes) -> WireEvent:
    """The event of a message with these header lines."""
    attributes: dict[str, str] = {}
    for header, colon, value in header_lines(lines):
        name = _ATTRIBUTES.get(header) or _attribute(header.strip(BLANKS))
        if name and colon:
            text = value.strip(BLANKS)
            if "%" in text and header.strip(BLANKS) != _CONTENT_TYPE:
                text = unquote_to_bytes(text).decode("utf-8", "replace")
            attributes[name] = text
    return WireEvent(attributes, payload if payload or says_data(attributes) else None)


def _attribute(header: str) -> str:
    """The attribute that a header carries; empty if it carries none."""
    if header == _CONTENT_TYPE:
        return "datacontenttype"
    return header[len(_PREFIX) :] if header.startswith(_PREFIX) else ""


def size_bytes(headers: Mapping[str, str], payload: bytes | None) -> int:
    """What a message counts against the server's ``max_payload``."""
    lines = sum(map(len, headers)) + sum(map(len, headers.values())) + 4 * len(headers)
    return len("NATS/1.0\r\n") + lines + 2 + len(payload or b"")


def stored_of_delivery(stream: str, full_subject: str, reply: str, event: WireEvent) -> tuple[Stored, int]:
    """The record of ``event`` and its attempt, by the message of it that a consumer delivered.

    ``reply`` is ``$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<ns>.<pending>``, with
    two more tokens before the stream where there is a domain.
    """
    tokens = reply.split(".")
    if len(tokens) < 9:
        raise EventLogError(f"a delivery has the reply subject {reply!r}, which is not a consumer's")
    start = 4 if len(tokens) < 11 else 6
    attempt, sequence, nanoseconds = int(tokens[start]), int(tokens[start + 1]), int(tokens[start + 3])
    stored = Stored(_key(stream, full_subject), sequence, nanoseconds // 1000 / 1e6, event)
    return stored, attempt


def stored_of_direct(stream: str, headers: Mapping[str, str], lines: bytes, payload: bytes) -> Stored:
    """The record of a message that a direct get answered; ``headers`` are what ``lines`` say."""
    return Stored(
        _key(stream, headers["Nats-Subject"]),
        int(headers["Nats-Sequence"]),
        seconds_of(headers["Nats-Time-Stamp"]),
        event_of(lines, payload),
    )


def time_text(seconds: float) -> str:
    """A time since the epoch as RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def seconds_of(text: str) -> float:
    """A time as the server writes it, in seconds since the epoch."""
    return datetime.fromisoformat(_microseconds(text)).timestamp()


def _key(stream: str, full_subject: str) -> str:
    return full_subject[len(_SUBJECTS) + len(stream) + 2 :]


def _microseconds(text: str) -> str:
    """Go writes up to nine digits of a second, Python reads at most six."""
    return re.sub(r"(\.\d{6})\d+", r"\1", text).replace("Z", "+00:00")
