"""Tells when declared files or a function's code may have changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from watchfiles import Change, DefaultFilter, awatch

from torpor.local.sources import is_skipped, is_source

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Sequence

DEBOUNCE_MILLISECONDS = 200


class _Relevant(DefaultFilter):
    def __init__(self, roots: Sequence[Path]) -> None:
        super().__init__()
        self._roots = roots

    def __call__(self, change: Change, path: str) -> bool:  # noqa: ARG002 - watchfiles' signature
        changed = Path(path)
        for root in self._roots:
            if changed.is_relative_to(root):
                inner = changed.relative_to(root).parts
                return is_source(changed) and not any(is_skipped(part) for part in inner[:-1])
        return False


async def changes(paths: Sequence[Path], stop: asyncio.Event) -> AsyncGenerator[None]:
    """Yield once after each burst of changes under ``paths`` (files or folders), until ``stop`` is set."""
    roots = [path.resolve() for path in paths]
    async for _ in awatch(
        *roots, watch_filter=_Relevant(roots), debounce=DEBOUNCE_MILLISECONDS, stop_event=stop, recursive=True
    ):
        yield
