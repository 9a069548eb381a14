"""A stream that a person watches goes on after it broke off, until they end it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from torpor.clock import SystemClock
from torpor.errors import RefusedError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from contextlib import AbstractContextManager

    from torpor.clock import Clock

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_STEADY_SECONDS = 30.0  # what held this long is opened again after the first pause
_AGAIN = "The stream goes on; what came in between may be missing."
T = TypeVar("T")


def resumed(
    connect: Callable[[], AbstractContextManager[Iterator[T]]],
    tell: Callable[[str], None],
    *,
    begun: str = "",
    clock: Clock | None = None,
) -> Generator[T]:
    """What comes by the stream that ``connect`` opens, opened again with a growing pause when it breaks off.

    ``tell`` is given the sentence ``begun`` at first, one when it breaks off, and one when it goes on. Raises
    what ``connect`` raises at first, and later what no pause mends.
    """
    clock = clock or SystemClock()
    sentence, pause_seconds = begun, _FIRST_PAUSE_SECONDS
    is_first = True
    while True:
        opened = None
        cause = "the platform ended it"
        try:
            with connect() as stream:
                opened = clock.monotonic()
                if sentence:
                    tell(sentence)
                sentence, is_first = _AGAIN, False
                yield from stream
        except (UnreachableError, RefusedError) as error:
            if is_first or not _passes(error):
                raise
            cause = str(error)
        if opened is not None:
            tell(f"The stream broke off: {cause}; it is tried again until Ctrl-C")
            if clock.monotonic() - opened > _STEADY_SECONDS:
                pause_seconds = _FIRST_PAUSE_SECONDS
        asyncio.run(clock.sleep(pause_seconds))
        pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)


def _passes(error: UnreachableError | RefusedError) -> bool:
    """Whether it may be over in a moment, as while a part of the platform is started again."""
    return not isinstance(error, RefusedError) or error.status >= 500
