"""``torpor explain``: what happened to an event."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from pydantic import ValidationError

from torpor.cli.logs import harmless
from torpor.cli.output import output_option, plural, print_json, print_table, unusable
from torpor.cli.target import connect, context_option, full_name, namespace_option, short_name
from torpor.errors import TorporError
from torpor.events.names import CALLS, meant_by_name
from torpor.spec.history import Question
from torpor.spec.values import shown

if TYPE_CHECKING:
    from torpor.cli import Globals
    from torpor.spec.history import Answer, Explanation, Step

_SHOWN = 10
_CALLED = {"id": "EVENT-ID", "source": "--source", "broker": "--broker"}
"""What the command line calls the parts of a question."""


@click.command("explain", short_help="Show what happened to an event.")
@click.argument("event_id", metavar="EVENT-ID")
@click.option("--source", metavar="URI", help="The event's source, where several events have that id.")
@click.option("--broker", metavar="NAME", help="The broker that it was sent to.  [default: any]")
@context_option
@namespace_option
@output_option
@click.pass_obj
def command(
    chosen: Globals,
    *,
    event_id: str,
    source: str | None,
    broker: str | None,
    namespace: str | None,
    output: str,
) -> None:
    """Show when an event was accepted, what each trigger made of it and why, and what came of it."""
    key = None if broker is None else "/".join(full_name(broker, namespace))
    try:
        Question(id=event_id, source=source, broker=key)
    except ValidationError as error:
        raise unusable(error, _CALLED) from None
    with connect(chosen) as client:
        answer = client.explain(event_id, source, key)
    if output == "json":
        print_json(answer)
    else:
        for item in answer.items:
            _show(item)
        if len(answer.items) > 1:
            several = f"{len(answer.items)} events have the id {shown(event_id)}"
            click.echo(f"{several}; --source and --broker choose one.", err=True)
    if not answer.items:
        raise TorporError(_unknown(event_id, source, answer))


def _unknown(event_id: str, source: str | None, answer: Answer) -> str:
    of = "" if source is None else f" of source {shown(source)}"
    brokers = ", ".join(map(_short, answer.looked_at)) or "none"
    back = (
        "nothing is recorded there yet"
        if answer.since is None
        else f"the records there go back to {answer.since.astimezone():%Y-%m-%d %H:%M:%S}"
    )
    return f"there is no event {shown(event_id)}{of} in the brokers that were looked at ({brokers}); {back}"


def _show(item: Explanation) -> None:
    kept = "" if item.kept or _is_call(item) else "; the broker does not have it any more"
    click.secho(harmless(f"{item.id} of {item.source} in {_short(item.broker)}"), bold=True)
    days = sorted({f"{step.at.astimezone():%Y-%m-%d}" for step in item.steps})
    on = f", {days[0]}" if len(days) == 1 else ""
    click.echo(harmless(f"type {item.type or 'unknown'}{on}{kept}") + "\n")
    rows = (_row(step, with_day=len(days) > 1) for step in item.steps)
    print_table(("time", "what", "trigger", "instance", "status", "took", "happened"), rows, empty="")
    click.echo()
    if _is_call(item):
        click.echo(f"torpor calls show {item.id}")
        return
    print_table(
        ("trigger", "function", "matches", "because", "state"),
        (
            (
                _short(each.trigger),
                _short(each.function),
                {True: "yes", False: "no", None: None}[each.matches],
                harmless(each.reason),
                harmless(each.state),
            )
            for each in item.triggers
        ),
        empty="No trigger reads this broker.",
    )
    _show_forgotten(item)
    for group in item.groups:
        missing = f"; missing: {', '.join(map(str, group.missing[:_SHOWN]))}" if group.missing else ""
        more = ", ..." if len(group.missing) > _SHOWN else ""
        parts = f"{group.present} of {plural(group.size, 'part')}{missing}{more}"
        click.echo()
        click.echo(harmless(f"group {group.group} at {_short(group.trigger)}: {parts}; {group.state}"))
    if item.replies:
        click.echo()
    for reply in item.replies[:_SHOWN]:
        click.echo(harmless(f"reply {reply.id}, type {reply.type}; torpor explain '{reply.id}'"))
    if item.replies_total > _SHOWN:
        click.echo(f"and {item.replies_total - _SHOWN} more replies")
    for letter in item.dead_letters:
        click.echo(f"\ndead letter {letter}; torpor dead-letters show {letter}")
    click.echo()


def _is_call(item: Explanation) -> bool:
    """Whether it is a call that nobody waits for, which no trigger reads."""
    return item.broker == CALLS


def _show_forgotten(item: Explanation) -> None:
    """Name the triggers that had to do with it, and are there no more."""
    declared = {each.trigger for each in item.triggers}
    tried = (step.trigger.partition(" ")[0] for step in item.steps if step.what in ("delivery", "part"))
    for trigger in dict.fromkeys(tried):
        if trigger not in declared and meant_by_name(trigger) is None:
            gone = "is not declared any more, or reads another broker: nothing more comes of it there"
            click.echo(f"\ntrigger {_short(trigger)} {gone}")


def _row(step: Step, *, with_day: bool) -> tuple[object, ...]:
    took = None if step.duration_seconds is None else f"{step.duration_seconds * 1000:.0f} ms"
    trigger = _short(step.trigger) if step.trigger else None
    return (
        f"{step.at.astimezone():{'%Y-%m-%d ' if with_day else ''}%H:%M:%S.%f}"[:-3],
        step.what,
        trigger,
        step.instance and harmless(step.instance),
        step.status,
        took,
        harmless(step.text),
    )


def _short(key: str) -> str:
    key, space, way = key.partition(" ")  # the way to a trigger's sink has its key and a word
    namespace, slash, name = key.partition("/")
    return (short_name(namespace, name) if slash else key) + space + way
