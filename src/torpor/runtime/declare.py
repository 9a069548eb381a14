"""``@function``: marks a handler. It stays the plain function that it is, so that a test can call it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable

_MARK = "__torpor_function__"

_Handler = TypeVar("_Handler", bound="Callable[..., Any]")


@dataclass(frozen=True, slots=True)
class Mark:
    """What an author said of a handler. ``emits`` is the type of the events that its plain values become."""

    emits: str | None = None


@overload
def function(handler: _Handler, /) -> _Handler: ...


@overload
def function(*, emits: str | None = None) -> Callable[[_Handler], _Handler]: ...


def function(handler: _Handler | None = None, /, *, emits: str | None = None) -> Any:
    """Make a handler the function of its module: ``@function`` or ``@function(emits="image.tile")``.

    The annotation of its first parameter says what it gets: a ``CloudEvent``, the event's data (a pydantic
    model, a dataclass, a dict, or any other type that pydantic validates), ``bytes``, ``str``, a ``list`` of
    those for a batch or a joined group, or Starlette's ``Request``. A parameter ``ctx: Context`` is optional.

    What it returns becomes an event of the type ``emits`` (default: ``<name>.replied``), unless it is an
    event already or ``None``; what it yields becomes a group of events.
    """
    given: object = emits
    if given is not None and not (isinstance(given, str) and given.strip() and given.isprintable()):
        raise TypeError(f"emits is {emits!r}, the type of an event, such as 'image.tile', was expected")
    if handler is None:
        return lambda marked: _mark(marked, Mark(emits))
    return _mark(handler, Mark(emits))


def _mark(handler: _Handler, mark: Mark) -> _Handler:
    given: object = handler
    if not callable(given) or inspect.isclass(given):
        raise TypeError(f"@function marks functions, and {handler!r} is none")
    setattr(handler, _MARK, mark)
    return handler


def mark_of(value: object) -> Mark | None:
    """What ``@function`` said of ``value``; ``None`` when it is not marked."""
    mark = getattr(value, _MARK, None)
    return mark if isinstance(mark, Mark) else None
