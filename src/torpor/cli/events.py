"""``torpor events``: sends events to a broker, watches them go by, and has them delivered again."""

from __future__ import annotations

import contextlib
import itertools
import mimetypes
import uuid
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING

import click
import orjson

from torpor.binding import WireEvent, encode_structured, validate
from torpor.cli import replay
from torpor.cli.eventfile import batches, read_events
from torpor.cli.inputs import InputFile
from torpor.cli.output import output_option, plural
from torpor.cli.pace import read_bar
from torpor.cli.resume import resumed
from torpor.cli.target import WrongFileError, connect, context_option, full_name, namespace_option, short_name
from torpor.clock import SystemClock
from torpor.errors import MalformedEventError, RefusedError
from torpor.problems import ProblemType
from torpor.spec.replays import REPLAYED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torpor.cli import Globals

_PREVIEW_CHARACTERS = 160

broker_option = click.option(
    "--broker", default="default", show_default=True, help="Broker, as NAME or NAME.NAMESPACE."
)


@click.group("events", short_help="Send events, watch them go by, replay them.")
def command() -> None:
    """Send events to a broker, watch them go by, and have them delivered again."""


command.add_command(replay.command)


# --- send ---------------------------------------------------------------------------------------------------


@command.command("send", short_help="Send events to a broker.")
@click.argument("type_argument", metavar="[TYPE]", required=False)
@click.option("--type", "type_option", metavar="TYPE", help="The event's type: the same as the argument.")
@click.option("--source", metavar="URI", help="The event's source.  [default: /torpor/cli]")
@click.option("--id", "id_", metavar="ID", help="The event's id.  [default: a new one]")
@click.option("--subject", metavar="TEXT", help="The event's subject.")
@click.option(
    "-a", "--attribute", "attributes", metavar="NAME=VALUE", multiple=True, help="A further attribute."
)
@click.option("--data", metavar="JSON", help="The event's data.")
@click.option("--file", type=InputFile(), help="File with the event's data; '-' is stdin.")
@click.option(
    "-f",
    "--events",
    "events_file",
    type=InputFile(),
    help="File with whole events in JSON: one, an array, or one a line; '-' is stdin.",
)
@broker_option
@context_option
@namespace_option
@click.pass_obj
def send(
    chosen: Globals,
    /,
    *,
    type_argument: str | None,
    type_option: str | None,
    events_file: IO[bytes] | None,
    broker: str,
    namespace: str | None,
    **parts: object,
) -> None:
    """Send one event of TYPE, or those of a file, and return when they are durable.

    The events of a file go in batches of up to 100; each batch is taken whole or not at all.
    """
    space, name = full_name(broker, namespace)
    if type_argument is not None and type_option is not None:
        raise click.UsageError("the type is given twice")
    type_ = type_option if type_argument is None else type_argument
    events: Iterable[WireEvent]
    if events_file is not None:
        if type_ is not None or any(part not in (None, ()) for part in parts.values()):
            raise click.UsageError("-f holds whole events; nothing else of an event can be given with it")
        events = read_events(events_file)
    elif type_ is not None:
        events = [_event(type_, **parts)]  # type: ignore[arg-type] # click's options, named alike
    else:
        raise click.UsageError("nothing to send: a TYPE, or -f with a file of events, was expected")
    with connect(chosen) as client:
        sent, last = _send(events, lambda batch: client.send(batch, name, space), events_file)
    if not sent:
        raise WrongFileError("there is no event in it: one, an array of them, or one a line was expected")
    identity = f", id {last}" if sent == 1 else ""
    click.echo(f"Sent {plural(sent, 'event')} to {short_name(space, name)}{identity}.")


def _send(
    events: Iterable[WireEvent], send: Callable[[Sequence[WireEvent]], None], file: IO[bytes] | None
) -> tuple[int, str]:
    """Send all of them, or say how far it came; returns how many there were, and the id of the last."""
    sent, last, first = 0, "", ""
    try:
        with read_bar(file, "Sending") as so_far:
            for batch in batches(events):
                first = batch[0].id if file is not None else ""
                send(batch)
                sent, last = sent + len(batch), batch[-1].id
                so_far()
    except MalformedEventError as error:
        raise WrongFileError(f"{error}; {plural(sent, 'event')} before went out") from None
    except RefusedError as error:
        if first and len(batch) == 1 and error.status == ProblemType.TOO_LARGE.status:
            text = f"event {first[:200]!r}, the {sent + 1}. of the file, is refused: {error}"
            raise WrongFileError(f"{text}; {plural(sent, 'event')} before went out") from None
        _say_how_far(sent, first)
        raise
    except BaseException:  # an interrupt, too
        _say_how_far(sent, first)
        raise
    return sent, last


