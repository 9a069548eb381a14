"""What the forked processes do: a template imports and prepares a function, an instance serves it.

Each function here runs in a child just after the fork. Its standard output and error are pipes to the
platform.
"""

from __future__ import annotations

import atexit
import gc
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from torpor.errors import HandlerError, StartError
from torpor.providers.process import safety, wire
from torpor.providers.process.forker import Forker
from torpor.providers.process.lifeline import set_name, watch
from torpor.runtime.prepare import prepare
from torpor.runtime.server import serve
from torpor.settings import RuntimeSettings, replace_environment

if TYPE_CHECKING:
    from torpor.providers.process.forker import Work
    from torpor.providers.process.wire import Message
    from torpor.runtime.prepare import Prepared

FAILED = 1
LISTENER, READY, STDOUT, STDERR = range(4)  # the descriptors of an instance, in the order they travel in


def warm_up() -> None:
    """Do once, in the parent, what every child would do: the imports of this module are most of it."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.stderr.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def from_parent(message: Message, descriptors: list[int], lifeline: int) -> Work:
    """The work of a child of the warm parent."""
    if message["op"] == "template":
        return lambda: _template(message, descriptors, lifeline)
    return lambda: _importing_instance(message, descriptors, lifeline)


def _template(message: Message, descriptors: list[int], lifeline: int) -> None:
    """Import and prepare the function, tell how it went, and fork instances of it if it can be forked."""
    channel_descriptor, stdout, stderr = descriptors
    _take_outputs(stdout, stderr)
    set_name(f"template:{message['service']}")
    channel = socket.socket(fileno=channel_descriptor)
    before = safety.open_descriptors()
    try:
        prepared = _prepare(message)
    except HandlerError as error:
        wire.send(channel, {"event": "failed", "error": str(error)})
        _leave(FAILED)
    reasons = safety.why_not(before)
    if not reasons:
        gc.freeze()
    wire.send(channel, {"event": "prepared", "reasons": reasons})
    if reasons:
        _leave(0)  # at once: threads of the module's could keep an orderly exit from ending

    def make_work(request: Message, its_descriptors: list[int], its_lifeline: int) -> Work:
        return lambda: _forked_instance(prepared, request, its_descriptors, its_lifeline)

    work = Forker(channel, make_work, lifeline).run()
    work()


def _forked_instance(prepared: Prepared, message: Message, descriptors: list[int], lifeline: int) -> None:
    _take_outputs(descriptors[STDOUT], descriptors[STDERR])
    replace_environment(message["env"])
    _serve(prepared, message, descriptors, lifeline)


def _importing_instance(message: Message, descriptors: list[int], lifeline: int) -> None:
    _take_outputs(descriptors[STDOUT], descriptors[STDERR])
    try:
        prepared = _prepare(message)
    except HandlerError as error:
        sys.stderr.write(f"{error}\n")
        _leave(FAILED)
    _serve(prepared, message, descriptors, lifeline)


def _prepare(message: Message) -> Prepared:
    folder = Path(message["folder"])
    replace_environment(message["env"])
    try:
        os.chdir(folder)
    except OSError as error:
        raise HandlerError(f"{folder}: {error.strerror}") from error
    return prepare(message["handler"], folder)


def _serve(prepared: Prepared, message: Message, descriptors: list[int], lifeline: int) -> None:
    set_name(message["id"])
    ready = descriptors[READY]

    def on_ready() -> None:
        watch(lifeline)
        os.write(ready, b"\x01")
        os.close(ready)

    listener = socket.socket(fileno=descriptors[LISTENER])
    try:
        serve(prepared, RuntimeSettings.from_environment(), listener, on_ready)
    except StartError as error:
        sys.stderr.write(f"{error}\n")
        _leave(FAILED)
    # What the module registered for its end is done, but threads that it left running are not waited for: the
    # interpreter's own exit would, for ever.
    atexit._run_exitfuncs()  # noqa: SLF001 - there is no public way to do this and not wait
    _leave(0)


def _take_outputs(stdout: int, stderr: int) -> None:
    for given, standard in ((stdout, 1), (stderr, 2)):
        os.dup2(given, standard)
        os.close(given)


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
