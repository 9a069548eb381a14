"""Dying with the parent, all the way down, so that even ``kill -9`` of the platform leaves no process behind.

On Linux the kernel does it (``PR_SET_PDEATHSIG``). Where it does not, and beside it, a child holds the
reading end of its parent's lifeline, a pipe that nobody writes to: it ends when the parent does.

What a function starts itself, by ``subprocess`` or ``os.fork``, is in the process group of its instance, and
that is killed when the instance has ended, however it did. So there escapes what leaves the group
(``start_new_session``, ``setsid``, ``setpgid``; daemons do), and, when the platform itself is killed by
SIGKILL, what the kernel was not told to end with it: there is nobody left to do it.
"""

from __future__ import annotations

import asyncio
import contextlib
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


def lead_group(pid: int = 0) -> None:
    """Give child ``pid``, or this process, a group of its own; to be done on both sides of a fork.

    Whichever comes first then has it there for both.
    """
    with contextlib.suppress(OSError):  # it has ended already
        os.setpgid(pid, 0)


def kill_group(pid: int) -> None:
    """Kill the group that ``pid`` leads; to be called before that is reaped, while the number is its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # of macOS: nobody in it but the dead
        os.killpg(pid, signal.SIGKILL)


def set_name(name: str) -> None:
    """Have tools such as ``top`` show this process as ``name``, of which 15 bytes count."""
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def watch(lifeline: int) -> None:
    """End this process at once when ``lifeline`` ends; to be called in the running loop."""
    asyncio.get_running_loop().add_reader(lifeline, os._exit, 1)
