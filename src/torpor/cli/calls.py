"""``torpor calls``: what became of calls that nobody waits for."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, get_args

import click
from pydantic import ValidationError

from torpor.cli import FAILED
from torpor.cli.logs import harmless
from torpor.cli.output import output_option, plural, print_json, print_table, unusable
from torpor.cli.target import connect, context_option, full_name, short_name
from torpor.clock import SystemClock
from torpor.spec.calls import MAX_CALLS, CallSelection, CallState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torpor.api.client import Client
    from torpor.cli import Globals
    from torpor.clock import Clock
    from torpor.spec.calls import CallResult, CallStatus, CallSummary

_COLUMNS = ("id", "accepted", "function", "request", "state", "attempts", "status", "ended", "reason")
_POLL_SECONDS = 0.5
_ENDED = ("succeeded", "failed")
_SHOWN = 4000


@click.group("calls", short_help="Show what became of calls that nobody waits for.")
def command() -> None:
    """Show what became of calls that were made with `torpor invoke --async`, or at /async-function."""


@command.command("list", short_help="List calls, the newest first.")
@click.argument("name", metavar="[NAME]", required=False)
@click.option(
    "--state",
    "states",
    type=click.Choice(get_args(CallState)),
    multiple=True,
    help="In this state; give it again for others.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many of them."
)
@context_option
@click.option("-n", "--namespace", metavar="NAMESPACE", help="Of functions of this namespace.")
@output_option
@click.pass_obj
def list_(
    chosen: Globals,
    /,
    *,
    name: str | None,
    states: tuple[CallState, ...],
    limit: int,
    namespace: str | None,
    output: str,
) -> None:
    """List calls that nobody waits for, of all functions or of NAME.

    Those that were accepted last come first; calls that ended over an hour ago, and those that are listed by
    the state in which they ended, by their end. A call is listed until a day after its end.
    """
    selection = _selection(name, namespace, states, limit)
    with connect(chosen) as client:
        found = list(itertools.islice(client.calls(selection), limit + 1))
    if output == "json":
        print_json(found[:limit])
        return
    print_table(_COLUMNS, map(_row, found[:limit]), empty="There are no such calls.")
    if len(found) > limit:
        click.echo(f"There are more than {limit}; --limit shows more of them.", err=True)


def _selection(
    name: str | None, namespace: str | None, states: tuple[CallState, ...], limit: int
) -> CallSelection:
    if name is not None:
        namespace, name = full_name(name, namespace)
    try:
        return CallSelection(
            namespace=namespace, function=name, state=states, limit=min(limit + 1, MAX_CALLS)
        )
    except ValidationError as error:
        raise unusable(error, {"namespace": "-n", "function": "NAME"}) from None


def _row(call: CallSummary) -> tuple[object, ...]:
    return (
        call.id,
        f"{call.accepted_at.astimezone():%Y-%m-%d %H:%M:%S}",
        short_name(*call.function.split("/", 1)),
        f"{call.method} {harmless(call.path)}",
        call.state,
        call.attempts,
        call.status,
        None if call.finished_at is None else f"{call.finished_at.astimezone():%Y-%m-%d %H:%M:%S}",
        harmless(call.reason),
    )


@command.command("show", short_help="Show how far a call is, and what came of it.")
@click.argument("call_id", metavar="CALL-ID")
@click.option(
    "--wait",
    "wait_seconds",
    metavar="SECONDS",
    type=click.FloatRange(0, 86_400),
    default=0.0,
    help="How long to wait for the end of the call.",
)
@context_option
@output_option
@click.pass_context
def show(ctx: click.Context, /, *, call_id: str, wait_seconds: float, output: str) -> None:
    """Show how far the call CALL-ID is, and what the function answered.

    The exit code is 1 when the call has failed.
    """
    with connect(ctx.obj) as client:
        status = asyncio.run(_ended(client, call_id, wait_seconds, SystemClock()))
    if output == "json":
        print_json(status)
    else:
        for line in _lines(status):
            click.echo(line)
    ctx.exit(FAILED if status.state == "failed" else 0)


async def _ended(client: Client, call_id: str, wait_seconds: float, clock: Clock) -> CallStatus:
    """The call's status once it has ended, or after ``wait_seconds``."""
    end = clock.monotonic() + wait_seconds
    while True:
        status = client.call(call_id)
        if status.state in _ENDED or clock.monotonic() >= end:
            return status
        await clock.sleep(_POLL_SECONDS)


def _lines(status: CallStatus) -> Iterator[str]:
    tried = f" after {plural(status.attempts, 'attempt')}" if status.attempts else ""
    yield f"{status.method} {harmless(status.path)} of {status.function}"
    yield f"{status.state}{tried}{f': {harmless(status.reason)}' if status.reason else ''}"
    yield f"accepted {status.accepted_at.astimezone():%Y-%m-%d %H:%M:%S}" + (
        f", ended {status.finished_at.astimezone():%H:%M:%S}" if status.finished_at else ""
    )
    callback = status.callback
    if callback is not None:
        why = f": {harmless(callback.reason)}" if callback.reason else ""
        yield f"callback to {harmless(callback.url)} {callback.state}{why}"
    if status.result is not None:
        yield ""
        yield from _answer(status.result)


def _answer(result: CallResult) -> Iterator[str]:
    cut = ", of which the beginning was kept" if result.truncated else ""
    yield f"HTTP {result.status}, {plural(result.size_bytes, 'byte')}{cut}"
    if result.blob is not None:
        yield f"the body is the blob {result.blob}: GET /api/v1/blobs/{result.blob}"
    elif result.body_base64 is not None:
        yield "the body is no text: -o json has it in Base64"
    elif result.body:
        yield from map(harmless, result.body[:_SHOWN].splitlines())
