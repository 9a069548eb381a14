"""One process that outlives who started it, known by its id and when it began: ids are used again."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from tests.cluster import shell
from tests.cluster.settings import ClusterError

_STEP_SECONDS = 0.05


class Remembered:
    """The process whose id and begin are in the file ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def remember(self, pid: int) -> None:
        """Write down that it is ``pid``."""
        self._path.write_text(f"{pid} {_began(pid)}")

    @property
    def pid(self) -> int | None:
        """Its id while it runs."""
        try:
            pid, began = self._path.read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid) if _began(int(pid)) == began else None

    def kill(self, limit_seconds: float = 30) -> None:
        """End it, and wait until it is gone."""
        pid = self.pid
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + limit_seconds
        while self.pid is not None:
            if time.monotonic() > end:
                raise ClusterError(f"process {pid} does not end")
            time.sleep(_STEP_SECONDS)


def _began(pid: int) -> str | None:
    """When ``pid`` began, in ticks since the machine's start; ``None`` when it is no more."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] == "Z" else after_name[19]


def child_of(pid: int, limit_seconds: float = 10) -> int:
    """The child of ``pid``, when it has one."""
    end = time.monotonic() + limit_seconds
    while time.monotonic() < end:
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if stat.read_text().rpartition(")")[2].split()[1] == str(pid):
                    return int(stat.parent.name)
        time.sleep(_STEP_SECONDS)
    raise ClusterError(f"process {pid} started nothing")


def start_detached(log: Path, pid_file: Path, *command: str | Path) -> int:
    """Start ``command`` in a session of its own, with its output in ``log``; returns its id."""
    words = 'echo $$ >"$1.part"; mv "$1.part" "$1"; log=$2; shift 2; exec "$@" >"$log" 2>&1 </dev/null'
    shell.run("setsid", "--fork", "sh", "-c", words, "sh", pid_file, log, *command)
    end = time.monotonic() + 10
    while not pid_file.exists():
        if time.monotonic() > end:
            raise ClusterError(f"{command[0]} did not start")
        time.sleep(_STEP_SECONDS)
    return int(pid_file.read_text())
