"""The command line: ``torpor VERB``, one file a verb, read only when it is used.

A verb's file has a ``click`` command by the name ``command``. It raises a :class:`~torpor.errors.TorporError`
for what fails, and ``click.UsageError`` for wrong usage; :func:`main` turns them into a line on stderr and an
exit code: 0 done, 1 failed, 2 wrong usage or a wrong file.
"""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import click

from torpor.errors import DeclarationError, TorporError

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED, WRONG = 1, 2

VERBS = {
    "build": "Build the images of functions.",
    "calls": "Show what became of calls that nobody waits for.",
    "dead-letters": "Events that could not be delivered: look, replay, drop.",
    "deploy": "Declare functions, triggers and schedules to a cluster.",
    "describe": "Show all there is to say of a function or a schedule.",
    "doctor": "Check this machine and the platform that runs on it.",
    "events": "Send events, watch them go by, replay them.",
    "explain": "Show what happened to an event.",
    "invoke": "Call a function.",
    "list": "List what runs.",
    "logs": "Show what a function's instances write.",
    "new": "Make a folder with a new function and its test.",
    "role": "Run one part of the platform, as its pod in a cluster does.",
    "runtime": "Serve one function in this process, as its container does.",
    "up": "Run the platform on this machine, with your functions on it.",
    "validate": "Check declarations, and say everything that is wrong.",
}
"""Each verb and its help, here so that the list of them needs none of their files."""

# What only `pip install 'torpor[platform]'` brings.
_PLATFORM_MODULES = frozenset(
    (
        "aiohttp",
        "envoy",
        "google",
        "grpc",
        "httpx",
        "kubernetes",
        "nats",
        "obstore",
        "psutil",
        "rich",
        "ruamel",
        "watchfiles",
        "xds",
    )
)


@dataclass(frozen=True, slots=True)
class Globals:
    """What is said before the verb; ``click.pass_obj`` hands it to a command."""

    given_context: str | None

    @property
    def context(self) -> str:
        """The platform to talk to: what was given, else the setting, else ``local``."""
        from torpor.settings import PlatformSettings  # noqa: PLC0415 - most verbs need no settings

        return self.given_context or PlatformSettings.from_environment().context


CONTEXT_HELP = "Platform to talk to: 'local', 'kube:NAME[/NAMESPACE]' or a URL.  [default: local]"


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"torpor.cli.{cmd_name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], VERBS, n=1)
            expected = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(VERBS)} was expected"
            ctx.fail(f"there is no command '{args[0]}', {expected}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(sorted(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="torpor", prog_name="torpor")
@click.option("--context", metavar="NAME", help=CONTEXT_HELP)
@click.pass_context
def cli(ctx: click.Context, context: str | None) -> None:
    """Functions that rest at zero and wake on an event."""
    ctx.obj = Globals(context)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with ``arguments`` (default: this process's) and return its exit code."""
    try:
        outcome = cli.main(arguments, prog_name="torpor", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return FAILED
    except DeclarationError as error:
        for fault in error.faults:
            _complain(fault)
        return WRONG
    except TorporError as error:
        _complain(str(error))
        return FAILED
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _PLATFORM_MODULES:
            raise
        _complain(f"this needs pip install 'torpor[platform]': there is no module '{missing}'")
        return FAILED
    return outcome if isinstance(outcome, int) else 0


def _complain(text: str) -> None:
    click.echo(f"{click.style('Error:', fg='red')} {text}", err=True)


def main() -> NoReturn:
    """The console script."""
    raise SystemExit(run())
