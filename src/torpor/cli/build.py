"""``torpor build``: an image of each function, by the builder that is there."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

from torpor.cli import image, wheel
from torpor.cli.context import Context, Runtime, context
from torpor.cli.output import output_option, plural, print_json, print_table
from torpor.clock import SystemClock
from torpor.errors import ImageBuildError
from torpor.spec.load import load

if TYPE_CHECKING:
    from torpor.cli.image import Choices
    from torpor.spec.models import Function

_LOOK_SECONDS = 20
_STDERR = 2


@click.command("build", short_help="Build the images of functions.")
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("more", metavar="[-- OPTION...]", nargs=-1)
@click.option("--function", "only", metavar="NAME", help="Build this one of PATH's functions alone.")
@click.option(
    "--tag",
    metavar="REFERENCE",
    help="The image's name, where PATH has one function.  [default: REPOSITORY/NAME:DIGEST]",
)
@click.option(
    "--repository", default=image.REPOSITORY, show_default=True, help="Where images are named to be kept."
)
@click.option(
    "--builder", type=click.Choice(image.BUILDERS), help="What builds.  [default: the first that works]"
)
@click.option("--base", default=image.BASE, show_default=True, help="Image with Python that they stand on.")
@click.option(
    "--index", default="", metavar="URL", help="Package index, without a password.  [default: pip's]"
)
@click.option(
    "--platform", default="", metavar="OS/ARCH", help="Platform to build for.  [default: the builder's]"
)
@click.option(
    "--torpor",
    metavar="REQUIREMENT",
    help="The runtime: a requirement, or a wheel's path.  [default: this very version]",
)
@click.option("--push", is_flag=True, help="Push each image to where its name says, once it is built.")
@click.option(
    "--write-context",
    "context_folder",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write what a builder needs into this new folder, a folder a function, and build nothing.",
)
@output_option
def command(  # noqa: PLR0913, PLR0917 - one for each option
    path: Path,
    more: tuple[str, ...],
    only: str | None,
    tag: str | None,
    repository: str,
    builder: str | None,
    base: str,
    index: str,
    platform: str,
    torpor: str | None,
    push: bool,
    context_folder: Path | None,
    output: str,
) -> None:
    """Build an image of each function that the folder or file PATH declares.

    An image has the runtime, the function's requirements and its code, without tests and hidden files. It
    runs as nobody, on a read-only file system, wherever the Knative runtime contract holds. What stands after
    -- goes to the builder as it is.
    """
    _check(tag, repository, platform)
    functions = _chosen(list(load([path], complete=False).functions.values()), only, path)
    if tag is not None and len(functions) != 1:
        names = ", ".join(function.metadata.name for function in functions)
        raise click.UsageError(
            f"--tag names one image, and {path} has {names}: use --function or --repository"
        )
    runtime = find_runtime(torpor)
    if push and context_folder is not None:
        raise click.UsageError("--push and --write-context were given together; one of them was expected")
    if context_folder is not None:
        _write_contexts(functions, runtime, context_folder)
        return
    choices = image.Choices(builder or find_builder(), base, index, platform, more)
    rows = []
    for function in functions:
        made = make_context(function, runtime)
        digest = made.digest(base, platform)
        reference = tag or image.default_reference(repository, function.metadata.name, digest)
        seconds = _build(choices, reference, made)
        if push:
            _push(choices.builder, reference)
        rows.append({"function": function.key, "image": reference, "seconds": round(seconds, 1)})
    if output == "json":
        print_json(rows)
    else:
        print_table(("function", "image", "seconds"), [list(row.values()) for row in rows], empty="")


def _chosen(functions: list[Function], only: str | None, path: Path) -> list[Function]:
    """Those of ``functions``, which ``path`` declares, that are to be built."""
    chosen = [function for function in functions if only in (None, function.metadata.name)]
    if not chosen and functions:
        names = ", ".join(function.metadata.name for function in functions)
        raise click.UsageError(f"--function is '{only}', one of those in {path} was expected: {names}")
    return chosen


def _check(tag: str | None, repository: str, platform: str) -> None:
    """Raise ``click.UsageError`` for what no builder would take."""
    faults = (
        image.check_reference(tag) if tag is not None else None,
        image.check_reference(f"{repository.rstrip('/')}/name"),
        image.check_platform(platform) if platform else None,
    )
    for fault in faults:
        if fault is not None:
            raise click.UsageError(fault)


def find_runtime(wanted: str | None) -> Runtime:
    """The runtime for images: what is ``wanted``, else the version that runs here.

    The latter comes from an index if this one did, else as a wheel of this one's files.
    """
    if wanted is not None and wanted.endswith(".whl"):
        path = Path(wanted)
        try:
            given = wheel.Wheel(path.name, path.read_bytes())
        except OSError as error:
            raise ImageBuildError(f"{wanted} can't be read: {error.strerror}") from error
        return Runtime(f"/opt/torpor/{given.name}", (), given)
    if wanted is not None:
        return Runtime(wanted, (wanted,))
    own = metadata.distribution("torpor")
    if wheel.is_from_index(own):
        requirement = f"torpor=={own.version}"
        return Runtime(requirement, (requirement,))
    made = wheel.make(own)
    return Runtime(f"/opt/torpor/{made.name}", wheel.own_dependencies(own), made)


def find_builder() -> str:
    """The first builder that is here and works."""
    for name in image.BUILDERS:
        if shutil.which(name) and _works(name):
            return name
    raise ImageBuildError(
        f"no builder works here, one of {', '.join(image.BUILDERS)} was expected; 'torpor build "
        "--write-context FOLDER' writes what any other needs"
    )


def _works(builder: str) -> bool:
    """Whether ``builder`` answers: docker's command is of no use without its daemon."""
    try:
        asked = subprocess.run([builder, "info"], capture_output=True, timeout=_LOOK_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def make_context(function: Function, runtime: Runtime) -> Context:
    """What the image of ``function`` is built from."""
    template = (resources.files("torpor.cli") / "templates" / "Dockerfile.template").read_text("utf-8")
    source = function.spec.code
    return context(template, source.handler, runtime, source.path, source.requirements)


def _write_contexts(functions: list[Function], runtime: Runtime, folder: Path) -> None:
    if folder.exists():
        raise ImageBuildError(f"{folder} exists already, a name that is free was expected")
    for function in functions:
        where = folder / function.metadata.name
        try:
            make_context(function, runtime).write(where)
        except OSError as error:
            raise ImageBuildError(f"{error.filename} can't be written: {error.strerror}") from error
        click.echo(f"Wrote {where}.")


def _build(choices: Choices, reference: str, made: Context) -> float:
    """Build ``reference``, with what the builder says on stderr; returns how many seconds it took."""
    size = plural(len(made.files), "file")
    click.secho(f"Building {reference} by {choices.builder} ({size})", bold=True, err=True)
    clock = SystemClock()
    began = clock.monotonic()
    with tempfile.TemporaryDirectory(prefix="torpor-build-") as folder:
        made.write(Path(folder))
        call = image.command(choices, reference, Path(folder))
        _call(call, f"build {reference}")
    return clock.monotonic() - began


def _push(builder: str, reference: str) -> None:
    click.secho(f"Pushing {reference} by {builder}", bold=True, err=True)
    _call([builder, "push", reference], f"push {reference}")


def _call(call: list[str], what: str) -> None:
    """Run a builder; its stdout goes to stderr, for stdout is for the result alone."""
    try:
        done = subprocess.run(call, stdin=subprocess.DEVNULL, stdout=_STDERR, check=False)  # noqa: S603 - as chosen
    except OSError as error:
        raise ImageBuildError(f"{call[0]} can't be run: {error.strerror}") from error
    if done.returncode:
        raise ImageBuildError(f"{call[0]} could not {what}; what it said above says why")
