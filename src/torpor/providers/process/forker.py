"""The loop of a process that forks others on request, and reports their starts and ends.

It has one thread and no event loop, which is what makes its forks safe. The warm parent and each template
run it. Each child leads a process group, of which nothing is left when the child has ended; what escapes
says :mod:`~torpor.providers.process.lifeline`.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections import deque
from typing import TYPE_CHECKING, NoReturn

from torpor.providers.process import wire
from torpor.providers.process.lifeline import die_with_parent, kill_group, lead_group

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Container

    from torpor.providers.process.wire import Message

    Work = Callable[[], None]
    # What a child does: from the request, its descriptors, and the lifeline to its parent.
    MakeWork = Callable[[Message, list[int], int], Work]


class Forker:
    """Forks a child for each message on ``channel``; ``make_work`` says what the child does.

    ``lifeline`` is that of this process's own parent, if it has one.
    """

    def __init__(self, channel: socket.socket, make_work: MakeWork, lifeline: int | None = None) -> None:
        self._channel = channel
        self._inbox = wire.Inbox(channel)
        self._make_work = make_work
        self._lifeline = lifeline
        self._pending: deque[tuple[Message, list[int]]] = deque()
        self._children: dict[int, str] = {}
        self._child_lifeline, self._lifeline_end = os.pipe()
        self._wakeup_read, self._wakeup_write = os.pipe()
        os.set_blocking(self._wakeup_read, False)
        os.set_blocking(self._wakeup_write, False)

    def run(self) -> Work:
        """Serve until the channel or the parent ends (``SystemExit``). In a child: return what it is to do.

        So a child's work runs above none of this loop's frames.
        """
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wakeup_write, warn_on_full_buffer=False)
        poll = select.poll()
        for descriptor in (self._channel.fileno(), self._wakeup_read, self._lifeline):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._lifeline in ready:
                self._end(1)
            if self._wakeup_read in ready:
                self._reap()
            if self._channel.fileno() in ready:
                received = self._inbox.receive()
                if received is None:
                    self._end(0)
                self._pending.extend(received)
            while self._pending:
                work = self._fork(*self._pending.popleft())
                if work is not None:
                    return work

    def _fork(self, message: Message, descriptors: list[int]) -> Work | None:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._report({"event": "ended", "id": message["id"], "error": f"can't fork: {error.strerror}"})
            pid = -1
        if pid == 0:
            lead_group()
            die_with_parent(parent)
            self._forget_all()
            return self._make_work(message, descriptors, self._child_lifeline)
        for descriptor in descriptors:
            os.close(descriptor)
        if pid > 0:
            lead_group(pid)
            self._children[pid] = message["id"]
            self._report({"event": "started", "id": message["id"], "pid": pid})
        return None

    def _forget_all(self) -> None:
        """In a child: close what is the forking process's own, and take its signals back."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (self._wakeup_read, self._wakeup_write, self._lifeline_end, self._lifeline):
            if descriptor is not None:
                os.close(descriptor)
        for _, descriptors in self._pending:
            for descriptor in descriptors:
                os.close(descriptor)
        self._inbox.close()
        self._channel.close()

    def _reap(self) -> None:
        try:
            while os.read(self._wakeup_read, 4096):
                pass
        except BlockingIOError:
            pass
        while (ended := _reap_one(self._children)) is not None:
            pid, status = ended
            identity = self._children.pop(pid, None)
            if identity is not None:
                self._report(
                    {"event": "ended", "id": identity, "code": os.waitstatus_to_exitcode(status), "pid": pid}
                )

    def _end(self, code: int) -> NoReturn:
        """End this process, and the children with all that they started."""
        for pid in self._children:
            kill_group(pid)
        raise SystemExit(code)

    def _report(self, message: Message) -> None:
        try:
            wire.send(self._channel, message)
        except OSError:  # the platform is gone
            self._end(0)


def _reap_one(leaders: Container[int]) -> tuple[int, int] | None:
    """A child that has ended, and its status; if it is among ``leaders``, the rest of its group is killed."""
    try:
        if sys.platform == "darwin":  # where Python has no waitid(2) before 3.13
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid in leaders:  # no process gets its number as long as anyone is in the group
                kill_group(pid)
            return (pid, status) if pid else None
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        if ended.si_pid in leaders:  # before it is reaped: its number is still its own
            kill_group(ended.si_pid)
        return os.waitpid(ended.si_pid, 0)
    except ChildProcessError:
        return None
