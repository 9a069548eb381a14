"""Whether this process, a template whose module was just imported, can be copied by fork.

A fork copies one thread and shares every open file: a module that started a thread, opened a connection or
left a loop would not work in the copies, or would work for one of them at a time.
"""

from __future__ import annotations

import gc
import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_KINDS = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a pipe", stat.S_IFDIR: "a folder", stat.S_IFREG: "a file"}


def open_descriptors() -> frozenset[int]:
    """The descriptors that this process has open."""
    folder = "/proc/self/fd" if Path("/proc/self/fd").exists() else "/dev/fd"
    return frozenset(
        descriptor
        for descriptor in (int(path.name) for path in Path(folder).iterdir())
        if _status(descriptor) is not None
    )


def why_not(before: frozenset[int]) -> list[str]:
    """Reasons against forking, in words for the module's author; ``before`` was open before the import."""
    gc.collect()  # a file that was dropped in a cycle is no reason
    reasons = []
    threads = _threads()
    if threads:
        reasons.append(f"the module started {threads}")
    if _has_children():
        reasons.append("the module started a process")
    opened = sorted(filter(None, (_describe(descriptor) for descriptor in open_descriptors() - before)))
    if opened:
        reasons.append(f"the module left {_join(opened)} open")
    return reasons


def _threads() -> str:
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if others:
        return f"a thread ({_join(sorted(others))})"
    tasks = Path("/proc/self/task")  # threads that Python knows nothing of
    if tasks.exists() and len(list(tasks.iterdir())) > 1:
        return "a thread"
    return ""


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _status(descriptor: int) -> os.stat_result | None:
    try:
        return os.fstat(descriptor)
    except OSError:  # it was the listing's own
        return None


def _describe(descriptor: int) -> str | None:
    status = _status(descriptor)
    if status is None or stat.S_ISCHR(status.st_mode):  # such as /dev/urandom, which holds no place
        return None
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "an event loop or the like")
    if kind in ("a file", "a folder"):
        try:
            return f"{kind} ({Path(f'/proc/self/fd/{descriptor}').readlink().name})"
        except OSError:
            return kind
    return kind


def _join(words: Iterable[str], most: int = 5) -> str:
    distinct = list(dict.fromkeys(words))
    return ", ".join(distinct[:most]) + (" and more" if len(distinct) > most else "")
