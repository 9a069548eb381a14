"""Files that verbs read, stdin among them."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import os


class InputFile(click.File):
    """A file of bytes; ``-`` is stdin, which may have been closed by who started this."""

    def __init__(self) -> None:
        super().__init__("rb")

    def convert(
        self,
        value: str | os.PathLike[str] | IO[Any],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> IO[Any]:
        """The open file."""
        try:
            return super().convert(value, param, ctx)
        except RuntimeError:  # click's, where there is no stdin
            self.fail("stdin is closed; something to read was expected", param, ctx)
