"""``torpor runtime``: serves one function in this process, as its container does."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import NoReturn

import click

from torpor.errors import StartError


@click.command("runtime", short_help="Serve one function in this process, as its container does.")
@click.argument("handler", metavar="[MODULE[:HANDLER]]", required=False)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    show_default="the current one",
    help="Folder of the code.",
)
@click.option("--host", default="", help="Address to listen on.  [default: all]")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 is any.  [default: PORT or 8080]"
)
def command(handler: str | None, folder: Path, host: str, port: int | None) -> None:
    """Serve the function MODULE:HANDLER (default: TORPOR_HANDLER, else main) until SIGTERM.

    Settings come from the environment, as the Knative runtime contract has it.
    """
    from torpor.runtime import logs  # noqa: PLC0415 - `--help` needs none of it
    from torpor.runtime.prepare import prepare  # noqa: PLC0415
    from torpor.runtime.server import serve  # noqa: PLC0415
    from torpor.settings import RuntimeSettings  # noqa: PLC0415

    signal.signal(signal.SIGTERM, _end)  # until the server has its own: nothing is served yet
    settings = RuntimeSettings.from_environment()
    handler = handler or settings.handler
    logs.configure(settings, handler)
    prepared = prepare(handler, folder)
    with _listener(host, settings.port if port is None else port) as listener:
        address = listener.getsockname()

        def ready() -> None:
            click.echo(f"Serving {prepared.describe()} on port {address[1]}.", err=True)

        serve(prepared, settings, listener, ready)


def _end(number: int, frame: object) -> NoReturn:  # noqa: ARG001 - what signal calls
    """End at once. Without it, the first process of a container would not heed SIGTERM at all.

    An exception would be raised in whatever is being imported, and be taken for a fault of that.
    """
    os._exit(0)


def _listener(host: str, port: int) -> socket.socket:
    try:
        if not host and socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=2048, dualstack_ipv6=True)
        return socket.create_server((host, port), backlog=2048)
    except OSError as error:
        raise StartError(f"can't listen on port {port}: {error.strerror or error}") from error
