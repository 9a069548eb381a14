"""Runs a program that dies with its parent: ``python tied.py PARENT_PID PROGRAM ARGUMENT...``.

It is executed as a script, in an interpreter without packages, and replaces itself by the program. A process
that has threads, as gRPC's, must not run code between fork and exec; this runs after the exec instead.
"Parent" is the thread that forks: only threads that live as long as the process may start such programs
(prctl(2)). Where the kernel has no such thing (macOS) the program is only started.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_OPEN_FILES = 65_536


def main() -> None:
    """Tie this process to its parent, raise its limit of open files, become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before it was tied to
            sys.exit(1)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    os.execv(program[0], program)  # noqa: S606 - the very thing it is for


if __name__ == "__main__":
    main()
