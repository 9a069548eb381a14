"""What starts instances of one revision: its template, or the warm parent when its module can't be forked."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from collections import deque
from typing import TYPE_CHECKING

from torpor.clock import happens_within
from torpor.errors import HandlerError
from torpor.providers.process import variables
from torpor.providers.process.handle import Handle
from torpor.providers.process.nursery import Nursery
from torpor.providers.process.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torpor.clock import Clock
    from torpor.providers.base import Revision
    from torpor.providers.process.instance import InstanceProcess
    from torpor.providers.process.parents import Parents, WarmParent
    from torpor.providers.process.wire import Message

_TAIL_LINES = 20


class Template:
    """A process with one revision's module imported. It belongs to ``parent``."""

    def __init__(
        self, identity: str, parent: WarmParent, request: Message, on_line: Callable[..., None]
    ) -> None:
        self.id = identity
        self._parent = parent
        self._handle: Handle | None = None
        self.reasons: list[str] = []
        self.on_end: Callable[[], None] = lambda: None
        self._known = asyncio.Event()  # how the preparation went
        self._error: str | None = None
        self._end_reason = ""
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        ours, theirs = socket.socketpair()
        stdout_read, stdout = os.pipe()
        stderr_read, stderr = os.pipe()

        def on_error(text: str) -> None:
            self._tail.append(text)
            on_line(identity, "stderr", text)

        self._outputs = [
            Output(stdout_read, lambda text: on_line(identity, "stdout", text)),
            Output(stderr_read, on_error),
        ]
        self.nursery = Nursery(ours, self._told, self._channel_ended)
        parent.fork(self, {**request, "op": "template"}, [theirs.detach(), stdout, stderr])

    async def prepared(self, clock: Clock, within_seconds: float) -> list[str]:
        """Wait until it is; the reasons against forking it. Raises :class:`~torpor.errors.HandlerError`."""
        if not await happens_within(clock, within_seconds, self._known):
            self.kill_wedged()
            raise HandlerError(f"importing the module was not done after {within_seconds:g} s")
        if self._error is not None:
            raise HandlerError(self._error)
        return self.reasons

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
        return self._handle.pid if self._handle is not None else None

    def close(self) -> None:
        """End it, and its instances with it."""
        self.nursery.close()
        if self._handle is not None and not self._known.is_set():
            self._handle.signal(signal.SIGKILL)  # it imports, and does not look at its channel

    def kill_wedged(self) -> None:
        """End it though it does not answer; or its parent, if that does not even fork."""
        if self._handle is not None:
            self._handle.signal(signal.SIGKILL)
        else:
            self._parent.close()
        self.nursery.close()

    # --- what its parent tells ------------------------------------------------------------------------------

    def started(self, pid: int) -> None:
        """It runs as process ``pid``."""
        self._handle = Handle(pid)
        if not self.nursery.open:  # closed before it was there
            self._handle.signal(signal.SIGKILL)

    def ended(self, reason: str) -> None:
        """It has ended."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None
        for output in self._outputs:
            output.finish()
        self.nursery.finish()  # how the preparation went may not have been read yet
        if not self._known.is_set():
            tail = "\n".join(self._tail)
            self._error = f"the process {reason} while it imported the module\n{tail}".rstrip()
            self._known.set()

    def kill(self) -> None:
        """Its parent is gone: so it ends by itself."""
        self.nursery.close()

    # --- what it tells itself -------------------------------------------------------------------------------

    def _told(self, message: Message) -> None:
        if message["event"] == "failed":
            self._error = message["error"]
        else:
            self.reasons = message["reasons"]
        self._known.set()

    def _channel_ended(self) -> None:
        self.on_end()


class Launcher:
    """Starts instances of ``revision`` in the environment of ``packages``.

    ``on_lost`` is called when it can't any more, though it was not told to end.
    """

    def __init__(
        self,
        revision: Revision,
        packages: Path | None,
        common: dict[str, str],
        *,
        clock: Clock,
        parents: Parents,
        start_seconds: float,
        on_line: Callable[..., None],
        on_lost: Callable[[], None],
    ) -> None:
        source = revision.function.spec.code
        self.revision = revision
        self.packages = packages
        self.prepared_monotonic = 0.0
        self.instances = 0  # of its own that have not ended
        self._common = common
        self._clock = clock
        self._parents = parents
        self._start_seconds = start_seconds
        self._on_line = on_line
        self._on_lost = on_lost
        self._request: Message = {
            "service": revision.function.metadata.name,
            "handler": source.handler,
            "folder": str(source.path),
            "env": common,
        }
        self._reasons: list[str] = []
        self._parent: WarmParent | None = None
        self._template: Template | None = None

    @property
    def start_method(self) -> str:
        """``fork``, or ``import`` and why."""
        return f"import: {'; '.join(self._reasons)}" if self._reasons else "fork"

    @property
    def ready(self) -> bool:
        """Whether an instance can be started now."""
        if self._reasons:
            return self._parent is not None and self._parent.open
        return self._template is not None and self._template.nursery.open

    @property
    def template_pid(self) -> int | None:
        """The template's process, if there is one."""
        return self._template.pid if self._template is not None else None

    async def prepare(self) -> None:
        """Get ready to start instances.

        Raises :class:`~torpor.errors.HandlerError` or :class:`~torpor.errors.EnvironmentBuildError`.
        """
        self._parent = await self._parents.get(self.packages)
        if self._reasons:
            return
        template = Template(
            f"{self.revision.name}-template-{secrets.token_hex(3)}",
            self._parent,
            self._request,
            self._on_line,
        )
        try:
            self._reasons = await template.prepared(self._clock, self._start_seconds)
        except BaseException:
            template.close()
            raise
        if self._reasons:
            template.close()
        elif template.nursery.open:
            self.prepared_monotonic = self._clock.monotonic()
            self._template = template
            template.on_end = lambda: self._lost(template)

    def start(self, instance: InstanceProcess) -> None:
        """Have ``instance`` started; only when ready."""
        environment = variables.for_instance(self._common, instance.id, instance.endpoint.port)
        self.instances += 1
        if self._reasons and self._parent is not None:
            request = {**self._request, "op": "instance", "env": environment}
            self._parent.fork(instance, request, instance.hand_over())
        elif self._template is not None:
            self._template.nursery.fork(instance, {"env": environment}, instance.hand_over())
        else:
            asyncio.get_running_loop().call_soon(instance.ended, "lost its template before it was started")

    def rest(self) -> None:
        """End the template, if it has no instances; :meth:`prepare` makes another."""
        if self.instances == 0:
            self.close()

    def close(self) -> None:
        """End the template, and the instances that it has."""
        if self._template is not None:
            template, self._template = self._template, None
            template.close()

    def kill_wedged(self) -> None:
        """What should have started an instance does not answer: end it, so that another is made."""
        if self._template is not None:
            self._template.kill_wedged()
        elif self._parent is not None:
            self._parent.close()

    def _lost(self, template: Template) -> None:
        if self._template is template:
            self._template = None
            self._on_lost()
