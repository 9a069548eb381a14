"""One platform a data folder: two of them would take each other's events."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Self

from torpor.errors import StartError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class DataFolder:
    """A folder that this process alone uses while the block is entered; the kernel lets go of it at its end.

    Raises :class:`~torpor.errors.StartError` when another process has it, or when it can't be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartError(f"{self.path}: no folder for data can be made there: {error}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(file, 20, 0).decode("ascii", "replace").strip()
            os.close(file)
            who = f"by another platform (pid {owner})" if owner else "by another platform"
            raise StartError(
                f"{self.path} is in use {who}; end it, or choose another folder with --data"
            ) from error
        os.ftruncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
