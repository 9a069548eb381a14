"""``torpor events replay``: has events that a broker still has delivered again."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from torpor.cli.logs import harmless
from torpor.cli.output import output_option, plural, print_json
from torpor.cli.pace import paced, rate_option, steps
from torpor.cli.target import connect, context_option, full_name, namespace_option, short_name
from torpor.cli.times import time_option
from torpor.clock import SystemClock
from torpor.errors import TorporError
from torpor.spec import selectors
from torpor.spec.replays import MAX_EVENTS, Replay

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torpor.api.client import Client
    from torpor.cli import Globals
    from torpor.spec.replays import ReplayedEvent


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
@click.option("--to-function", "function", metavar="NAME", help="Only to triggers of this function.")
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

    A broker keeps what was delivered for a day. Functions run again for these events: what they do beside
    their replies is done twice.
    """
    space, name = full_name(broker, namespace)
    replay = _replay(namespace, **selecting)
    with connect(chosen) as client:
        _require(client, replay.function, f"{space}/{name}")
        wanted = list(_pages(client, replay, space, name))
        if not dry_run:
            wanted = _run(client, replay.model_copy(update={"dry_run": False}), space, name, wanted, rate)
    _report(wanted, output, dry_run=dry_run)


def _replay(
    namespace: str | None,
    *,
    since: datetime,
    until: datetime | None,
    filters: tuple[str, ...],
    function: str | None,
) -> Replay:
    """What is asked for, as a dry run. Raises ``click.UsageError``."""
    until = until or datetime.fromtimestamp(SystemClock().now(), UTC)
    if until <= since:
        raise click.UsageError("--to is not after --from")
    try:
        selectors.parse(filters)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    key = None if function is None else "/".join(full_name(function, namespace))
    return Replay(since=since, until=until, filters=filters, function=key, run=uuid.uuid4().hex, dry_run=True)


def _require(client: Client, function: str | None, broker: str) -> None:
    """Check that the broker has a trigger of that function. Raises :class:`~torpor.errors.TorporError`."""
    if function is None:
        return
    for trigger in client.triggers():
        where = (f"{trigger.namespace}/{trigger.function}", f"{trigger.namespace}/{trigger.broker}")
        if where == (function, broker):
            return
    raise TorporError(f"no trigger of broker {broker} calls the function {function}")


def _pages(client: Client, replay: Replay, space: str, name: str) -> Iterator[ReplayedEvent]:
    while True:
        page = client.replay_events(replay, name, space)
        yield from page.items
        if page.next_since is None:
            return
        replay = replay.model_copy(update={"since": page.next_since, "after": page.next_after})


def _run(
    client: Client, replay: Replay, space: str, name: str, wanted: Sequence[ReplayedEvent], rate: float | None
) -> list[ReplayedEvent]:
    """Do what was counted, at that rate, and no more: what comes meanwhile is not meant."""
    done: list[ReplayedEvent] = []
    try:
        for part in paced(steps(wanted, rate, MAX_EVENTS), rate, "Replaying"):
            missing = len(part)
            while missing:
                page = client.replay_events(replay.model_copy(update={"limit": missing}), name, space)
                done += page.items
                missing -= len(page.items)
                if page.next_since is None:
                    return done
                replay = replay.model_copy(update={"since": page.next_since, "after": page.next_after})
    except BaseException:  # an interrupt, too
        if len(done) < len(wanted):
            begun = f"{len(done)} of {plural(len(wanted), 'event')} were replayed"
            start = wanted[len(done)].at.isoformat()
            rest = f"asked for again, they are replayed again; go on with --from {start}"
            click.echo(f"{begun}; {rest}" if done else begun, err=True)
        raise
    return done


def _report(events: Sequence[ReplayedEvent], output: str, *, dry_run: bool) -> None:
    if output == "json":
        print_json(list(events))
        return
    if dry_run:
        for event in events:
            to = ", ".join(short_name(*key.split("/", 1)) for key in event.triggers)
            at = f"{event.at.astimezone():%Y-%m-%d %H:%M:%S}"
            click.echo(harmless(f"{at} {event.type} {event.source} {event.id} -> {to}"))
        click.echo(f"{plural(len(events), 'event')} would be delivered again; nothing was changed.")
        return
    click.echo(f"Replayed {plural(len(events), 'event')}.")
