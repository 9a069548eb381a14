"""Whether a function's code has changed: a fingerprint of the files that it is made of."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from torpor.errors import DeclarationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torpor.spec.models import Function

MAX_FILES = 5_000
_SKIPPED_FOLDERS = {"__pycache__", "node_modules", "build", "dist", "venv"}
_SKIPPED_SUFFIXES = {".md", ".pyc"}


def is_skipped(name: str) -> bool:
    """Whether a file or folder of that name never belongs to a function's code."""
    return name.startswith(".") or name in _SKIPPED_FOLDERS


def is_source(path: Path) -> bool:
    """Whether a change of the file ``path`` can change what a function does."""
    return not (is_skipped(path.name) or path.suffix in _SKIPPED_SUFFIXES or path.name.startswith("test_"))


def fingerprint(function: Function, folder: Path) -> str:
    """A hash over what ``function`` declares and over names, sizes and times of change of the files in
    ``folder``.

    Raises :class:`~torpor.errors.DeclarationError` when there are more than ``MAX_FILES`` of them: that is no
    function's folder.
    """
    digest = hashlib.sha256(function.model_dump_json().encode())
    for number, path in enumerate(_files(folder)):
        if number >= MAX_FILES:
            raise DeclarationError(
                [f"{folder}: source.path: has more than {MAX_FILES} files, a folder of its own was expected"]
            )
        try:
            status = path.stat()
        except FileNotFoundError:  # between the listing and here
            continue
        digest.update(f"{path.relative_to(folder)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_skipped(name))
        for name in sorted(names):
            path = Path(parent, name)
            if is_source(path):
                yield path
