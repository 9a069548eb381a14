"""``torpor dead-letters``: looks at events that could not be delivered, replays them and drops them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from torpor.cli.logs import harmless
from torpor.cli.output import output_option, plural, print_json, print_table, unusable
from torpor.cli.pace import paced, rate_option, steps
from torpor.cli.target import connect, context_option, full_name, namespace_option, short_name
from torpor.cli.times import time_option
from torpor.errors import TorporError
from torpor.spec import selectors
from torpor.spec.letters import ID_FORM, MAX_IDS, LetterOutcome, LetterSelection
from torpor.spec.values import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torpor.api.client import Client
    from torpor.cli import Globals
    from torpor.spec.letters import DeadLetter

_TAKEN = "replayed or dropped by somebody else meanwhile"
_COLUMNS = ("id", "since", "trigger", "function", "type", "event", "attempts", "reason")


@click.group("dead-letters", short_help="Events that could not be delivered: look, replay, drop.")
def command() -> None:
    """Look at events that could not be delivered, have them delivered again, or drop them.

    They are kept until they are replayed or dropped.
    """


_SELECTING = (
    click.option("--trigger", "triggers", metavar="NAME", multiple=True, help="Of this trigger."),
    click.option("--function", "functions", metavar="NAME", multiple=True, help="Of this function."),
    click.option("--broker", "brokers", metavar="NAME", multiple=True, help="Of this broker."),
    click.option("--event", "event_ids", metavar="ID", multiple=True, help="Of the event of this id."),
    click.option("--type", "types", metavar="PATTERN", help="Of events of this type, such as image.*."),
    click.option(
        "--filter",
        "filters",
        metavar="ATTRIBUTE=PATTERN",
        multiple=True,
        help="Of events with this, such as source=/shop/*; all must match.",
    ),
    time_option("--since", help="From then on, such as -15m."),
    time_option("--until", help="Before then."),
)
_CALLED = {
    "triggers": "--trigger",
    "functions": "--function",
    "brokers": "--broker",
    "event_ids": "--event",
    "filters": "--filter",
    "since": "--since",
    "until": "--until",
}
"""Which option each field of a selection is."""


def _selecting(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_SELECTING):
        function = option(function)
    return function


def _selection(
    namespace: str | None,
    *,
    triggers: Sequence[str],
    functions: Sequence[str],
    brokers: Sequence[str],
    types: str | None,
    filters: Sequence[str],
    **others: Any,
) -> LetterSelection:
    conditions = (*filters, *(() if types is None else (f"type={types}",)))
    keys = {
        kind: tuple("/".join(full_name(each, namespace)) for each in given)
        for kind, given in (("triggers", triggers), ("functions", functions), ("brokers", brokers))
    }
    try:
        selectors.parse(conditions)
        return LetterSelection(**keys, filters=conditions, **others)
    except ValidationError as error:
        raise unusable(error, _CALLED) from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None


# --- list and show ------------------------------------------------------------------------------------------


@command.command("list", short_help="List dead letters.")
@_selecting
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many of them."
)
@context_option
@namespace_option
@output_option
@click.pass_obj
def list_(chosen: Globals, /, *, limit: int, namespace: str | None, output: str, **selecting: Any) -> None:
    """List dead letters, broker by broker and the oldest first."""
    selection = _selection(namespace, **selecting)
    with connect(chosen) as client:
        found = list(itertools.islice(client.dead_letters(selection), limit + 1))
    if output == "json":
        print_json(found[:limit])
        return
    print_table(_COLUMNS, map(_row, found[:limit]), empty="There are no such dead letters.")
    if len(found) > limit:
        click.echo(f"There are more than {limit}; --limit shows more of them.", err=True)


def _row(letter: DeadLetter) -> tuple[object, ...]:
    return (
        letter.id,
        f"{letter.at.astimezone():%Y-%m-%d %H:%M:%S}",
        _short(letter.trigger),
        _short(letter.function),
        letter.event_type,
        letter.event_id,
        letter.attempts,
        harmless(letter.reason),
    )


def _short(key: str) -> str:
    return short_name(*key.split("/", 1))


@command.command("show", short_help="Show a dead letter with its event.")
@click.argument("id_", metavar="ID")
@context_option
@output_option
@click.pass_obj
def show(chosen: Globals, *, id_: str, output: str) -> None:
    """Show why the event of a dead letter could not be delivered, and the event itself."""
    with connect(chosen) as client:
        letter = client.dead_letter(id_)
    if output == "json":
        print_json(letter)
        return
    facts = (
        ("id", letter.id),
        ("trigger", _short(letter.trigger)),
        ("function", _short(letter.function)),
        ("broker", _short(letter.broker)),
        ("since", f"{letter.at.astimezone():%Y-%m-%d %H:%M:%S}"),
        ("reason", letter.reason),
        ("attempts", letter.attempts),
        ("status", letter.code),
        ("answer", letter.answer or None),
    )
    for name, value in facts:
        if value is not None:
            click.echo(f"{name:<9} {harmless(str(value))}")
    print_json(letter.event)


# --- replay and drop ----------------------------------------------------------------------------------------

_dry_run = click.option("--dry-run", is_flag=True, help="Only say what would happen.")
_all = click.option("--all", "every", is_flag=True, help="Each that there is.")


@command.command("replay", short_help="Have dead letters delivered again.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_selecting
@_all
@rate_option
@_dry_run
@context_option
@namespace_option
@output_option
@click.pass_obj
def replay(
    chosen: Globals,
    /,
    *,
    ids: tuple[str, ...],
    every: bool,
    rate: float | None,
    dry_run: bool,
    namespace: str | None,
    output: str,
    **selecting: Any,
) -> None:
    """Have the dead letters of these IDs, or all that the options select, delivered again.

    Each event goes to the trigger that had failed with it, and to no other. Its dead letter is removed when
    that is durable; when the function fails again, there is a new one.
    """
    with connect(chosen) as client:
        wanted = _checked(ids) or _ids(client, namespace, every=every, **selecting)
        parts = paced(steps(wanted, rate, MAX_IDS), rate, "Replaying")
        outcomes = _done(parts, lambda part: client.replay(part, dry_run=dry_run))
    _report(outcomes, "Replayed", "would be replayed" if dry_run else "", output, named=bool(ids))


@command.command("drop", short_help="Remove dead letters for good.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_selecting
@_all
@click.option("--yes", is_flag=True, help="Do not ask.")
@_dry_run
@context_option
@namespace_option
@output_option
@click.pass_obj
def drop(
    chosen: Globals,
    /,
    *,
    ids: tuple[str, ...],
    every: bool,
    yes: bool,
    dry_run: bool,
    namespace: str | None,
    output: str,
    **selecting: Any,
) -> None:
    """Remove the dead letters of these IDs, or all that the options select, with their events."""
    with connect(chosen) as client:
        wanted = _checked(ids) or _ids(client, namespace, every=every, **selecting)
        if wanted and not (yes or dry_run):
            _confirm(f"Drop {plural(len(wanted), 'dead letter')} for good?")
        parts = paced(steps(wanted, None, MAX_IDS), None, "Dropping")
        outcomes = _done(parts, lambda part: client.drop(part, dry_run=dry_run))
    _report(outcomes, "Dropped", "would be dropped" if dry_run else "", output, named=bool(ids))


def _confirm(question: str) -> None:
    """Ask. Raises :class:`~torpor.errors.TorporError` for any answer but yes, and for none."""
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:  # there is nobody to ask
        click.echo(err=True)
        agreed = False
    if not agreed:
        raise TorporError("nothing was dropped; --yes drops without asking")


def _checked(ids: Sequence[str]) -> Sequence[str]:
    """``ids``, of which each can be one. Raises ``click.UsageError``."""
    for each in ids:
        try:
            ID_FORM.check(each)
        except ValueError as error:
            raise click.UsageError(f"{shown(each)} is no id of a dead letter: {error}") from None
    return ids


def _done(
    parts: Iterable[Sequence[str]], act: Callable[[Sequence[str]], Sequence[LetterOutcome]]
) -> list[LetterOutcome]:
    """The outcomes of ``parts``; where one can't be done, or a person ends it, those before are told."""
    outcomes: list[LetterOutcome] = []
    try:
        for part in parts:
            outcomes += act(part)
    except BaseException:  # an interrupt, too
        if outcomes:
            done = plural(len(outcomes), "dead letter")
            click.echo(f"{done} done before that; ask again for the rest", err=True)
        raise
    return outcomes


