"""``torpor validate``: says everything that is wrong with declarations, and touches nothing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from torpor.cli import WRONG
from torpor.cli.output import output_option, plural, print_json, print_table
from torpor.spec.load import inspect

if TYPE_CHECKING:
    from torpor.spec.faults import Fault
    from torpor.spec.load import Declared
    from torpor.spec.models import Resource


@click.command("validate", short_help="Check declarations, and say everything that is wrong.")
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(path_type=Path))
@output_option
@click.pass_context
def command(ctx: click.Context, paths: tuple[Path, ...], output: str) -> None:
    """Check the declarations in files and folders, by default in this one.

    Every fault is printed as FILE:LINE: FIELD: PROBLEM, EXPECTATION; the exit code is then 2. When only
    folders are given, they are taken for all that there is: a trigger must name a function in them.
    """
    paths = paths or (Path(),)
    declared, faults = inspect(paths, complete=all(path.is_dir() for path in paths))
    if output == "json":
        print_json(_document(declared, faults))
    elif faults:
        for fault in faults:
            click.echo(str(fault))
        click.echo(f"{plural(len(faults), 'fault')} found", err=True)
    else:
        resources: list[Resource] = [
            *declared.functions.values(),
            *declared.triggers.values(),
            *declared.schedules.values(),
        ]
        rows = [(resource.kind, resource.key, declared.origin(resource)) for resource in resources]
        print_table(("kind", "name", "declared in"), rows, empty="nothing is declared")
    ctx.exit(WRONG if faults else 0)


def _document(declared: Declared, faults: list[Fault]) -> dict[str, object]:
    return {
        "valid": not faults,
        "functions": sorted(declared.functions),
        "triggers": sorted(declared.triggers),
        "schedules": sorted(declared.schedules),
        "faults": [asdict(fault) for fault in faults],
    }
