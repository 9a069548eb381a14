"""``torpor list``: what runs, in one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from torpor.cli import figures
from torpor.cli.output import output_option, print_json, print_table
from torpor.cli.target import connect, context_option
from torpor.spec.status import BrokerStatus, FunctionStatus, ScheduleStatus, TriggerStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torpor.cli import Globals

KINDS = ("functions", "triggers", "schedules", "brokers")
_Shown = FunctionStatus | TriggerStatus | ScheduleStatus | BrokerStatus


@click.command("list", short_help="List what runs.")
@click.argument("kind", type=click.Choice(KINDS), default="functions")
@click.option("-n", "--namespace", help="Only this namespace.")
@context_option
@output_option
@click.pass_obj
def command(chosen: Globals, kind: str, namespace: str | None, output: str) -> None:
    """List functions, triggers, schedules or brokers of the platform."""
    with connect(chosen) as client:
        resources: Sequence[_Shown]
        if kind == "functions":
            resources = client.functions()
        elif kind == "triggers":
            resources = client.triggers()
        elif kind == "schedules":
            resources = client.schedules()
        else:
            resources = client.brokers()
    found = [resource for resource in resources if namespace in (None, resource.namespace)]
    if output == "json":
        print_json(found)
        return
    columns, rows = _COLUMNS[kind], [_row(resource) for resource in found]
    print_table(columns, rows, empty=f"There are no {kind}{f' in {namespace}' if namespace else ''}.")


_COLUMNS = {
    "functions": ("name", "namespace", "ready", "instances", "requests", "state", "url"),
    "triggers": (
        "name",
        "namespace",
        "broker",
        "function",
        "ready",
        "delivered",
        "pending",
        "dead letters",
        "state",
    ),
    "schedules": (
        "name",
        "namespace",
        "cron",
        "zone",
        "broker",
        "ready",
        "fired",
        "missed",
        "last",
        "next",
        "state",
    ),
    "brokers": ("name", "namespace", "published", "delivered", "pending", "dead letters", "url"),
}


def _row(one: _Shown) -> Sequence[object]:
    if isinstance(one, FunctionStatus):
        ready = sum(instance.state == "ready" for instance in one.instances)
        instances = f"{ready}/{one.desired}"
        return one.name, one.namespace, yes(one.ready), instances, one.requests, one.reason, one.url
    if isinstance(one, TriggerStatus):
        counts = (one.delivered, one.pending, one.dead_lettered)
        return one.name, one.namespace, one.broker, one.function, yes(one.ready), *counts, one.reason or None
    if isinstance(one, ScheduleStatus):
        when = (figures.moment(one.last), figures.moment(one.next))
        what = (one.name, one.namespace, one.cron, one.time_zone, one.broker)
        return *what, yes(one.ready), one.fired, one.missed, *when, one.reason or None
    return one.name, one.namespace, one.published, one.delivered, one.pending, one.dead_lettered, one.url


def yes(value: bool) -> str:
    """``yes`` or ``no``."""
    return "yes" if value else "no"
