"""Patterns of ``LIKE`` (section 3.4.3): ``%`` is any text, ``_`` any character. Pure.

The parts between ``%`` are sought one after the other, each where it first fits: that takes no backtracking,
which one regular expression for a whole pattern would.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_PIECE: Final = re.compile(r"\\[%_]|.", re.DOTALL)


def pattern(text: str) -> Callable[[str], bool]:
    """What says whether a value is like the pattern ``text``."""
    parts: list[list[str]] = [[]]
    for piece in _PIECE.findall(text):
        if piece == "%":
            parts.append([])
        else:
            parts[-1].append(piece)
    if len(parts) > 2 or any("_" in part for part in parts):
        return _general(parts)
    return _plain(*("".join(piece[-1] for piece in part) for part in parts))


def _plain(first: str, last: str | None = None) -> Callable[[str], bool]:
    """The frequent ones: a text, its start, its end, or both."""
    if last is None:
        return lambda value: value == first
    if not last:
        return lambda value: value.startswith(first)
    least = len(first) + len(last)
    return lambda value: len(value) >= least and value.startswith(first) and value.endswith(last)


def _general(parts: list[list[str]]) -> Callable[[str], bool]:
    first, *inner = (
        re.compile("".join("." if piece == "_" else re.escape(piece[-1]) for piece in part), re.DOTALL)
        for part in parts
    )
    if not inner:
        return lambda value: first.fullmatch(value) is not None
    last, least = inner.pop(), len(parts[-1])

    def fits(value: str) -> bool:
        match = first.match(value)
        for expression in inner:
            if match is None:
                return False
            match = expression.search(value, match.end())
        start = len(value) - least
        return match is not None and start >= match.end() and last.fullmatch(value, start) is not None

    return fits
