"""Brings what runs to what is declared, again and again.

A wrong file changes nothing, and a function whose newest version can't run keeps the one before.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from torpor.errors import DeclarationError, EnvironmentBuildError, HandlerError, TorporError
from torpor.local.plan import plan
from torpor.local.reports import News, Report
from torpor.local.sources import fingerprint
from torpor.providers.base import Revision
from torpor.spec.load import Declared, load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torpor.clock import Clock
    from torpor.local.reports import Tell
    from torpor.providers.base import Provider
    from torpor.spec.models import Function, Trigger

_AT_ONCE = 4


class DataPath(Protocol):
    """What has to know which functions and triggers there are."""

    async def serve(self, functions: Mapping[str, Function], triggers: Mapping[str, Trigger]) -> None:
        """Lead requests to ``functions`` and events through ``triggers``, and to no others."""
        ...

    def fail(self, key: str, problem: str | None) -> None:
        """Requests for the function can't be served, or can be again (``None``)."""
        ...


@dataclass(slots=True)
class Current:
    """What holds at the moment. Keys are ``namespace/name``."""

    functions: dict[str, Function] = field(default_factory=dict)
    """As they run; where the newest version is broken, this is the one before, if there was one."""
    triggers: dict[str, Trigger] = field(default_factory=dict)
    origins: dict[tuple[str, str], str] = field(default_factory=dict)
    """``file:line`` by kind and key."""
    problems: dict[str, str] = field(default_factory=dict)
    """By function: what keeps its newest version from running."""
    faults: tuple[str, ...] = ()
    loaded_at: float | None = None


class Reloader:
    """Loads declarations from ``paths`` and applies what has changed."""

    def __init__(
        self, paths: Sequence[Path], provider: Provider, data_path: DataPath, clock: Clock, tell: Tell
    ) -> None:
        self._paths = paths
        self._provider = provider
        self._data_path = data_path
        self._clock = clock
        self._tell = tell
        self._prints: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        self._lock = asyncio.Lock()
        self.current = Current()

    async def reload(self) -> None:
        """Do it once; what is wrong is told and kept in ``current``, never raised."""
        async with self._lock:
            try:
                declared, prints = await asyncio.to_thread(self._read)
            except DeclarationError as error:
                self._refuse(tuple(error.faults))
                return
            try:
                await self._take_over(declared, prints)
            except TorporError as error:  # the data path can't take it in: try again at the next change
                self._prints = dict.fromkeys(self._prints | prints, "")
                self._refuse((str(error),))

    def _read(self) -> tuple[Declared, dict[str, str]]:
        declared = load(self._paths)
        prints = {
            key: fingerprint(function, function.spec.source.path)
            for key, function in declared.functions.items()
        }
        return declared, prints

    def _refuse(self, faults: tuple[str, ...]) -> None:
        if faults != self.current.faults:
            for fault in faults:
                self._tell(Report(News.FAULT, "declarations", fault))
        self.current.faults = faults

    async def _take_over(self, declared: Declared, prints: dict[str, str]) -> None:
        steps = plan(self._prints, prints)
        limit = asyncio.Semaphore(_AT_ONCE)

        async def applied(key: str) -> str | None:
            async with limit:
                return await self._apply(declared.functions[key])

        problems = dict(zip(steps.apply, await asyncio.gather(*map(applied, steps.apply)), strict=True))
        now = self.current
        before = {key: text for key, text in now.problems.items() if key not in problems}
        broken = before | {key: text for key, text in problems.items() if text is not None}
        running = {
            key: now.functions.get(key, function) if key in broken else function
            for key, function in declared.functions.items()
        }
        await self._data_path.serve(running, declared.triggers)
        for key in steps.remove:
            await self._provider.remove(key)
            self._tell(Report(News.REMOVED, key, "no longer declared"))
        for key in problems:
            # With a version before, that one serves on; without, callers are told why there is none.
            self._data_path.fail(key, broken.get(key) if self._provider.state(key) is None else None)
        self._prints = prints
        if steps.apply or steps.remove or now.faults or declared.triggers != now.triggers:
            text = f"{_count(len(running), 'function')}, {_count(len(declared.triggers), 'trigger')}"
            self._tell(Report(News.LOADED, "declarations", text))
        self.current = Current(
            functions=running,
            triggers=dict(declared.triggers),
            origins={identity: str(origin) for identity, origin in declared.origins.items()},
            problems={key: text for key, text in broken.items() if key in running},
            loaded_at=self._clock.now(),
        )

    async def _apply(self, function: Function) -> str | None:
        """Have the provider take over ``function``; returns what keeps it from that."""
        key = function.key
        number = self._numbers[key] = self._numbers.get(key, 0) + 1
        try:
            await self._provider.apply(Revision(f"{function.metadata.name}-{number:05d}", function))
        except (HandlerError, EnvironmentBuildError) as error:
            self._tell(Report(News.BROKEN, key, str(error)))
            return str(error)
        self._tell(Report(News.APPLIED, key, f"revision {function.metadata.name}-{number:05d}"))
        return None


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
