"""Writes the files that are made from the models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Write ``files``, by their paths below ``folder``."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def main(files: Mapping[str, bytes], folder: str) -> None:
    """Write ``files`` into the folder that the command line names, by default ``folder``."""
    write(files, Path(sys.argv[1] if len(sys.argv) > 1 else folder))
