"""``torpor events replay``: has events that a broker still has delivered again."""

from __future__ import annotations

import itertools
import re
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from torpor.cli.logs import harmless
from torpor.cli.output import json_array, output_option, plural, unusable
from torpor.cli.pace import paced, rate_option, steps
from torpor.cli.target import connect, context_option, full_name, namespace_option, short_name
from torpor.cli.times import time_option
from torpor.clock import SystemClock
from torpor.spec import selectors
from torpor.spec.replays import MAX_EVENTS, REVISION, Replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torpor.api.client import Client
    from torpor.cli import Globals
    from torpor.spec.replays import ReplayedEvent

_SHOWN = 100
"""Most events that a person is shown of a dry run."""


@click.command("replay", short_help="Have events delivered again.")
@time_option("--from", "since", help="Events that were accepted then or later, such as -15m.", required=True)
@time_option("--to", "until", help="Events that were accepted before then.  [default: now]")
@click.option(
    "--filter",
    "filters",
    metavar="ATTRIBUTE=PATTERN",
    multiple=True,
    help="Only events with this, such as type=image.*; all must match.",
)
@click.option(
    "--to-function",
    "function",
    metavar="NAME[@REVISION]",
    help="To this function alone, whatever its triggers are; with @REVISION only while that one serves.",
)
@click.option("--broker", default="default", show_default=True, help="Broker, as NAME or NAME.NAMESPACE.")
@rate_option
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@context_option
@namespace_option
@output_option
@click.pass_obj
def command(
    chosen: Globals,
    /,
    *,
    broker: str,
    rate: float | None,
    dry_run: bool,
    namespace: str | None,
    output: str,
    **selecting: Any,
) -> None:
    """Have events that a broker still has delivered again, each to the triggers that match it now.

    With --to-function they go to that function and to nobody else, by a trigger's defaults: 10 retries, then
    a dead letter.

    A broker keeps what was delivered for a day. Functions run again for these events: what they do beside
    their replies is done twice.
    """
    space, name = full_name(broker, namespace)
    replay = _replay(space, **selecting)
    with connect(chosen) as client:
        if dry_run:
            _show(_pages(client, replay, space, name), output)
            return
        total = sum(1 for _ in _pages(client, replay, space, name))
        wanted = replay.model_copy(update={"dry_run": False})
        if output == "json":
            with json_array() as tell:
                _run(client, wanted, space, name, total, rate, tell)
        else:
            done = _run(client, wanted, space, name, total, rate, lambda _: None)
            click.echo(f"Replayed {plural(done, 'event')}.")


def _replay(
    namespace: str,
    *,
    since: datetime,
    until: datetime | None,
    filters: tuple[str, ...],
    function: str | None,
) -> Replay:
    """What is asked for, as a dry run, of a broker of ``namespace``. Raises ``click.UsageError``."""
    until = until or datetime.fromtimestamp(SystemClock().now(), UTC)
    if until <= since:
        raise click.UsageError("--to is not after --from")
    try:
        selectors.parse(filters)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    target = None if function is None else _function(function, namespace)
    run = uuid.uuid4().hex
    try:
        return Replay(since=since, until=until, filters=filters, function=target, run=run, dry_run=True)
    except ValidationError as error:
        raise unusable(error, {"function": "--to-function"}) from None


def _function(text: str, namespace: str) -> str:
    """The function as the API names it. Raises ``click.UsageError``."""
    name, at, revision = text.partition("@")
    if at and not re.match(REVISION, revision):
        expected = f"one that `torpor describe` shows was expected, such as {name}-00001"
        raise click.UsageError(f"{revision!r} is no revision; {expected}")
    space, name = full_name(name, None if "." in name else namespace)
    if space != namespace:
        raise click.UsageError(f"function {text!r} is not in the broker's namespace, {namespace!r}")
    return f"{space}/{name}{at}{revision}"


def _pages(client: Client, replay: Replay, space: str, name: str) -> Iterator[ReplayedEvent]:
    while True:
        page = client.replay_events(replay, name, space)
        yield from page.items
        if page.next_since is None:
            return
        replay = replay.model_copy(update={"since": page.next_since, "after": page.next_after})


def _run(
    client: Client,
    replay: Replay,
    space: str,
    name: str,
    total: int,
    rate: float | None,
    tell: Callable[[ReplayedEvent], None],
) -> int:
    """Do what was counted, at that rate, and no more: what comes meanwhile is not meant. Returns how many."""
    done, last = 0, replay.since
    try:
        for part in paced(steps(range(total), rate, MAX_EVENTS), rate, "Replaying"):
            missing = len(part)
            while missing:
                page = client.replay_events(replay.model_copy(update={"limit": missing}), name, space)
                for event in page.items:
                    tell(event)
                    done, last = done + 1, event.at
                missing -= len(page.items)
                if page.next_since is None:
                    return done
                replay = replay.model_copy(update={"since": page.next_since, "after": page.next_after})
    except BaseException:  # an interrupt, too
        if done < total:
            begun = f"{done} of {plural(total, 'event')} were replayed"
            rest = f"asked for again, they are replayed again; go on with --from {last.isoformat()}"
            click.echo(f"{begun}; {rest}, which has the last of them once more" if done else begun, err=True)
        raise
    return done


def _show(events: Iterator[ReplayedEvent], output: str) -> None:
    """Tell of a dry run as it goes, without keeping it."""
    if output == "json":
        with json_array() as tell:
            for event in events:
                tell(event)
        return
    first = list(itertools.islice(events, _SHOWN))
    for event in first:
        to = ", ".join(short_name(*key.split("/", 1)) for key in event.triggers)
        at = f"{event.at.astimezone():%Y-%m-%d %H:%M:%S}"
        click.echo(harmless(f"{at} {event.type} {event.source} {event.id} -> {to}"))
    more = sum(1 for _ in events)
    if more:
        click.echo(f"... and {more} more, which -o json tells")
    click.echo(f"{plural(len(first) + more, 'event')} would be delivered again; nothing was changed.")
