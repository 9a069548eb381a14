"""``torpor up``: the platform on this machine, with your functions on it."""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import os
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson
import uvloop

from torpor.api.app import create
from torpor.api.places import LOCAL_URL
from torpor.api.server import serving
from torpor.cli.output import output_option, print_table
from torpor.clock import SystemClock, cancel, first_of
from torpor.errors import StartError
from torpor.events.brokers import Broker
from torpor.local import ports
from torpor.local.platform import LocalPlatform, Options
from torpor.local.reports import News, Report
from torpor.otlp import part_tracer
from torpor.settings import PlatformSettings

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable

    from torpor.otlp import Tracer

_LOG_BYTES = 8 * 1024 * 1024
_BROKERS = ("nats", "kafka")
_IMPATIENT = 130  # as shells have it for Ctrl-C
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_COLOURS = {News.BROKEN: "red", News.FAULT: "red", News.PART: "yellow"}
_WORDS = {
    News.READY: "up",
    News.APPLIED: "applied",
    News.STARTING: "starting",
    News.REMOVED: "removed",
    News.BROKEN: "broken",
    News.FAULT: "wrong",
    News.LOADED: "loaded",
    News.SCALED: "instances",
    News.PART: "part",
    News.STOPPING: "ending",
}


def _broker(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if value not in _BROKERS:
        try:
            Broker(value)
        except StartError as error:
            raise click.BadParameter(f"{error}, or nats or kafka") from None
        if value.startswith("memory:"):
            raise click.BadParameter("memory:// keeps nothing; it is for tests")
    return value


@click.command("up", short_help="Run the platform on this machine, with your functions on it.")
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8080,
    show_default=True,
    help="Port of the gateway on 127.0.0.1; 0 takes a free one.",
)
@click.option(
    "--data",
    "data_dir",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".torpor"),
    show_default=True,
    help="Where events, blobs and logs of the platform are kept.",
)
@click.option(
    "--broker",
    metavar="nats|kafka|URL",
    default="nats",
    show_default=True,
    callback=_broker,
    help="What keeps events: a NATS or a Kafka that is run here, or one that is there, "
    "nats://host:port or kafka://host:port[,host:port][/prefix].",
)
@output_option
def command(paths: tuple[Path, ...], port: int, data_dir: Path, broker: str, output: str) -> None:
    """Run the platform on this machine, with the functions below each PATH (default: this folder).

    Files are watched: a change takes effect, and a wrong one is shown and changes nothing. Ctrl-C ends it.
    With -o json each piece of news is one document a line.
    """
    for path in paths:
        if path.is_file() and path.suffix not in (".yaml", ".yml"):
            raise click.UsageError(f"{path} is neither a folder nor a YAML file, one of them was expected")
    settings = PlatformSettings.from_environment()
    options = Options(
        paths=tuple(path.absolute() for path in paths or (Path(),)),
        port=port,
        data_dir=data_dir.absolute(),
        cache_dir=settings.cache_dir.expanduser().absolute(),
        log_level=settings.log_level,
        broker=broker,
    )
    tell = _tell_json if output == "json" else _tell
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(options, tell, part_tracer("gateway", settings), quiet=output == "json"))


async def _run(
    options: Options, tell: Callable[[Report], None], tracer: Tracer | None, *, quiet: bool
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask_to_stop() -> None:
        for number in _ENDING_SIGNALS:  # who asks again does not want to wait; the kernel ends the children
            loop.add_signal_handler(number, os._exit, _IMPATIENT)
        stop.set()

    for number in _ENDING_SIGNALS:
        loop.add_signal_handler(number, ask_to_stop)
    listener: socket.socket = ports.listen()
    with listener:
        platform = LocalPlatform(options, ports.address(listener), SystemClock(), tell, tracer)
        async with _unless(stop, platform) as is_up:
            if not is_up:
                return
            logs = _log_to(options.data_dir / "torpor.log", options.log_level)
            try:
                async with serving(create(platform), listener):
                    if not quiet:
                        await _show(platform, options)
                    await stop.wait()
            finally:
                logging.getLogger().removeHandler(logs)
                logs.close()


@asynccontextmanager
async def _unless(stop: asyncio.Event, platform: LocalPlatform) -> AsyncIterator[bool]:
    """The platform, whose start ends when ``stop`` is set; whether it is up."""
    async with AsyncExitStack() as stack:
        starting = asyncio.ensure_future(stack.enter_async_context(platform))
        await first_of(asyncio.wait([starting]), stop.wait())
        if starting.done():
            await starting
        else:
            await cancel(starting)
        yield not stop.is_set()


def _log_to(path: Path, level: str) -> logging.Handler:
    """Keep what the parts log in a file, and what is wrong with their libraries: what a person must know is
    told on the terminal.
    """
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.getLogger("torpor").setLevel(level)
    logging.getLogger().addHandler(handler)
    return handler


async def _show(platform: LocalPlatform, options: Options) -> None:
    url = platform.url
    name = click.style(f"Torpor {metadata.version('torpor')}", bold=True)
    click.echo(f"\n{name} is up; Ctrl-C ends it.\n")
    for label, place in (
        ("functions", f"{url}/function/NAME"),
        ("events", f"{url}/events/default/default"),
        ("API", f"{url}/api/v1/docs"),
        ("data, logs", str(options.data_dir)),
    ):
        click.echo(f"  {label:<12}{place}")
    if url != LOCAL_URL:
        click.echo(f"\n  Other commands reach it with: torpor --context {url} ...")
    click.echo()
    rows = [(one.name, one.reason, one.url) for one in await platform.functions()]
    print_table(("function", "state", "url"), rows, empty="There are no functions yet.")
    click.echo()


def _tell(report: Report) -> None:
    if report.news is News.READY:  # the overview says it better
        return
    time = datetime.fromtimestamp(SystemClock().now(), UTC).astimezone().strftime("%H:%M:%S")
    word = click.style(f"{_WORDS[report.news]:<9}", fg=_COLOURS.get(report.news, "green"))
    click.echo(f"{click.style(time, dim=True)} {word} {report.subject}: {report.text}")


def _tell_json(report: Report) -> None:
    document = {"news": report.news.value, "subject": report.subject, "text": report.text}
    click.echo(orjson.dumps(document).decode())
