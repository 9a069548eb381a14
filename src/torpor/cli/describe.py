"""``torpor describe``: all there is to say of one function, or of one schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from torpor.cli import conditions, figures
from torpor.cli.logs import harmless
from torpor.cli.output import output_option, print_json, print_table
from torpor.cli.target import connect, context_option, full_name, namespace_option
from torpor.clock import SystemClock
from torpor.spec.faults import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torpor.cli import Globals
    from torpor.spec.status import FunctionStatus, ScheduleStatus, TriggerStatus


@click.command("describe", short_help="Show all there is to say of a function or a schedule.")
@click.argument("name")
@namespace_option
@context_option
@output_option
@click.pass_obj
def command(chosen: Globals, name: str, namespace: str | None, output: str) -> None:
    """Show all there is to say of the function NAME or NAME.NAMESPACE, or of the schedule schedule/NAME.

    Of a function that is its triggers too: what reaches it, and how far they are. function/NAME is the same
    as NAME.
    """
    kind, slash, rest = name.rpartition("/")
    if slash and kind not in ("function", "schedule"):
        raise click.UsageError(f"{name!r} is no name, NAME or NAME.NAMESPACE was expected, or schedule/NAME")
    space, short = full_name(rest, namespace)
    if kind == "schedule":
        _describe_schedule(chosen, space, short, output)
        return
    with connect(chosen) as client:
        function = client.function(short, space)
        triggers = [
            trigger
            for trigger in client.triggers()
            if (trigger.namespace, trigger.function) == (function.namespace, function.name)
        ]
    if output == "json":
        document = function.model_dump(mode="json", by_alias=True)
        print_json({**document, "triggers": triggers})
        return
    for label, value in _facts(function):
        click.echo(f"{label + ':':<14}{value}")
    _show("Instances", _INSTANCE_COLUMNS, _instances(function, SystemClock().now()), "none: at rest")
    _show("Triggers", _TRIGGER_COLUMNS, _triggers(triggers), "none: no event goes to it")


def _describe_schedule(chosen: Globals, space: str, name: str, output: str) -> None:
    with connect(chosen) as client:
        found = client.schedules()
    one = next((one for one in found if (one.namespace, one.name) == (space, name)), None)
    if one is None:
        near = did_you_mean(name, [each.name for each in found if each.namespace == space])
        hint = f"; did you mean {near!r}?" if near else ""
        raise click.ClickException(f"there is no schedule {name!r} in namespace {space!r}{hint}")
    if output == "json":
        print_json(one)
        return
    for label, value in _schedule_facts(one):
        click.echo(f"{label + ':':<14}{value}")


def _schedule_facts(one: ScheduleStatus) -> Iterable[tuple[str, object]]:
    yield "Name", one.name
    yield "Namespace", one.namespace
    yield "Ready", "yes" if one.ready else "no"
    if one.reason:
        yield "State" if one.ready else "Problem", one.reason
    yield "Cron", one.cron
    yield "Time zone", one.time_zone
    if one.jitter_seconds:
        yield "Jitter", f"up to {figures.duration(one.jitter_seconds)}"
    yield "Missed ones", one.missed_policy
    yield "Broker", one.broker
    yield "Event type", one.event_type
    late = "" if one.late_seconds is None else f", {one.late_seconds:.3f} s late"
    yield "Last firing", f"{figures.moment(one.last) or 'none yet'}{late}"
    yield "Next firing", figures.moment(one.next) or "none"
    yield "Fired", one.fired
    yield "Missed", one.missed


_INSTANCE_COLUMNS = ("id", "state", "revision", "pid", "memory", "age", "started in", "endpoint")
_TRIGGER_COLUMNS = (
    "name",
    "broker",
    "filters",
    "ready",
    "delivered",
    "redelivered",
    "failed",
    "dead letters",
    "pending",
    "state",
)


def _facts(function: FunctionStatus) -> Iterable[tuple[str, object]]:
    scaling = function.scaling
    yield "Name", function.name
    yield "Namespace", function.namespace
    yield "Ready", "yes" if function.ready else "no"
    yield "State" if function.ready else "Problem", function.reason
    yield "URL", function.url
    yield "Revision", function.revision or "none yet"
    if function.image is not None:
        yield "Image", function.image
    else:
        yield "Source", f"{function.source}, {function.handler}"
        yield "Declared in", function.declared_in
    if function.labels:
        yield "Labels", ", ".join(f"{name}={value}" for name, value in sorted(function.labels.items()))
    if function.image is None:
        yield "Start method", function.start_method or "not started yet"
    yield "Requests", function.requests
    yield "Restarts", function.restarts
    yield "Time-out", figures.duration(function.timeout_seconds)
    yield "Concurrency", f"{function.container_concurrency or 'no limit'} an instance"
    observed = "" if scaling.observed is None else f", {scaling.observed:g} observed"
    yield (
        "Scaling",
        f"{scaling.min_scale} to {scaling.max_scale} for {scaling.target:g} {scaling.metric} each{observed}",
    )
    panicking = " (in a burst)" if scaling.panicking else ""
    because = f": {scaling.reason}" if scaling.reason else ""
    yield "Desired", f"{function.desired}{panicking}{because}"


def _instances(function: FunctionStatus, now: float) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = []
    for one in function.instances:
        started = one.started_at.timestamp()
        took = f"{(one.ready_at - one.started_at).total_seconds() * 1000:.0f} ms" if one.ready_at else None
        memory, age = figures.size(one.memory_bytes), figures.duration(now - started)
        rows.append((one.id, one.state, one.revision, one.pid, memory, age, took, one.endpoint or None))
    return rows


def _triggers(triggers: Iterable[TriggerStatus]) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = []
    for one in triggers:
        counts = (one.delivered, one.redelivered, one.failed, one.dead_lettered, one.pending)
        ready = "yes" if one.ready else "no"
        filters = harmless(conditions.in_short(one.filters))
        rows.append((one.name, one.broker, filters, ready, *counts, one.reason or None))
    return rows


def _show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    if not rows:
        click.echo(f"{title + ':':<14}{empty}")
        return
    click.echo(f"\n{title}")
    # What is not known of any, such as the process of a pod, is left out.
    known = [index for index in range(len(columns)) if any(row[index] is not None for row in rows)]
    shown = [[row[index] for index in known] for row in rows]
    print_table([columns[index] for index in known], shown, empty=empty)
