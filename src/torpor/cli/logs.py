"""``torpor logs``: what a function's instances write."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from torpor.cli.output import output_option
from torpor.cli.target import connect, context_option, full_name, namespace_option

if TYPE_CHECKING:
    from torpor.cli import Globals
    from torpor.spec.status import LogLine


@click.command("logs", short_help="Show what a function's instances write.")
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on with each new line, until Ctrl-C.")
@click.option(
    "--tail",
    type=click.IntRange(0, 10_000),
    default=100,
    show_default=True,
    help="How many of the last lines.",
)
@namespace_option
@context_option
@output_option
@click.pass_obj
def command(
    chosen: Globals, name: str, *, follow: bool, tail: int, namespace: str | None, output: str
) -> None:
    """Show the last lines that the instances of NAME or NAME.NAMESPACE wrote to stdout and stderr.

    With -o json it is one document a line.
    """
    space, short = full_name(name, namespace)
    # Ctrl-C is how a person ends following, not a failure.
    ended = contextlib.suppress(KeyboardInterrupt) if follow else contextlib.nullcontext()
    with connect(chosen) as client, ended:
        for line in client.logs(short, space, tail=tail, follow=follow):
            click.echo(line.model_dump_json(by_alias=True) if output == "json" else _readable(line))


def _readable(line: LogLine) -> str:
    time = line.time.astimezone().strftime("%H:%M:%S")
    mark = click.style("!", fg="yellow") if line.stream == "stderr" else " "
    return f"{click.style(f'{time} {line.instance}', dim=True)} {mark} {harmless(line.text)}"


def harmless(text: str) -> str:
    """``text`` with control characters escaped: a function's line must not steer a person's terminal."""
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)
