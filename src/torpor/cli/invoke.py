"""``torpor invoke``: calls a function through the gateway, and shows what it answers."""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click
import orjson

from torpor.api.client import refused
from torpor.binding import STRUCTURED, decode_structured, is_json
from torpor.cli import FAILED
from torpor.cli.target import WrongFileError, connect, context_option, full_name, namespace_option
from torpor.clock import SystemClock
from torpor.errors import MalformedEventError, RefusedError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import httpx

    from torpor.api.client import Client
    from torpor.clock import Clock

_POLL_SECONDS = 0.2
_CHUNK_BYTES = 64 * 1024
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")  # RFC 9110, section 5.6.2
_STILL_STARTING = (404, 502, 503)


@dataclass(frozen=True, slots=True)
class _Body:
    """What is sent, and its type; neither when nothing is."""

    content: bytes | IO[bytes] | Iterable[bytes] | None = None
    content_type: str | None = None


@click.command("invoke", short_help="Call a function.")
@click.argument("name")
@click.option("--data", metavar="JSON", help="Body to send; JSON, unless -H gives its content-type.")
@click.option("--file", metavar="FILE", help="File to send as the body; '-' is stdin.")
@click.option("--event", metavar="FILE", help="File with a CloudEvent in JSON to send; '-' is stdin.")
@click.option("-X", "--method", help="HTTP method.  [default: POST with a body, else GET]")
@click.option("--path", default="/", show_default=True, help="Path, and query, below the function.")
@click.option("-H", "--header", "headers", metavar="'NAME: VALUE'", multiple=True, help="A header to send.")
@click.option("--async", "at_once", is_flag=True, help="Don't wait for the answer; print the call's id.")
@click.option("--callback", metavar="URL", help="Where the answer goes; with --async.")
@click.option("-i", "--include", is_flag=True, help="Show the status and headers of the answer, too.")
@click.option(
    "--wait",
    "wait_seconds",
    metavar="SECONDS",
    type=click.FloatRange(0, 3600),
    default=0.0,
    help="How long to wait for the platform, and for it to know the function.",
)
@context_option
@namespace_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    name: str,
    *,
    method: str | None,
    path: str,
    headers: tuple[str, ...],
    at_once: bool,
    include: bool,
    wait_seconds: float,
    namespace: str | None,
    **bodies: str | None,
) -> None:
    """Call the function NAME or NAME.NAMESPACE, and show the body of its answer.

    With --async the call is kept and made by the platform, and tried again while it fails; `torpor calls
    show ID` tells what became of it. The exit code is 1 when the answer's status is 400 or more.
    """
    space, short = full_name(name, namespace)
    sent = [_header(text) for text in headers]
    if (callback := bodies.pop("callback")) is not None:
        if not at_once:
            raise click.UsageError("--callback goes with --async: who waits is answered")
        sent.append(_header(f"X-Callback-Url: {callback}"))
    typed = any(header.lower() == "content-type" for header, _ in sent)
    with _body(typed=typed, **bodies) as body, connect(ctx.obj) as client:
        if body.content_type is not None and not typed:
            sent.append(("content-type", body.content_type))
        for header, _ in sent:
            if client.place.kept(header):
                raise click.UsageError(
                    f"the API server keeps the header {header!r} for itself; reach the gateway by its URL"
                )
        verb = (method or ("GET" if body.content is None else "POST")).upper()
        if wait_seconds:
            asyncio.run(_known(client, space, short, wait_seconds, SystemClock()))
        with client.invoke(
            short,
            space,
            method=verb,
            path=path,
            headers=sent,
            content=body.content,
            waits=not at_once,
        ) as response:
            code = _show(response, include=include)
            if at_once and response.is_success:
                click.echo(response.headers["x-call-id"])
            ctx.exit(code)


# --- what is sent -------------------------------------------------------------------------------------------


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not _HEADER_NAME.match(name.strip()) or not text.isprintable():
        raise click.UsageError(f"{text!r} is no header; 'NAME: VALUE' was expected")
    return name.strip(), value.strip()


@contextlib.contextmanager
def _body(*, typed: bool, data: str | None, file: str | None, event: str | None) -> Iterator[_Body]:
    if sum(given is not None for given in (data, file, event)) > 1:
        raise click.UsageError("--data, --file and --event were given together; one body was expected")
    if data is not None:
        yield _Body(data.encode() if typed else _json(data), "application/json")
    elif file is not None:
        guessed = mimetypes.guess_type(file)[0] or "application/octet-stream"
        with _opened(file) as content:
            # The length of a pipe is not known, and httpx would take it for none.
            yield _Body(iter(lambda: content.read(_CHUNK_BYTES), b"") if file == "-" else content, guessed)
    elif event is not None:
        with _opened(event) as content:
            yield _Body(_event(event, content.read()), STRUCTURED.decode())
    else:
        yield _Body()


def _json(text: str) -> bytes:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise click.UsageError(
            f"--data is not JSON: {error}; quote a text as '\"{text[:20]}\"', or give its type, such as"
            " -H 'content-type: text/plain'"
        ) from None
    return text.encode()


@contextlib.contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    if path == "-":
        yield sys.stdin.buffer
        return
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(Path(path).open("rb"))
        except OSError as error:
            raise WrongFileError(f"{path} can't be read: {error.strerror}") from None
        yield opened


def _event(path: str, content: bytes) -> bytes:
    try:
        decode_structured(content)
    except MalformedEventError as error:
        raise WrongFileError(f"{path} is not a CloudEvent in JSON: {error}") from None
    return content


async def _known(client: Client, namespace: str, name: str, wait_seconds: float, clock: Clock) -> None:
    """Return once the platform answers for the function; raise the last error when it does not in time."""
    end = clock.monotonic() + wait_seconds
    while True:
        try:
            client.function(name, namespace)
        except (UnreachableError, RefusedError) as error:
            starting = isinstance(error, UnreachableError) or error.status in _STILL_STARTING
            if not starting or clock.monotonic() >= end:
                raise
        else:
            return
        await clock.sleep(_POLL_SECONDS)


# --- what is shown ------------------------------------------------------------------------------------------


def _show(response: httpx.Response, *, include: bool) -> int:
    if include:
        click.echo(f"HTTP {response.status_code} {response.reason_phrase}")
        for name, value in response.headers.multi_items():
            click.echo(f"{name}: {value}")
        click.echo()
    content_type = response.headers.get("content-type", "")
    if response.is_error and content_type.startswith("application/problem+json"):
        _show_problem(refused(response.status_code, response.headers, response.read()))
        return FAILED
    stdout = sys.stdout.buffer
    if content_type and is_json(content_type) and sys.stdout.isatty():
        stdout.write(_pretty(response.read()))
    else:
        for chunk in response.iter_bytes():
            stdout.write(chunk)
            stdout.flush()
    stdout.flush()
    if not response.is_success:
        location = response.headers.get("location")
        click.echo(
            f"the function answered {response.status_code}{f' to {location}' if location else ''}", err=True
        )
    return FAILED if response.is_error else 0


def _pretty(body: bytes) -> bytes:
    try:
        return orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONDecodeError:
        return body


def _show_problem(problem: RefusedError) -> None:
    click.echo(f"{click.style('error:', fg='red')} {problem.title} ({problem.status})", err=True)
    for label, value in (
        ("", problem.detail),
        ("type: ", problem.problem_type),
        ("request: ", problem.request_id),
    ):
        if value:
            click.echo(f"  {label}{value}", err=True)
