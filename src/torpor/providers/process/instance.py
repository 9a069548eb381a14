"""One instance: its socket, its pipes, its process, and where it is in its life."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import deque
from typing import TYPE_CHECKING

from torpor.endpoint import InstanceEndpoint
from torpor.memory import private_bytes
from torpor.providers.base import Instance, InstanceState
from torpor.providers.process.handle import Handle
from torpor.providers.process.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from torpor.clock import Clock
    from torpor.providers.process.launcher import Launcher

HOST = "127.0.0.1"
BACKLOG = 1024
TAIL_LINES = 20
MEMORY_AGE_SECONDS = 2.0


class InstanceProcess:
    """A child of a nursery. Raises ``OSError`` when there is no socket or pipe to be had for it.

    ``on_line(id, stream, text)`` gets its output; ``on_ready`` and ``on_ended`` get the instance.
    """

    def __init__(
        self,
        identity: str,
        launcher: Launcher,
        clock: Clock,
        *,
        on_line: Callable[[str, Literal["stdout", "stderr"], str], None],
        on_ready: Callable[[InstanceProcess], None],
        on_ended: Callable[[InstanceProcess], None],
    ) -> None:
        self.id = identity
        self.launcher = launcher
        self.state = InstanceState.STARTING
        self.started_at = clock.now()
        self.started_monotonic = clock.monotonic()
        self.ready_at: float | None = None
        self.ready_monotonic: float | None = None
        self._kill_reason: str | None = None
        self.end_reason: str | None = None
        self.gone = asyncio.Event()
        self.last_errors: deque[str] = deque(maxlen=TAIL_LINES)
        self._clock = clock
        self._on_line = on_line
        self._on_ready = on_ready
        self._on_ended = on_ended
        self._handle: Handle | None = None
        self._signal_at_start: signal.Signals | None = None
        self._memory: tuple[float, int | None] = (float("-inf"), None)
        self._loop = asyncio.get_running_loop()
        self._open()

    def _open(self) -> None:
        opened: list[int] = []
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
                listener.bind((HOST, 0))
                listener.listen(BACKLOG)
                host, port = listener.getsockname()
                self.endpoint = InstanceEndpoint(host, port, self.id)
                opened.append(listener.detach())
            for _ in range(3):
                opened.extend(os.pipe())
        except OSError:
            for descriptor in opened:
                os.close(descriptor)
            raise
        listening, self._ready, ready, stdout_read, stdout, stderr_read, stderr = opened
        self._handed_over = [
            listening,
            ready,
            stdout,
            stderr,
        ]  # in the order of torpor.providers.process.child
        os.set_blocking(self._ready, False)
        self._loop.add_reader(self._ready, self._readable)
        self._outputs = [
            Output(stdout_read, lambda text: self._on_line(self.id, "stdout", text)),
            Output(stderr_read, self._error_line),
        ]

    @property
    def pid(self) -> int | None:
        """Its process, once it was forked."""
        return self._handle.pid if self._handle is not None else None

    def hand_over(self) -> list[int]:
        """The descriptors that are the process's: listening socket, readiness, standard output and error."""
        handed_over, self._handed_over = self._handed_over, []
        return handed_over

    def hand_to(
        self, on_ready: Callable[[InstanceProcess], None], on_ended: Callable[[InstanceProcess], None]
    ) -> None:
        """Tell others than before."""
        self._on_ready = on_ready
        self._on_ended = on_ended

    # --- what the nursery tells -----------------------------------------------------------------------------

    def started(self, pid: int) -> None:
        """It runs as process ``pid``."""
        self._handle = Handle(pid)
        if self._signal_at_start is not None:
            self.signal(self._signal_at_start)

    def ended(self, reason: str) -> None:
        """It has ended, or was never started."""
        self.end_reason = self._kill_reason or reason
        self._forget_readiness()
        for output in self._outputs:
            output.finish()
        if self._handle is not None:
            self._handle.close()
        for descriptor in self.hand_over():
            os.close(descriptor)
        self.gone.set()
        self._on_ended(self)

    # --- what the platform does with it ---------------------------------------------------------------------

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its process, as soon as there is one, and to no later one of its number."""
        if self._handle is None:
            self._signal_at_start = number
        else:
            self._handle.signal(number)

    def kill(self, reason: str | None = None) -> None:
        """End it and its group now; ``reason`` completes "it ..." where "was killed" would say too little."""
        self._kill_reason = reason
        if self._handle is None:
            self._signal_at_start = signal.SIGKILL
        else:
            self._handle.kill()

    def describe(self, key: str) -> Instance:
        """What is known of it."""
        return Instance(
            id=self.id,
            function=key,
            revision=self.launcher.revision.name,
            endpoint=self.endpoint,
            state=self.state,
            pid=self.pid,
            started_at=self.started_at,
            ready_at=self.ready_at,
            memory_bytes=self._memory_bytes(),
        )

    def _memory_bytes(self) -> int | None:
        read_at, value = self._memory
        now = self._clock.monotonic()
        if self.pid is not None and now - read_at >= MEMORY_AGE_SECONDS:
            value = private_bytes(self.pid)
            self._memory = (now, value)
        return value

    def _error_line(self, text: str) -> None:
        self.last_errors.append(text)
        self._on_line(self.id, "stderr", text)

    def _readable(self) -> None:
        told = os.read(self._ready, 1)
        self._forget_readiness()
        if told and self.state is InstanceState.STARTING:
            self.state = InstanceState.READY
            self.ready_at = self._clock.now()
            self.ready_monotonic = self._clock.monotonic()
            self._on_ready(self)

    def _forget_readiness(self) -> None:
        if self._ready >= 0:
            self._loop.remove_reader(self._ready)
            os.close(self._ready)
            self._ready = -1
