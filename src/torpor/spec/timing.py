"""The kinds of value that schedules have: cron expressions, time zones, and what an event says. Pure.

Checks raise as those of :mod:`torpor.spec.values` do.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from torpor.spec.cron import (
    DAYS,
    MAX_CRON_LENGTH,
    MAX_ZONE_LENGTH,
    MONTHS,
    NICKNAMES,
    Cron,
    CronError,
    is_zone,
    zones,
)
from torpor.spec.faults import did_you_mean
from torpor.spec.values import fault, shown

MAX_DATA_BYTES = 64 * 1024
"""Most data of a scheduled event, as JSON."""
MAX_DATA_LEVELS = 32
"""How deeply it may be nested."""
MAX_TEXT_LENGTH = 1024
MAX_ATTRIBUTE_BYTES = 8 * 1024
"""Most of what a scheduled event's attributes may have together, as they travel."""
# CloudEvents 1.0.2, section 3.1; each of them has a field of its own, or is the platform's to set.
RESERVED_ATTRIBUTES = (
    *("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"),
    "data",
)
_NICKNAMES = "|".join(name[1:] for name in NICKNAMES)
CRON_PATTERN = rf"^(@({_NICKNAMES})|[^@\s]\S*(\s+\S+){{4,5}})$"
ZONE_PATTERN = "^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$"
CONTENT_TYPE_PATTERN = r"^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+( *;[ -~]*)?$"
_CONTENT_TYPE = re.compile(CONTENT_TYPE_PATTERN[1:-1] + r"\Z")
# RFC 3986, appendix A, but that an address in brackets is not looked into. First what has such an address,
# then what has a scheme, then a relative path, whose first part has no colon.
_SAFE = "[A-Za-z0-9._~!$&'()*+,;={0}-]|%[0-9A-Fa-f][0-9A-Fa-f]"
_ALL = f"({_SAFE.format('@:/')})*"
_SCHEME = "[A-Za-z][A-Za-z0-9+.-]*:"
_ADDRESS = rf"//(({_SAFE.format(':')})*@)?\[[0-9A-Fa-f:.]+\](:[0-9]*)?"
_REST = f"({_SAFE.format('@:/?')})*"
URI_REFERENCE_PATTERN = (
    rf"^(({_SCHEME})?{_ADDRESS}(/{_ALL})?|{_SCHEME}{_ALL}|({_SAFE.format('@')})*(/{_ALL})?)"
    rf"(\?{_REST})?(#{_REST})?$"
)
_URI_REFERENCE = re.compile(URI_REFERENCE_PATTERN[1:-1] + r"\Z")
_ATTRIBUTE = re.compile(r"[a-z0-9]+\Z")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def _cron(value: str) -> str:
    text = value.strip()
    try:
        Cron(text)
    except CronError as error:
        near = _near(text, error)
        hint = f"; did you mean '{near}'?" if near else ""
        raise fault(f"{_subject(value)}{error}{hint}") from None
    return text


def _subject(value: str) -> str:
    return f"is {shown(value)}, which " if len(value) <= MAX_CRON_LENGTH else ""


def _near(text: str, error: CronError) -> str | None:
    if text.startswith("@"):
        return did_you_mean(text, NICKNAMES)
    names = {"month": MONTHS, "day-of-week": DAYS}.get(error.field, ())
    return did_you_mean(error.text, names) if error.text.isalpha() else None


def _zone(value: str) -> str:
    if is_zone(value):
        return value
    near = did_you_mean(value, zones()) or did_you_mean(
        value, {name.rpartition("/")[2]: name for name in zones()}
    )
    hint = f"; did you mean '{_whole(near)}'?" if near else ""
    raise fault(f"is {shown(value)}, a time zone such as Europe/Berlin was expected{hint}")


def _whole(name: str) -> str:
    """A zone's whole name, by its last part."""
    if is_zone(name):
        return name
    return min(zone for zone in zones() if zone.endswith(f"/{name}"))


def _text(value: str) -> str:
    if not value:
        raise fault("is empty, a text of one or more characters was expected")
    if len(value) > MAX_TEXT_LENGTH:
        raise fault(f"has {len(value)} characters, at most {MAX_TEXT_LENGTH} were expected")
    if _CONTROL.search(value):
        raise fault(f"is {shown(value)}, a text without control characters was expected")
    return value


def _source(value: str) -> str:
    if not _URI_REFERENCE.match(_text(value)):
        raise fault(f"is {shown(value)}, a URI-reference such as /shop or https://shop.example was expected")
    return value


def _content_type(value: str) -> str:
    if len(value) > MAX_TEXT_LENGTH or not _CONTENT_TYPE.match(value):
        raise fault(f"is {shown(value)}, a media type such as text/plain was expected")
    return value


def _extension(value: str) -> str:
    if not _ATTRIBUTE.match(value):
        raise fault(
            f"is {shown(value)}, an event attribute's name in lower-case letters and digits was expected"
        )
    if value in RESERVED_ATTRIBUTES:
        raise fault(f"is {shown(value)}, which is no extension: the name of one was expected")
    return value


def _data(value: object) -> object:
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        raise fault(f"is {shown(value)}, a value that JSON can have was expected") from None
    _check_size(len(text.encode("utf-8", "surrogatepass")))
    if (levels := _levels(value)) > MAX_DATA_LEVELS:
        raise fault(f"is nested {levels} levels deep, at most {MAX_DATA_LEVELS} were expected")
    return value


def _levels(value: object) -> int:
    if not isinstance(value, dict | list):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(_levels, inner), default=0)


def _data_text(value: str) -> str:
    _check_size(len(value.encode("utf-8", "surrogatepass")))
    return value


def _check_size(size_bytes: int) -> None:
    if size_bytes > MAX_DATA_BYTES:
        raise fault(
            f"has {size_bytes} bytes, at most {MAX_DATA_BYTES} were expected: store more as a blob, and"
            " give its address as the extension dataref"
        )


def _schema(pattern: str, most: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "maxLength": most})


CronText = Annotated[str, AfterValidator(_cron), _schema(CRON_PATTERN, MAX_CRON_LENGTH)]
ZoneName = Annotated[str, AfterValidator(_zone), _schema(ZONE_PATTERN, MAX_ZONE_LENGTH)]
EventText = Annotated[
    str,
    AfterValidator(_text),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_TEXT_LENGTH}),
]
SourceText = Annotated[
    str,
    AfterValidator(_source),
    WithJsonSchema(
        {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_LENGTH, "pattern": URI_REFERENCE_PATTERN}
    ),
]
ContentType = Annotated[str, AfterValidator(_content_type), _schema(CONTENT_TYPE_PATTERN, MAX_TEXT_LENGTH)]
ExtensionName = Annotated[
    str, AfterValidator(_extension), WithJsonSchema({"type": "string", "pattern": "^[a-z0-9]+$"})
]
JsonData = Annotated[Any, BeforeValidator(_data), WithJsonSchema({})]
DataText = Annotated[
    str, AfterValidator(_data_text), WithJsonSchema({"type": "string", "maxLength": MAX_DATA_BYTES})
]
