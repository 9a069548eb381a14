"""A trigger's filters in one short line, as people read them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torpor.spec.models import Filter

_MOST_CHARACTERS = 120


def in_short(filters: Sequence[Filter]) -> str:
    """What an event must meet, such as ``type=image.* and not (subject=a)``; ``*`` stands for any text."""
    text = " and ".join(map(_one, filters)) or "every event"
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."


def _one(item: Filter) -> str:
    if item.sql is not None:
        return f"({item.sql})"
    if item.all is not None:
        return " and ".join(map(_one, item.all))
    if item.any is not None:
        return f"({' or '.join(map(_one, item.any))})"
    if item.not_ is not None:
        return f"not ({_one(item.not_)})"
    return " and ".join(_texts(item))


def _texts(item: Filter) -> Iterator[str]:
    for texts, form in ((item.exact, "{}={}"), (item.prefix, "{}={}*"), (item.suffix, "{}=*{}")):
        for name, text in (texts or {}).items():
            yield form.format(name, text)
