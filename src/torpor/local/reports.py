"""What a platform tells the person who started it: a few kinds of news, each with its words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class News(StrEnum):
    """What kind of thing happened."""

    READY = "ready"
    """The platform is up; the subject is its URL."""
    APPLIED = "applied"
    """A function is declared, or changed, and would run."""
    STARTING = "starting"
    """A function takes long to start."""
    REMOVED = "removed"
    """A function, or a trigger, is not declared any more."""
    BROKEN = "broken"
    """A function can't run as it is now."""
    FAULT = "fault"
    """Something is wrong with what is declared; nothing was changed."""
    LOADED = "loaded"
    """Declarations were taken over."""
    SCALED = "scaled"
    """A function has another number of instances."""
    PART = "part"
    """A part of the platform ended, or is back."""
    STOPPING = "stopping"
    """The platform ends."""


@dataclass(frozen=True, slots=True)
class Report:
    """One piece of news: what it is about (a function's key, a part, a file), and what there is to say."""

    news: News
    subject: str
    text: str


Tell = Callable[[Report], None]
"""Who is told."""
