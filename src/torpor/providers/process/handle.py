"""A hold on a process that is not this one's child, so that no other of its number is ever signalled."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

_PIDFD_SIGNAL_PROCESS_GROUP = 1 << 2  # pidfd_send_signal(2)


class Handle:
    """Process ``pid``, as long as it is known to run. To be closed.

    Where the kernel has no descriptors of processes, as on macOS, the number is all there is.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor: int | None = None
        self._open = True
        if sys.platform == "linux":
            try:
                self._descriptor = os.pidfd_open(pid)
            except ProcessLookupError:  # it has ended: that is told next
                self._open = False
            except OSError:  # a kernel or sandbox without them
                self._descriptor = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the process has ended."""
        if not self._open:
            return
        try:
            if sys.platform == "linux" and self._descriptor is not None:
                signal.pidfd_send_signal(self._descriptor, number)
            else:
                os.kill(self.pid, number)
        except ProcessLookupError:
            pass

    def kill(self) -> None:
        """Kill it, and the process group that it leads, also when it has ended and others are left there.

        On kernels before Linux 6.9 a group is known by its number alone; it is rightly this one's as long as
        the process is not reaped or anyone is in the group.
        """
        if not self._open:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            self._kill_group()
        self.signal(signal.SIGKILL)  # should it lead none

    def _kill_group(self) -> None:
        if sys.platform == "linux" and self._descriptor is not None:
            try:
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL, None, _PIDFD_SIGNAL_PROCESS_GROUP)
            except ProcessLookupError:
                raise
            except OSError:  # an older kernel
                pass
            else:
                return
        os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let go of it."""
        self._open = False
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
