"""Keeps :class:`torpor.providers.base.Provider` with processes of this machine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from torpor.errors import HandlerError
from torpor.providers.process.environments import Environments
from torpor.providers.process.parents import Parents
from torpor.providers.process.supervisor import Supervisor, Surroundings
from torpor.settings import passed_on
from torpor.transport import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torpor.clock import Clock
    from torpor.providers.base import EndpointPublisher, FunctionState, Instance, Revision
    from torpor.spec.status import LogLine

START_SECONDS = 60.0
CLOSE_SECONDS = 10.0


class ProcessProvider:
    """Runs instances as processes, forked where the function's module allows it.

    It belongs to one event loop, in a thread that lives as long: the processes end with that thread.
    ``inherited`` are variables that all functions get; by default the harmless part of this process's own
    environment. ``on_parent`` is told when a process that instances are forked from has ended by itself (what
    is wrong), or is back (``None``).
    """

    def __init__(
        self,
        *,
        clock: Clock,
        publisher: EndpointPublisher,
        on_line: Callable[[str, LogLine], None],
        cache_dir: Path,
        blobs_url: str,
        inherited: Mapping[str, str] | None = None,
        start_seconds: float = START_SECONDS,
        close_seconds: float = CLOSE_SECONDS,
        on_parent: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        variables = passed_on() if inherited is None else dict(inherited)
        self._parents = Parents(clock, variables, on_parent)
        self._subscribers: list[Callable[[str], None]] = []
        self._supervisors: dict[str, Supervisor] = {}
        self._removing: dict[str, Supervisor] = {}
        self._close_seconds = close_seconds
        self._closed = False
        self._client = Client(clock=clock)
        self._around = Surroundings(
            clock=clock,
            publisher=publisher,
            client=self._client,
            parents=self._parents,
            environments=Environments(cache_dir),
            inherited=variables,
            blobs_url=blobs_url,
            start_seconds=start_seconds,
            on_line=on_line,
            on_change=self._changed,
        )

    async def apply(self, revision: Revision) -> None:
        """Make ``revision`` the one that runs; see :class:`torpor.providers.base.Provider`."""
        if self._closed:
            raise HandlerError("the platform is ending")
        key = revision.function.key
        while key in self._removing:  # its last word to the data path must not come after ours
            await self._removing[key].removed.wait()
        supervisor = self._supervisors.get(key)
        if supervisor is None:
            supervisor = self._supervisors[key] = Supervisor(key, self._around)
        await supervisor.apply(revision)
        self._parents.keep(self._used())

    async def remove(self, key: str) -> None:
        """Drain and end every instance of the function and forget it."""
        supervisor = self._supervisors.pop(key, None)
        if supervisor is None:
            return
        self._removing[key] = supervisor
        try:
            await supervisor.remove()
        finally:
            del self._removing[key]
            supervisor.removed.set()
        self._parents.keep(self._used())
        self._changed(key)

    def scale(self, key: str, replicas: int) -> None:
        """Set how many instances should run; nothing happens if the function is unknown."""
        supervisor = self._supervisors.get(key)
        if supervisor is not None and not self._closed:
            supervisor.scale(replicas)

    def ready(self, key: str) -> int:
        """How many instances take requests."""
        supervisor = self._supervisors.get(key)
        return supervisor.ready() if supervisor is not None else 0

    def instances(self, key: str) -> Sequence[Instance]:
        """The instances of the function, the oldest first; their memory is two seconds old at most."""
        supervisor = self._supervisors.get(key)
        return supervisor.instances() if supervisor is not None else ()

    def state(self, key: str) -> FunctionState | None:
        """What is known of the function, ``None`` if no revision of it ever ran."""
        supervisor = self._supervisors.get(key)
        return supervisor.state() if supervisor is not None else None

    def subscribe(self, on_change: Callable[[str], None]) -> None:
        """Call ``on_change`` with a function's key whenever anything about its instances has changed."""
        self._subscribers.append(on_change)

    def parent_pids(self) -> list[int]:
        """The warm parents."""
        return self._parents.pids()

    def template_pid(self, key: str) -> int | None:
        """The function's template, ``None`` when its module can't be forked or it is at zero."""
        supervisor = self._supervisors.get(key)
        return supervisor.template_pid if supervisor is not None else None

    async def close(self) -> None:
        """Drain every instance, for a bounded time, then end everything."""
        if self._closed:
            return
        self._closed = True
        supervisors = [*self._supervisors.values(), *self._removing.values()]
        removals = [asyncio.create_task(supervisor.remove()) for supervisor in supervisors]
        limit = asyncio.create_task(self._around.clock.sleep(self._close_seconds))
        drained: asyncio.Future[list[None]] = asyncio.gather(*removals)
        waits: list[asyncio.Future[Any]] = [drained, limit]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        limit.cancel()
        for supervisor in supervisors:
            supervisor.kill_all()
        self._around.environments.close()
        self._parents.close()  # what was still being started fails by it
        await drained
        await self._client.close()
        self._supervisors.clear()

    def _used(self) -> set[Path | None]:
        supervisors = [*self._supervisors.values(), *self._removing.values()]
        return {packages for supervisor in supervisors for packages in supervisor.packages}

    def _changed(self, key: str) -> None:
        for subscriber in self._subscribers:
            subscriber(key)
