"""Long work in steps: no faster than asked, with a progress bar for people."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from torpor.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torpor.clock import Clock

_RATE = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)(?:/([smh]))?\Z")
_PER_SECOND = {None: 1, "s": 1, "m": 60, "h": 3600}
_STEPS_PER_SECOND = 10
T = TypeVar("T")


def parse_rate(text: str) -> float:
    """How many a second ``text`` allows, such as ``20/s`` or ``600/m``.

    Raises :class:`ValueError` that says what was expected.
    """
    match = _RATE.match(text)
    if match is None or not float(match[1]):
        raise ValueError(f"{text!r} is no rate: one such as 20/s or 600/m was expected")
    return float(match[1]) / _PER_SECOND[match[2]]


def _parse_rate(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else parse_rate(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


rate_option: Callable[[Any], Any] = click.option(
    "--rate", metavar="N/s", callback=_parse_rate, help="At most so many a second, such as 20/s or 600/m."
)
"""The option of verbs that may overrun others; its value comes as ``rate``, in items a second."""


def steps(items: Sequence[T], rate: float | None, most: int) -> list[Sequence[T]]:
    """``items`` in their order, in parts of ``most`` at most, small enough that ``rate`` is kept evenly."""
    size = most if rate is None else max(1, min(most, int(rate / _STEPS_PER_SECOND)))
    return [items[start : start + size] for start in range(0, len(items), size)]


def paced(
    parts: Sequence[Sequence[T]], rate: float | None, label: str, *, clock: Clock | None = None
) -> Iterator[Sequence[T]]:
    """Each of ``parts`` when it may be begun, ``rate`` items a second; shows how far it is on stderr."""
    clock = clock or SystemClock()
    began, done = clock.monotonic(), 0
    total = sum(map(len, parts))
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=total, label=label, show_pos=True, hidden=hidden, file=sys.stderr) as bar:
        for part in parts:
            if rate is not None:
                wait_seconds = began + done / rate - clock.monotonic()
                if wait_seconds > 0:
                    asyncio.run(clock.sleep(wait_seconds))
            yield part
            done += len(part)
            bar.update(len(part))


@contextlib.contextmanager
def read_bar(file: IO[bytes] | None, label: str) -> Iterator[Callable[[], None]]:
    """A bar on stderr of how much of ``file`` was read, brought up to date by what is given.

    Shown to people alone, and only where the file says how large it is.
    """
    total_bytes = 0
    if file is not None and sys.stderr.isatty():
        with contextlib.suppress(OSError, ValueError):
            total_bytes = os.fstat(file.fileno()).st_size if file.seekable() else 0
    with click.progressbar(length=total_bytes, label=label, hidden=not total_bytes, file=sys.stderr) as bar:

        def so_far() -> None:
            if file is not None and total_bytes:
                bar.update(file.tell() - bar.pos)

        yield so_far
