"""CloudEvents 1.0.2 over HTTP: binary, structured and batch, in and out.

The platform handles events as :class:`WireEvent`: attributes as the text they have on the wire, data as
bytes. That is all that routing, storing and delivering need, and it never changes an event that it only
passes on. The SDK's ``CloudEvent`` is what handlers see; :func:`to_sdk` and :func:`from_sdk` lead there and
back, and the tests hold this codec against the SDK's.

Sources: CloudEvents 1.0.2 (core), its JSON event format, and its HTTP protocol binding.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

import orjson
from cloudevents.core.v1.event import CloudEvent

from torpor.errors import MalformedEventError

if TYPE_CHECKING:
    from collections.abc import Iterable

Headers = list[tuple[bytes, bytes]]

STRUCTURED = b"application/cloudevents+json"
BATCH = b"application/cloudevents-batch+json"
_REQUIRED = ("specversion", "id", "source", "type")
_NAME = re.compile(r"[a-z0-9]+\Z")
# RFC 3339, section 5.6; the time zone is not optional.
_TIME = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])[Tt]([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?"
    r"([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)\Z"
)
_JSON_TYPE = re.compile(r"(?:[^/;\s]+/(?:[^/;\s]+\+)?json|text/json)\s*(?:;.*)?\Z", re.IGNORECASE)
# HTTP binding 3.1.3.2: printable ASCII goes as it is, but for space, double quote and percent.
_PLAIN = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '"%')
USUAL_HEADERS = {
    b"content-type": "datacontenttype",
    **{
        f"ce-{name}".encode(): name
        for name in (
            *_REQUIRED,
            *("subject", "time", "dataschema", "dataref", "partitionkey", "traceparent", "tracestate"),
            *("fanoutid", "fanoutindex", "fanoutsize", "fanoutouter", "knativebrokerttl"),
        )
    },
}
"""Headers of attributes that nearly all events have, and those; their names need no check."""
USUAL_NAMES = frozenset(USUAL_HEADERS.values())


class _HeaderNames(dict[str, bytes]):
    """The header of each attribute; those that are not usual are not kept."""

    def __missing__(self, name: str) -> bytes:
        return b"ce-" + name.encode()


_HEADERS = _HeaderNames({name: header for header, name in USUAL_HEADERS.items()})
_MAX_LEVELS = 254  # orjson reads more than it writes
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class WireEvent(NamedTuple):
    """An event as it travels: textual attributes (``datacontenttype`` among them) and the data's bytes.

    ``data`` is ``None`` where there is none; the empty bytes are data of no length.
    """

    attributes: dict[str, str]
    data: bytes | None

    @property
    def id(self) -> str:
        """The ``id`` attribute; empty for an event that is not valid and has none."""
        return self.attributes.get("id", "")

    @property
    def source(self) -> str:
        """The ``source`` attribute; empty for an event that is not valid and has none."""
        return self.attributes.get("source", "")

    @property
    def type(self) -> str:
        """The ``type`` attribute; empty for an event that is not valid and has none."""
        return self.attributes.get("type", "")

    def replace(self, *, data: bytes | None = None, **attributes: str) -> WireEvent:
        """This event with other data and with ``attributes`` added or changed."""
        return WireEvent({**self.attributes, **attributes}, self.data if data is None else data)


def is_json(content_type: str | None) -> bool:
    """Whether data of ``content_type`` is JSON; it is when no type is given (JSON format, section 3.1)."""
    return content_type is None or _JSON_TYPE.match(content_type) is not None


def media_type(content_type: bytes) -> bytes:
    """``content_type`` without its parameters, in lower case."""
    return content_type.partition(b";")[0].strip().lower()


def validate(attributes: dict[str, str]) -> None:
    """Check attributes against CloudEvents 1.0.2, section 3.

    Raises :class:`~torpor.errors.MalformedEventError` that names the first attribute at fault.
    """
    if attributes.keys() <= USUAL_NAMES and is_usual(attributes, "".join(attributes.values())):
        return
    for name in _REQUIRED:
        if not attributes.get(name):
            state = "is empty" if name in attributes else "is missing"
            raise MalformedEventError(
                f"attribute '{name}' {state}, a text of one or more characters was expected"
            )
    if attributes["specversion"] != "1.0":
        raise MalformedEventError(
            f"attribute 'specversion' is {attributes['specversion']!r}, '1.0' was expected"
        )
    for name, value in attributes.items():
        if not _NAME.match(name):
            raise MalformedEventError(f"attribute name {name!r} is not of lower-case letters and digits")
        if name == "data":
            raise MalformedEventError("'data' can't be the name of an attribute")
        if not value.isprintable() and _CONTROL.search(value):
            raise MalformedEventError(f"attribute '{name}' has a control character")
    _validate_optional(attributes)


def is_valid(event: WireEvent) -> bool:
    """Whether :func:`validate` has nothing against the event."""
    try:
        validate(event.attributes)
    except MalformedEventError:
        return False
    return True


def _validate_optional(attributes: dict[str, str]) -> None:
    time = attributes.get("time")
    if time is not None and not _is_time(time):
        raise MalformedEventError(f"attribute 'time' is {time!r}, an RFC 3339 time with a zone was expected")
    for name in ("subject", "dataschema", "datacontenttype"):
        if attributes.get(name) == "":
            raise MalformedEventError(f"attribute '{name}' is empty; leave it out or give it a value")


def _is_time(value: str) -> bool:
    if not _TIME.match(value):
        return False
    if value[8:10] <= "28" and value[:4] != "0000":
        return True  # a day that every month has, and a year that a datetime has
    try:
        _parse_time(value)
    except ValueError:
        return False
    return True


def _parse_time(value: str) -> datetime:
    if ":60" in value:  # a leap second, which a datetime can't hold
        value = value.replace(":60", ":59")
    return datetime.fromisoformat(value if value.isupper() else value.upper())


# --- from the wire ----------------------------------------------------------------------------------------


def decode(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> list[WireEvent] | None:
    """The events of one HTTP message, whatever its mode; ``None`` when it is not a CloudEvent at all.

    ``headers`` are pairs with lower-case names, as ASGI has them.
    Raises :class:`~torpor.errors.MalformedEventError`.
    """
    pairs = headers if isinstance(headers, list) else list(headers)
    is_binary, mode = False, None
    for name, value in pairs:
        if name[:3] == b"ce-":
            is_binary = True
        elif name == b"content-type" and mode is None:
            mode = media_type(value)
            if mode == STRUCTURED:
                return [decode_structured(body)]
            if mode == BATCH:
                return decode_batch(body)
    return [decode_binary(pairs, body)] if is_binary else None


def decode_binary(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> WireEvent:
    """The event of a message in binary mode (HTTP binding, section 3.1)."""
    pairs = headers if isinstance(headers, list) else list(headers)
    attributes = _usual(pairs)
    if attributes is None:
        attributes = _unusual(pairs)
        validate(attributes)
    return WireEvent(attributes, body if body or says_data(attributes) else None)


def says_data(attributes: dict[str, str]) -> bool:
    """Whether a message without a body has data of no length, and not no data.

    With ``dataref`` the content type is that of the data elsewhere (extension "Dataref").
    """
    return "datacontenttype" in attributes and "dataref" not in attributes


def _usual(headers: list[tuple[bytes, bytes]]) -> dict[str, str] | None:
    """The attributes where all have known names and plain values, the short way; ``None`` where not."""
    attributes: dict[str, str] = {}
    count = 0
    for name, value in headers:
        key = USUAL_HEADERS.get(name)
        if key is not None:
            attributes[key] = value.decode("latin-1")
            count += 1
        elif name[:3] == b"ce-":
            return None
    if count != len(attributes):
        return None
    values = "".join(attributes.values())
    return attributes if values.isascii() and "%" not in values and is_usual(attributes, values) else None


def is_usual(attributes: dict[str, str], values: str) -> bool:
    """Whether attributes of known names are surely valid; ``values`` are all their values together."""
    if "" in attributes.values() or not values.isprintable() or attributes.get("specversion") != "1.0":
        return False
    if "id" not in attributes or "source" not in attributes or "type" not in attributes:
        return False
    time = attributes.get("time")
    return time is None or _is_time(time)


def _unusual(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    attributes: dict[str, str] = {}
    for name, value in headers:
        if name[:3] == b"ce-":
            key = name[3:].decode("latin-1")
            if key in attributes:
                raise MalformedEventError(f"attribute '{key}' is given twice")
            attributes[key] = _decode_value(key, value)
        elif name == b"content-type":
            attributes["datacontenttype"] = value.decode("latin-1")
    return attributes


def _decode_value(name: str, value: bytes) -> str:
    try:
        if b"%" in value:
            value = unquote_to_bytes(value)
        return value.decode()
    except UnicodeDecodeError:
        raise MalformedEventError(f"attribute '{name}' is not UTF-8 after percent-decoding") from None


def decode_structured(body: bytes) -> WireEvent:
    """The event of one JSON document (JSON event format, section 3)."""
    return _from_json(_load(body))


def decode_batch(body: bytes) -> list[WireEvent]:
    """The events of a JSON array (JSON event format, section 4); it may be empty."""
    document = _load(body)
    if not isinstance(document, list):
        raise MalformedEventError("a batch must be a JSON array of events")
    events = []
    for number, item in enumerate(document, start=1):
        try:
            events.append(_from_json(item))
        except MalformedEventError as error:
            raise MalformedEventError(f"event {number} of the batch: {error}") from None
    return events


def _load(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        wrong = _wrong_byte(body)
        problem = (
            f"is not JSON: {error}" if wrong is None else f"has the byte {wrong}, UTF-8 text was expected"
        )
        raise MalformedEventError(f"the body {problem}") from None


def _wrong_byte(body: bytes) -> str | None:
    """The first byte that is not UTF-8, if there is one."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return f"0x{body[error.start]:02x}"
    return None