def _ids(client: Client, namespace: str | None, *, every: bool, **selecting: Any) -> list[str]:
    if not every and not any(selecting.values()):
        raise click.UsageError("which? IDs, an option that selects some, or --all was expected")
    return [letter.id for letter in client.dead_letters(_selection(namespace, **selecting))]


def _report(outcomes: Sequence[LetterOutcome], done: str, would: str, output: str, *, named: bool) -> None:
    """Say what happened. Raises :class:`~torpor.errors.TorporError` when something did not."""
    good = [each for each in outcomes if each.outcome in ("replayed", "dropped")]
    # One that was selected and is gone by now was dealt with by somebody else: that is no failure.
    bad = [each for each in outcomes if each.outcome == "refused" or (named and each.outcome == "unknown")]
    gone = len(outcomes) - len(good) - len(bad)
    others = f"; {gone} more {'was' if gone == 1 else 'were'} {_TAKEN}" if gone else ""
    if output == "json":
        print_json(list(outcomes))
    else:
        for each in good if would else ():
            click.echo(f"{each.id} {would}: {harmless(each.detail)}")
        if would:
            click.echo(f"{plural(len(good), 'dead letter')} {would}; nothing was changed{others}.")
        else:
            click.echo(f"{done} {plural(len(good), 'dead letter')}{others}.")
    for each in bad:
        click.echo(f"{each.id} {each.outcome}: {harmless(each.detail)}", err=True)
    if bad:
        raise TorporError(f"{plural(len(bad), 'dead letter')} of {len(outcomes)} can't be {done.lower()}")
