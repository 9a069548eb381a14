"""Warm parents, one an environment: started when first needed, and again when one has ended."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from torpor.children import describe_exit
from torpor.clock import happens_within
from torpor.errors import EnvironmentBuildError
from torpor.providers.process.nursery import Nursery
from torpor.providers.process.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torpor.clock import Clock
    from torpor.providers.process.nursery import Child
    from torpor.providers.process.wire import Message

START_SECONDS = 60.0
_TAIL_LINES = 20
_log = logging.getLogger(__name__)


class WarmParent:
    """A process with the runtime imported. ``packages``: the folder of its environment, if any.

    It belongs to the thread that made it: it ends with that (:mod:`~torpor.providers.process.lifeline`).
    ``on_lost`` is called with how it ended, when it was warm and was not told to end.
    """

    def __init__(
        self, packages: Path | None, variables: Mapping[str, str], on_lost: Callable[[str], None]
    ) -> None:
        self._on_lost = on_lost
        self._closed = False
        self._known = asyncio.Event()  # that it is warm, or has ended
        self._warm = False
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._end_reason = ""
        ours, theirs = socket.socketpair()
        environment = {**variables, "PYTHONPATH": str(packages)} if packages else dict(variables)
        module = "torpor.providers.process.parent"
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd="/",
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C at the terminal is the platform's to handle
            )
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        self._output = Output(os.dup(self._process.stdout.fileno()), self._line)
        self._process.stdout.close()
        self._nursery = Nursery(ours, self._told, self._ended)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def open(self) -> bool:
        """Whether it can fork."""
        return self._nursery.open

    async def warm(self, clock: Clock) -> None:
        """Wait until it is. Raises :class:`~torpor.errors.EnvironmentBuildError` if it does not get there."""
        if not await happens_within(clock, START_SECONDS, self._known):
            self.close()
            self._end_reason = f"was not done after {START_SECONDS:g} s"
        if not self._warm or not self.open:
            tail = "\n".join(self._tail)
            raise EnvironmentBuildError(
                f"the runtime could not be started: it {self._end_reason}\n{tail}".rstrip()
            )

    def fork(self, child: Child, request: Message, descriptors: Sequence[int]) -> None:
        """Have a template or an instance forked."""
        self._nursery.fork(child, request, descriptors)

    def close(self) -> None:
        """End it and all below it."""
        self._closed = True
        self._nursery.close()

    def _told(self, message: Message) -> None:
        if message["event"] == "warm":
            self._warm = True
            self._known.set()

    def _ended(self) -> None:
        self._process.kill()
        code = self._process.wait()  # it is dead or dying: this takes no time
        self._end_reason = describe_exit(code)
        self._output.finish()
        self._known.set()
        if self._warm and not self._closed:
            self._on_lost(self._end_reason)

    def _line(self, text: str) -> None:
        self._tail.append(text)
        _log.info("warm parent %d: %s", self._process.pid, text)


class Parents:
    """The warm parents, by the folder of their packages.

    ``on_change`` is told each time one has ended by itself (what is wrong), or is back (``None``).
    """

    def __init__(
        self, clock: Clock, variables: Mapping[str, str], on_change: Callable[[str | None], None]
    ) -> None:
        self._on_change = on_change
        self._lost: set[Path | None] = set()
        self._clock = clock
        self._variables = variables
        self._parents: dict[Path | None, WarmParent] = {}
        self._locks: dict[Path | None, asyncio.Lock] = {}
        self._closed = False

    async def get(self, packages: Path | None) -> WarmParent:
        """The parent of that environment, warm. Raises :class:`~torpor.errors.EnvironmentBuildError`."""
        async with self._locks.setdefault(packages, asyncio.Lock()):
            parent = self._parents.get(packages)
            if parent is None or not parent.open:
                if self._closed:
                    raise EnvironmentBuildError("the platform is ending")
                parent = WarmParent(packages, self._variables, partial(self._note_loss, packages))
                self._parents[packages] = parent
                await parent.warm(self._clock)
                if packages in self._lost:
                    self._lost.discard(packages)
                    self._on_change(None)
            return parent

    def _note_loss(self, packages: Path | None, reason: str) -> None:
        self._lost.add(packages)
        self._on_change(f"it {reason} and is started again as soon as a function needs it")

    def keep(self, used: set[Path | None]) -> None:
        """End the parents of environments that are not among ``used``, but for the platform's own."""
        for packages in self._parents.keys() - used - {None}:
            self._parents.pop(packages).close()
            self._lost.discard(packages)

    def pids(self) -> list[int]:
        """Process ids of the parents that run."""
        return [parent.pid for parent in self._parents.values() if parent.open]

    def close(self) -> None:
        """End all of them, and everything below them."""
        self._closed = True
        for parent in self._parents.values():
            parent.close()
