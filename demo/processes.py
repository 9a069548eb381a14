"""Keeps account of every process that the platform under demonstration ever had."""

from __future__ import annotations

import os

import psutil


class Census:
    """The processes seen below one root process, by pid and time of creation: a pid may be used again."""

    def __init__(self, root_pid: int) -> None:
        self._root_pid = root_pid
        self._seen: dict[int, float] = {}

    def take(self) -> None:
        """Add the root process and all below it to the account."""
        try:
            root = psutil.Process(self._root_pid)
            family = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in family:
            self._seen[process.pid] = process.create_time()

    def left(self) -> list[str]:
        """The processes of the account that still run, and any other in the root's session, in words."""
        left = []
        for process in psutil.process_iter(["pid", "create_time", "status", "cmdline"]):
            if process.info["status"] == psutil.STATUS_ZOMBIE:
                continue
            counted = self._seen.get(process.info["pid"]) == process.info["create_time"]
            if counted or self._in_session(process.info["pid"]):
                left.append(f"{process.info['pid']}: {' '.join(process.info['cmdline'] or [])[:120]}")
        return left

    def _in_session(self, pid: int) -> bool:
        try:
            return os.getsid(pid) == self._root_pid
        except (ProcessLookupError, PermissionError):
            return False
