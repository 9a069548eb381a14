"""What a process has of memory to itself, not shared with the template that it was forked from."""

from __future__ import annotations

from pathlib import Path

import psutil


def private_bytes(pid: int | None) -> int | None:
    """Bytes that would be free if process ``pid`` ended; ``None`` without one, or if that can't be known."""
    if pid is None:
        return None
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
    except FileNotFoundError:
        return _unique_set_size(pid)
    except OSError:
        return None
    kibibytes = [int(line.split()[1]) for line in rollup.splitlines() if line.startswith(b"Private_")]
    return sum(kibibytes) * 1024 if kibibytes else None


def _unique_set_size(pid: int) -> int | None:
    """The same where there is no /proc; psutil reads the same file on Linux, only slower."""
    try:
        return int(psutil.Process(pid).memory_full_info().uss)
    except psutil.Error:
        return None
