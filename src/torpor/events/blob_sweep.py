"""Removes blobs that nothing names any more, by the rule of :mod:`torpor.blobs.lifetime`.

What names a blob is an event that the log keeps, in any stream: it waits, was delivered lately, is a part of
a group, or a dead letter. Its attributes and its data are looked through for names, and so is what is
declared. That costs reading the whole log (60 µs of the processor an event), and is done only when some blob
is due.

Several processes may do it at the same time.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torpor.blobs.lifetime import ASIDE_SECONDS, Lifetime
from torpor.errors import TorporError
from torpor.events import names

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from torpor.blobs import Keeper, Kept
    from torpor.blobs.lifetime import Step
    from torpor.clock import Clock
    from torpor.events.log import EventLog
    from torpor.events.stats import Stats

_LOG = logging.getLogger("torpor.blobs")
FIRST_SECONDS = 60.0
EVERY_SECONDS = 6 * 3600.0
_AT_ONCE = 50_000
"""Most blobs that are decided on together: each such lot costs reading the log."""
_NAME = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_NAME_LENGTH = 64
_IS_HEX = bytes(byte in b"0123456789abcdef" for byte in range(256))
_NAMING_NOTHING = (names.RECORDS, names.SCHEDULES, names.DONE)


@dataclass(frozen=True, slots=True)
class BlobSweep:
    """Sweeps ``keeper``, whose blobs live for ``ttl_seconds``; 0 stands for ever.

    ``declared`` gives the texts of what is declared and may name blobs.
    """

    log: EventLog
    keeper: Keeper
    clock: Clock
    stats: Stats
    ttl_seconds: float
    declared: Callable[[], Iterable[str]]

    async def run(self) -> None:
        """For ever: sweep now and then. What fails is tried again the next time."""
        await self.clock.sleep(FIRST_SECONDS)
        while True:
            try:
                await self.keeper.tidy(self.clock.now() - ASIDE_SECONDS)
                if self.ttl_seconds > 0:
                    await self.sweep()
            except TorporError as error:
                self.stats.blob_sweeps_failed += 1
                _LOG.warning("blobs could not be swept, which is tried again: %s", error)
            await self.clock.sleep(EVERY_SECONDS)

    async def sweep(self) -> None:
        """Do what is due.

        Raises :class:`~torpor.errors.BlobError` or :class:`~torpor.errors.EventLogError`.
        """
        lifetime, now = Lifetime(self.ttl_seconds), self.clock.now()
        due: list[Kept] = []
        async for kept in self.keeper.list():
            if lifetime.is_due(kept, now):
                due.append(kept)
            if len(due) == _AT_ONCE:
                await self._decide(lifetime, due)
                due = []
        if due:
            await self._decide(lifetime, due)

    async def _decide(self, lifetime: Lifetime, due: list[Kept]) -> None:
        named = await self._named({each.name for each in due})
        steps: dict[Step, Callable[[str], Awaitable[None]]] = {
            "set aside": self.keeper.set_aside,
            "bring back": self.keeper.bring_back,
            "remove": self.keeper.remove,
        }
        for kept in due:
            step = lifetime.step(kept, named)
            if step is not None:
                await steps[step](kept.name)
                self.stats.blobs_removed += step == "remove"

    async def _named(self, sought: set[str]) -> set[str]:
        """Which of ``sought`` something names."""
        left = {name.encode() for name in sought}
        for text in self.declared():
            left -= _names(_bytes(text))
        for stream in await self.log.streams():
            if stream.partition(".")[0] not in _NAMING_NOTHING and left:
                await self._look_through(stream, left)
        return sought - {name.decode() for name in left}

    async def _look_through(self, stream: str, left: set[bytes]) -> None:
        """Take out of ``left`` what events of the stream name, until there is nothing left."""
        async for stored in self.log.read(stream, ">"):
            event = stored.event
            for value in event.attributes.values():
                if len(value) >= _NAME_LENGTH:
                    left -= _names(_bytes(value))
            if event.data:
                left -= _names(event.data)
            if not left:
                return


def _names(text: bytes) -> set[bytes]:
    # To see that there is none takes a tenth of what the expression does, and mostly there is none.
    if text.translate(_IS_HEX).find(b"\1" * _NAME_LENGTH) < 0:
        return set()
    return set(_NAME.findall(text))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
