"""Groups of a fan-out, and how one is nested in another. Pure.

What one call yields is a group. Each part says where it stands in extension attributes:

``fanoutid``
    The group: made from the id of the event that was split (:mod:`torpor.runtime.replies` says how).
``fanoutindex``, ``fanoutsize``
    Which part it is, from 0, and how many there are.
``fanoutouter``
    The groups that this one is nested in, the nearest first, joined by commas, each as ``index.size.id`` with
    the id percent-encoded. It is missing in a group that is nested in none.

A single reply keeps them all, so a group survives any number of steps. A split puts its input's place in
front of ``fanoutouter``; a join takes it off again.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from torpor.errors import MalformedEventError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ID, INDEX, SIZE, OUTER = "fanoutid", "fanoutindex", "fanoutsize", "fanoutouter"
ATTRIBUTES = (ID, INDEX, SIZE, OUTER)

MAX_DEPTH = 16
"""Most groups within each other."""
MAX_PARTS = 10_000
"""Most parts of one group."""

_NUMBER = re.compile(r"[0-9]{1,9}\Z")


def kept(attributes: Mapping[str, str]) -> dict[str, str]:
    """What a single reply to an event with these ``attributes`` keeps."""
    return {name: attributes[name] for name in ATTRIBUTES if name in attributes}


def outer_of_parts(attributes: Mapping[str, str]) -> str | None:
    """``fanoutouter`` for the parts that an event with these ``attributes`` is split into.

    Raises :class:`ValueError` when there would be more than ``MAX_DEPTH`` groups within each other.
    """
    outer = attributes.get(OUTER)
    if not in_group(attributes):
        return outer
    place = f"{attributes[INDEX]}.{attributes[SIZE]}.{quote(attributes[ID])}"
    if outer and outer.count(",") + 3 > MAX_DEPTH:
        raise ValueError(f"groups are nested more than {MAX_DEPTH} deep")
    return f"{place},{outer}" if outer else place


def part(group: str, index: int, size: int, outer: str | None) -> dict[str, str]:
    """The attributes of one part."""
    attributes = {ID: group, INDEX: str(index), SIZE: str(size)}
    if outer:
        attributes[OUTER] = outer
    return attributes


def in_group(attributes: Mapping[str, str]) -> bool:
    """Whether an event is part of a group, with all that says which."""
    return (
        bool(attributes.get(ID))
        and _NUMBER.match(attributes.get(INDEX, "")) is not None
        and _NUMBER.match(attributes.get(SIZE, "")) is not None
    )


def joined(parts: Sequence[Mapping[str, str]]) -> str | None:
    """The one group that all of ``parts`` (attributes of events) belong to, if there is one."""
    if not parts or not all(in_group(attributes) for attributes in parts):
        return None
    group = parts[0][ID]
    return group if all(attributes[ID] == group for attributes in parts) else None


def restored(attributes: Mapping[str, str]) -> dict[str, str]:
    """The place of a joined group in the one it was nested in; ``attributes`` are those of one of its parts.

    Raises :class:`~torpor.errors.MalformedEventError`.
    """
    outer = attributes.get(OUTER)
    if not outer:
        return {}
    nearest, _, rest = outer.partition(",")
    index, _, remainder = nearest.partition(".")
    size, _, group = remainder.partition(".")
    place = part(unquote(group), 0, 0, rest or None)
    place[INDEX], place[SIZE] = index, size
    if not in_group(place):
        raise MalformedEventError(f"attribute '{OUTER}' is {outer[:80]!r}, 'index.size.id,...' was expected")
    return place
