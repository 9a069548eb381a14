"""A hold on a process that is not this one's child, so that no other of its number is ever signalled."""

from __future__ import annotations

import os
import signal
import sys


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

    def close(self) -> None:
        """Let go of it."""
        self._open = False
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
