"""What filters ask of an event: its attributes and, by paths, its JSON data. Pure.

Data is parsed once at most, when a filter first asks for it. What is not there has no text, and a reason.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from torpor.binding import is_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torpor.binding import WireEvent

MAX_DATA_BYTES = 1024 * 1024
"""Largest data that filters look into."""

_INDEX = re.compile(r"(0|[1-9][0-9]{0,8})\Z")
_NOTHING: Final = object()
_parse = orjson.loads


class Facts(Protocol):
    """The texts of one event, by name or path; a dictionary of attributes is one."""

    def get(self, name: str, /) -> str | None:
        """The text of ``name``; ``None`` where the event has none."""
        ...


class EventFacts:
    """The attributes of ``event``, and what ``paths`` (the segments of each, by key) lead to in its data."""

    __slots__ = ("_document", "_event", "_paths", "_problem")

    def __init__(self, event: WireEvent, paths: Mapping[str, tuple[str, ...]]) -> None:
        self._event = event
        self._paths = paths
        self._document: Any = None
        self._problem: str | None = None

    def get(self, name: str, /) -> str | None:
        """The text of an attribute, or of the value in the data that a path leads to."""
        path = self._paths.get(name)
        if path is None:
            return self._event.attributes.get(name)
        value = self._find(path)
        return None if value is _NOTHING else text_of(value)

    def absence(self, name: str) -> str:
        """Why there is no text of ``name``, for people."""
        path = self._paths.get(name)
        if path is None:
            return f"{name} is missing"
        value = self._find(path)
        if self._problem:
            return f"{name} is not looked for: {self._problem}"
        if isinstance(value, dict):
            return f"{name} is an object"
        return f"{name} is a list" if isinstance(value, list) else f"{name} is missing"

    def _find(self, path: tuple[str, ...]) -> Any:
        if self._problem is None:
            self._document, self._problem = _load(self._event)
        value = self._document
        for segment in path:
            if isinstance(value, dict):
                value = value.get(segment, _NOTHING)
            elif isinstance(value, list) and _INDEX.match(segment) and int(segment) < len(value):
                value = value[int(segment)]
            else:
                return _NOTHING
        return value


def _load(event: WireEvent) -> tuple[Any, str]:
    """The data of ``event``, and in words why there is none; no words when there is."""
    data = event.data
    if data is None:
        where = "the data is elsewhere (dataref)" if "dataref" in event.attributes else "there is no data"
        return _NOTHING, where
    content_type = event.attributes.get("datacontenttype")
    if not is_json(content_type):
        return _NOTHING, f"the data is {content_type}, not JSON"
    if len(data) > MAX_DATA_BYTES:
        return _NOTHING, f"the data has {len(data):,} bytes, at most {MAX_DATA_BYTES:,} are looked into"
    try:
        return _parse(data), ""
    except orjson.JSONDecodeError:
        return _NOTHING, "the data is not valid JSON"


def text_of(value: Any) -> str | None:
    """What ``value`` of a JSON document is compared as; ``None`` for objects and lists.

    A text as it is; whole numbers as their digits; any other value as the JSON Canonicalization Scheme
    (RFC 8785, section 3.2.2) writes it, so that ``1.50`` is ``1.5``, and ``1.0`` is ``1``.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return _number(value) if isinstance(value, float) else None


def _number(value: float) -> str:
    """``value`` as ECMAScript's ``Number::toString`` writes it, by which RFC 8785 goes."""
    if value == 0:
        return "0"
    _, digits, exponent = Decimal(repr(abs(value))).normalize().as_tuple()
    text, point = "".join(map(str, digits)), len(digits) + int(exponent)
    sign = "-" if value < 0 else ""
    if 0 < point <= 21:
        whole, rest = text[:point].ljust(point, "0"), text[point:]
        return f"{sign}{whole}.{rest}" if rest else sign + whole
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{text}"
    mantissa = f"{text[0]}.{text[1:]}" if len(text) > 1 else text
    return f"{sign}{mantissa}e{point - 1:+d}"
