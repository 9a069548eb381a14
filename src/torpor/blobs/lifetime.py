"""How long blobs are kept. Pure.

A blob that was not stored again for a time, and that nothing names, is set aside; while it is, it can be read
all the same. It is removed when still nothing names it after another, shorter time. Whatever names it by then
brings it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Container

    from torpor.blobs.base import Kept

ASIDE_SECONDS = 3600.0
"""Longer than anything takes from storing a blob to having the event that names it in the log."""
Step = Literal["set aside", "bring back", "remove"]


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The rule. ``ttl_seconds`` is more than zero."""

    ttl_seconds: float

    def is_due(self, kept: Kept, now: float) -> bool:
        """Whether something may have to be done with a blob, by what names it."""
        return kept.since < now - (min(ASIDE_SECONDS, self.ttl_seconds) if kept.aside else self.ttl_seconds)

    def step(self, kept: Kept, named: Container[str]) -> Step | None:
        """What is to be done with a blob that is due."""
        if kept.name in named:
            return "bring back" if kept.aside else None
        return "remove" if kept.aside else "set aside"
