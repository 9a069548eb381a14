"""Paths into an event's JSON data, as keys of filters have them: ``data.order.items.0.sku``. Pure."""

from __future__ import annotations

import re

PREFIX = "data."
MAX_LENGTH = 256
"""Most characters of a path."""
MAX_SEGMENTS = 16
"""Most members that a path goes through."""

_SEGMENT = r"([^.\\]|\\[.\\])+"
PATTERN = rf"data([.]{_SEGMENT})+"
"""A path, for Python as for Go and JSON schemas; in a member's name, dots and backslashes have one before."""
_PATH = re.compile(PATTERN + r"\Z", re.DOTALL)
_SPLIT = re.compile(_SEGMENT, re.DOTALL)
_ESCAPED = re.compile(r"\\([.\\])")


def is_path(key: str) -> bool:
    """Whether ``key`` of a filter leads into the data; else it names an attribute."""
    return key.startswith(PREFIX)


def segments(path: str) -> tuple[str, ...]:
    """The names of members, or indexes of lists, that ``path`` goes through.

    Raises ``ValueError`` for what is no path.
    """
    if len(path) > MAX_LENGTH or not _PATH.match(path):
        raise ValueError(f"{path!r} is no path")
    found = tuple(_ESCAPED.sub(r"\1", match[0]) for match in _SPLIT.finditer(path, len(PREFIX)))
    if len(found) > MAX_SEGMENTS:
        raise ValueError(f"{path!r} has more than {MAX_SEGMENTS} members")
    return found