def _from_json(document: Any) -> WireEvent:
    if not isinstance(document, dict):
        raise MalformedEventError("an event must be a JSON object")
    given = document.copy()
    given.pop("data", None)
    given.pop("data_base64", None)
    if set(map(type, given.values())) != {str}:
        given = {name: _attribute_text(name, value) for name, value in given.items() if value is not None}
    validate(given)
    return WireEvent(given, _json_data(document, given))


def _attribute_text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    expected = "a text"
    if name not in (*_REQUIRED, "time", "subject", "dataschema", "datacontenttype"):
        expected = "a whole number of 32 bits, true, false or a text"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int) and -(2**31) <= value < 2**31:
            return str(value)
    shown = repr(value) if isinstance(value, dict | list) else orjson.dumps(value).decode()
    raise MalformedEventError(f"attribute '{name}' is {shown[:60]}, {expected} was expected")


def _json_data(document: dict[str, Any], attributes: dict[str, str]) -> bytes | None:
    if "data_base64" in document:
        if "data" in document:
            raise MalformedEventError("an event has either 'data' or 'data_base64', not both")
        try:
            return base64.b64decode(document["data_base64"], validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise MalformedEventError("'data_base64' is not base64") from None
    if "data" not in document:
        return None
    data = document["data"]
    if isinstance(data, str) and not is_json(attributes.get("datacontenttype")):
        return data.encode("utf-8", "surrogatepass")
    attributes.setdefault("datacontenttype", "application/json")
    try:
        return orjson.dumps(data)
    except TypeError:
        raise MalformedEventError(
            f"the data is nested too deeply, at most {_MAX_LEVELS} levels were expected"
        ) from None


# --- to the wire ------------------------------------------------------------------------------------------


def encode_binary(event: WireEvent) -> tuple[Headers, bytes]:
    """Headers and body of ``event`` in binary mode."""
    attributes = event.attributes
    if is_plain("".join(attributes.values())):
        headers = [(_HEADERS[name], value.encode()) for name, value in attributes.items()]
    else:
        headers = [
            (
                _HEADERS[name],
                value.encode("latin-1", "replace") if name == "datacontenttype" else encode_value(value),
            )
            for name, value in attributes.items()
        ]
    return headers, event.data or b""


def is_plain(value: str) -> bool:
    """Whether a header has an attribute's value as it is."""
    return value.isascii() and value.isprintable() and not (" " in value or "%" in value or '"' in value)


def encode_value(value: str) -> bytes:
    """An attribute's value as a header's (HTTP binding, section 3.1.3.2)."""
    if is_plain(value):
        return value.encode()
    return quote(value, safe=_PLAIN).encode()


def encode_structured(event: WireEvent) -> bytes:
    """``event`` as one JSON document of type ``application/cloudevents+json``."""
    return orjson.dumps(_to_json(event))


def encode_batch(events: Iterable[WireEvent]) -> bytes:
    """``events`` as one JSON array of type ``application/cloudevents-batch+json``."""
    return orjson.dumps([_to_json(event) for event in events])


def _to_json(event: WireEvent) -> dict[str, Any]:
    document: dict[str, Any] = dict(event.attributes)
    data = event.data
    if data is None:
        return document
    content_type = event.attributes.get("datacontenttype")
    if is_json(content_type):
        if _is_plain_json(data):
            document["data"] = orjson.Fragment(data)
        else:
            document["data_base64"] = base64.b64encode(data).decode()
        return document
    try:
        if content_type is not None and content_type.lower().startswith("text/"):
            document["data"] = data.decode()
            return document
    except UnicodeDecodeError:
        pass
    document["data_base64"] = base64.b64encode(data).decode()
    return document


def _is_plain_json(data: bytes) -> bool:
    """Whether data is JSON that can be part of a document: who reads that may have to write it again."""
    try:
        parsed = orjson.loads(data)
        if data.count(b"[") + data.count(b"{") > _MAX_LEVELS:
            orjson.dumps(parsed)
    except (orjson.JSONDecodeError, TypeError):
        return False
    return True


# --- the SDK's event --------------------------------------------------------------------------------------


def to_sdk(event: WireEvent) -> CloudEvent:
    """The SDK's event, with ``time`` as a datetime and JSON data parsed, as the SDK's own codec gives it.

    Raises :class:`~torpor.errors.MalformedEventError` when data that says it is JSON is not.
    """
    attributes: dict[str, Any] = event.attributes.copy()
    time = attributes.get("time")
    if time is not None:
        attributes["time"] = _parse_time(time)
    data: Any = event.data
    if data is not None:
        content_type = attributes.get("datacontenttype")
        if content_type == "application/json" or is_json(content_type):
            try:
                data = orjson.loads(data)
            except orjson.JSONDecodeError as error:
                raise MalformedEventError(f"the data is not JSON: {error}") from None
    # The constructor would check again what was checked on the way in, and give an event without a time the
    # time of now.
    made = CloudEvent.__new__(CloudEvent)
    made._attributes = attributes  # noqa: SLF001
    made._data = data  # noqa: SLF001
    return made


def from_sdk(event: CloudEvent) -> WireEvent:
    """The wire form of the SDK's event.

    Raises :class:`~torpor.errors.MalformedEventError` for attributes or data that have none.
    """
    attributes: dict[str, str] = {}
    for name, value in event.get_attributes().items():
        if value is None:
            continue
        if isinstance(value, datetime):
            attributes[name] = value.isoformat().replace("+00:00", "Z")
        elif isinstance(value, bool):
            attributes[name] = "true" if value else "false"
        else:
            attributes[name] = str(value)
    validate(attributes)
    data = event.get_data()
    if data is None or isinstance(data, bytes):
        return WireEvent(attributes, data)
    if isinstance(data, str) and not is_json(attributes.get("datacontenttype")):
        return WireEvent(attributes, data.encode())
    attributes.setdefault("datacontenttype", "application/json")
    try:
        return WireEvent(attributes, orjson.dumps(data))
    except TypeError as error:
        raise MalformedEventError(f"the data can't be written as JSON: {error}") from None