def _say_how_far(sent: int, first: str) -> None:
    if first:
        click.echo(f"{plural(sent, 'event')} went out before; go on with id {first!r}", err=True)


def _event(
    type_: str,
    *,
    source: str | None,
    id_: str | None,
    subject: str | None,
    attributes: tuple[str, ...],
    data: str | None,
    file: IO[bytes] | None,
) -> WireEvent:
    if data is not None and file is not None:
        raise click.UsageError("--data and --file were given together; one of them was expected")
    content, content_type = _data(data, file)
    chosen = {
        "specversion": "1.0",
        "id": str(uuid.uuid4()) if id_ is None else id_,
        "source": "/torpor/cli" if source is None else source,
        "type": type_,
        "time": datetime.fromtimestamp(SystemClock().now(), UTC).isoformat().replace("+00:00", "Z"),
    }
    if content_type is not None:
        chosen["datacontenttype"] = content_type
    if subject is not None:
        chosen["subject"] = subject
    for text in attributes:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"{text!r} is no attribute; NAME=VALUE was expected")
        chosen[name] = value
    try:
        validate(chosen)
    except MalformedEventError as error:
        raise click.UsageError(str(error)) from None
    return WireEvent(chosen, content)


def _data(data: str | None, file: IO[bytes] | None) -> tuple[bytes | None, str | None]:
    if file is not None:
        return file.read(), mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    if data is None:
        return None, None
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise click.UsageError(f"--data is not JSON: {error}; a text is quoted twice: '\"text\"'") from None
    return data.encode(), "application/json"


# --- tail ---------------------------------------------------------------------------------------------------


@command.command("tail", short_help="Show events as a broker takes them in.")
@click.option(
    "--filter",
    "filters",
    metavar="ATTRIBUTE=PATTERN",
    multiple=True,
    help="Only events with this, such as type=image.*; all must match.",
)
@click.option("--count", type=click.IntRange(min=1), help="End after so many events.")
@broker_option
@context_option
@namespace_option
@output_option
@click.pass_obj
def tail(
    chosen: Globals,
    *,
    filters: tuple[str, ...],
    count: int | None,
    broker: str,
    namespace: str | None,
    output: str,
) -> None:
    """Show each event that a broker takes in from now on, until Ctrl-C.

    With -o json it is one structured CloudEvent a line, as `torpor events send -f -` reads them. An event
    that is delivered again has `torporreplay` there.

    When the stream breaks off, this says so and goes on as soon as the platform answers again; events that
    came in between may be missing.
    """
    space, name = full_name(broker, namespace)
    # Ctrl-C is how a person ends this, not a failure.
    with contextlib.suppress(KeyboardInterrupt), connect(chosen) as client:
        begun = f"Watching {short_name(space, name)}; Ctrl-C ends it." if output == "table" else ""
        events = resumed(lambda: client.tail(name, space, filters=filters), _say, begun=begun)
        with contextlib.closing(events):
            for event in itertools.islice(events, count):
                click.echo(encode_structured(event) if output == "json" else _readable(event))


def _say(sentence: str) -> None:
    click.echo(sentence, err=True)


def _readable(event: WireEvent) -> str:
    attributes = event.attributes
    known = ("specversion", "type", "source", "id", "time", "datacontenttype", REPLAYED)
    others = [f"{name}={value}" for name, value in attributes.items() if name not in known]
    again = [click.style("(replayed)", fg="yellow")] if REPLAYED in attributes else []
    head = " ".join((click.style(event.type, bold=True), event.source, event.id, *again, *others))
    return f"{head}\n    {_preview(event)}"


def _preview(event: WireEvent) -> str:
    if event.data is None:
        return "no data"
    try:
        text = event.data.decode()
    except UnicodeDecodeError:
        text = ""
    if not text.isprintable() or not text:
        return (
            f"{plural(len(event.data), 'byte')} of {event.attributes.get('datacontenttype', 'no known type')}"
        )
    return text if len(text) <= _PREVIEW_CHARACTERS else f"{text[:_PREVIEW_CHARACTERS]}..."
