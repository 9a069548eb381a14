"""What the verbs that talk to a platform share: which platform, and which resource on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from torpor.api.client import Client
from torpor.api.places import find
from torpor.cli import CONTEXT_HELP, Globals
from torpor.settings import PlatformSettings

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_NAMESPACE = "default"

namespace_option: Callable[[Any], Any] = click.option(
    "-n", "--namespace", metavar="NAMESPACE", help=f"Namespace of the name.  [default: {DEFAULT_NAMESPACE}]"
)
"""The option of every verb that takes a name; its value comes as ``namespace``."""


def _set_context(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.obj = Globals(value)


context_option: Callable[[Any], Any] = click.option(
    "--context", metavar="NAME", help=CONTEXT_HELP, expose_value=False, callback=_set_context
)
"""The option of every verb that talks to a platform, where it may stand as well as before the verb."""


class WrongFileError(click.ClickException):
    """A file that a person named holds something wrong; the exit code is that of wrong usage."""

    exit_code = 2


def connect(chosen: Globals) -> Client:
    """A client of the platform that the command line names.

    Raises ``click.UsageError`` when it names none.
    """
    try:
        return Client(find(chosen.context, PlatformSettings.from_environment().kubeconfig))
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def full_name(text: str, namespace: str | None) -> tuple[str, str]:
    """Namespace and name of what ``NAME`` or ``NAME.NAMESPACE`` and the option ``-n`` name together.

    Raises ``click.UsageError`` when they contradict each other, or when ``text`` is no such name.
    """
    name, dot, written = text.partition(".")
    if not name or (dot and not written) or "/" in text:
        raise click.UsageError(f"{text!r} is no name; NAME or NAME.NAMESPACE was expected")
    if written and namespace and written != namespace:
        raise click.UsageError(f"{text!r} is in {written!r}, and -n names {namespace!r}")
    return written or namespace or DEFAULT_NAMESPACE, name


def short_name(namespace: str, name: str) -> str:
    """How a person names a resource: without its namespace where that is the default."""
    return name if namespace == DEFAULT_NAMESPACE else f"{name}.{namespace}"
