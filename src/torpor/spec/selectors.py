"""Which events a person wants to see: ``NAME=PATTERN`` on one attribute, where ``*`` stands for any text.

This narrows what is shown and decides nothing: what a trigger delivers is decided by its own filters. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_FILTERS = 16
MAX_LENGTH = 512
FORM = "^[a-z0-9]+="
"""How a filter begins, as a regular expression of JSON Schema."""
_NAME = re.compile(r"[a-z0-9]+\Z")


@dataclass(frozen=True, slots=True)
class AttributeFilter:
    """One condition: the attribute ``name`` is there and matches ``pattern`` as a whole."""

    name: str
    pattern: str

    def matches(self, attributes: Mapping[str, str]) -> bool:
        """Whether an event with ``attributes`` meets the condition."""
        value = attributes.get(self.name)
        return value is not None and matches(self.pattern, value)


def parse(texts: Sequence[str]) -> tuple[AttributeFilter, ...]:
    """The filters that ``texts`` write down, such as ``type=image.*``.

    Raises :class:`ValueError` that says what is wrong with which.
    """
    if len(texts) > MAX_FILTERS:
        raise ValueError(f"{len(texts)} filters are given, {MAX_FILTERS} are the most")
    return tuple(_parse_one(text) for text in texts)


def _parse_one(text: str) -> AttributeFilter:
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a filter has {len(text)} characters, {MAX_LENGTH} are the most")
    name, equals, pattern = text.partition("=")
    if not equals or not _NAME.match(name):
        raise ValueError(
            f"filter {text[:80]!r} is not ATTRIBUTE=PATTERN, such as type=image.*, with an attribute's name"
            " in lower-case letters and digits"
        )
    return AttributeFilter(name, pattern)


def matches(pattern: str, value: str) -> bool:
    """Whether the whole of ``value`` matches ``pattern``, in which ``*`` stands for any text, also for none.

    Takes the first place for each literal part, which is enough and never backtracks.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return value == pattern
    *middle, last = rest
    if len(first) + len(last) > len(value) or not value.startswith(first) or not value.endswith(last):
        return False
    position, end = len(first), len(value) - len(last)
    for part in middle:
        found = value.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True
