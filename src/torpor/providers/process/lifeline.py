"""Dying with the parent, all the way down, so that even ``kill -9`` of the platform leaves no process behind.

On Linux the kernel does it (``PR_SET_PDEATHSIG``). Where it does not, and beside it, a child holds the
reading end of its parent's lifeline, a pipe that nobody writes to: it ends when the parent does.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


@functools.cache  # looked up once, in the warm parent, and not after each fork
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when ``parent`` ends, or exit now if it has ended already.

    ``parent`` is the process id that the caller's parent had before this process was made. The parent's
    thread that forked is what counts: fork from main threads only (prctl(2)).
    """
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def set_name(name: str) -> None:
    """Have tools such as ``top`` show this process as ``name``, of which 15 bytes count."""
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def watch(lifeline: int) -> None:
    """End this process at once when ``lifeline`` ends; to be called in the running loop."""
    asyncio.get_running_loop().add_reader(lifeline, os._exit, 1)
