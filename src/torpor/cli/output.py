"""How verbs print: tables for people, JSON for programs (``-o json``).

Text from elsewhere is shown as it is, never taken for markup, and never cut when stdout is no terminal.
"""

from __future__ import annotations

import contextlib
import textwrap
from typing import TYPE_CHECKING, Any

import click
import orjson
from pydantic import BaseModel, ValidationError

from torpor.spec.faults import distinct, in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rich.console import Console

_WIDE = 10_000

output_option: Callable[[Any], Any] = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Form of what is printed.",
)
"""The option of every verb that reads; its value comes as ``output``."""


def print_json(value: object) -> None:
    """Print ``value``, in which there may be pydantic models, as JSON, with the names that the API has."""
    document = orjson.dumps(value, default=_plain, option=orjson.OPT_INDENT_2)
    click.echo(document.decode())


@contextlib.contextmanager
def json_array() -> Iterator[Callable[[object], None]]:
    """Print what is given as one JSON array, each as it comes, so that there may be any number of them."""
    separator = "["

    def tell(value: object) -> None:
        nonlocal separator
        document = orjson.dumps(value, default=_plain, option=orjson.OPT_INDENT_2).decode()
        click.echo(f"{separator}\n{textwrap.indent(document, '  ')}", nl=False)
        separator = ","

    try:
        yield tell
    finally:
        click.echo("[]" if separator == "[" else "\n]")


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(f"{type(value).__name__} can't be printed as JSON")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print ``rows`` under ``columns``, ``None`` as ``-``; or the sentence ``empty`` when there are none."""
    from rich.table import Table  # noqa: PLC0415 - only people's tables need it
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        table.add_column(column.upper(), overflow="fold")
    for row in rows:
        table.add_row(*(Text("-" if cell is None else str(cell)) for cell in row))
    if table.row_count:
        console().print(table)
    else:
        click.echo(empty)


def console() -> Console:
    """stdout by rich: as wide as the terminal, and as wide as it takes when it is none."""
    from rich.console import Console  # noqa: PLC0415

    stdout = Console(highlight=False, markup=False, emoji=False)
    return stdout if stdout.is_terminal else Console(highlight=False, markup=False, emoji=False, width=_WIDE)


def plural(number: int, one: str) -> str:
    """``number`` and the noun ``one`` in the form that goes with it."""
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


def unusable(error: ValidationError, names: Mapping[str, str] | None = None) -> click.UsageError:
    """What is wrong with options that were taken for a document.

    ``names`` has what a field is called on the command line, where that is not its name.
    """
    faults = [(str(fault["loc"][0]), in_words(fault)) for fault in distinct(error.errors())]
    called = names or {}
    return click.UsageError(
        "; ".join(
            f"{called[field]} {problem}" if field in called else f"{field}: {problem}"
            for field, problem in faults
        )
    )
