"""A thread that sees when the event loop itself no longer turns: an async handler that blocks it.

Such a call can't be cancelled, since nothing on the loop runs. The watchdog raises an exception in it, and
if that does not help, ends the process, so that it is replaced.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from torpor.runtime.calls import GRACE_SECONDS
from torpor.runtime.workers import Interrupted

if TYPE_CHECKING:
    from torpor.runtime.calls import Calls

_LOG = logging.getLogger("torpor.runtime")
_LATE_SECONDS = 1.0
_EXIT_BLOCKED = 70


class Watchdog:
    """Watches the timer of ``calls``: when it does not fire in time, the loop is blocked."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._wake = threading.Event()
        self._stopped = False
        self._loop_thread = threading.get_ident()

    def start(self) -> None:
        """Watch from now on; the thread begins with the first call."""
        self._calls.on_armed = self._armed

    def stop(self) -> None:
        """Watch no more."""
        self._stopped = True
        self._wake.set()

    def _armed(self) -> None:
        """The loop's timer was set: make sure that somebody looks."""
        self._calls.on_armed = self._wake.set
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def _run(self) -> None:
        while not self._stopped:
            due = self._calls.next_due
            late = due + _LATE_SECONDS - time.monotonic()
            if late > 0:
                self._wake.wait(min(late, threading.TIMEOUT_MAX))
                self._wake.clear()
                continue
            self._wake.wait(_LATE_SECONDS)  # the whole process may have been stopped: let the loop come first
            self._wake.clear()
            if self._calls.next_due == due:
                self._intervene(due)

    def _intervene(self, due: float) -> None:
        end = time.monotonic() + GRACE_SECONDS
        while self._calls.next_due == due and not self._stopped:
            if time.monotonic() >= end:
                _LOG.error(
                    "the event loop is blocked by a handler: this instance ends and has to be replaced"
                )
                os._exit(_EXIT_BLOCKED)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._loop_thread), ctypes.py_object(Interrupted)
            )
            self._wake.wait(0.25)
            self._wake.clear()
