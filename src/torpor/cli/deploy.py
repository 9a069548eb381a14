"""``torpor deploy``: declares functions, triggers and schedules to a cluster, and waits until they are ready.

Server-side apply with the user's own credentials: Kubernetes decides what is allowed, and what others have
declared about the same objects stays.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click
import orjson

from torpor.api.places import KUBE, cluster, is_cluster
from torpor.cli import FAILED, deployable
from torpor.cli.inputs import InputFile
from torpor.cli.output import output_option, print_json, print_table
from torpor.cli.readiness import Name, Readiness, name_of
from torpor.cli.target import WrongFileError, context_option
from torpor.clock import SystemClock, cancel, happens_within
from torpor.errors import (
    ClusterConflictError,
    ClusterError,
    ClusterGoneError,
    ClusterMissingError,
    ClusterUnreachableError,
    DeclarationError,
)
from torpor.providers.kubernetes.resources import FUNCTIONS, SCHEDULES, TRIGGERS
from torpor.settings import PlatformSettings
from torpor.spec.load import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torpor.api.places import Cluster
    from torpor.cli import Globals
    from torpor.clock import Clock
    from torpor.providers.kubernetes.kube import Kube
    from torpor.providers.kubernetes.resources import Object, Resource
    from torpor.spec.load import Declared
    from torpor.spec.models import Schedule, Trigger

MANAGER = "torpor-deploy"
"""The field manager of what is declared."""
_LOOK_SECONDS = 1.0
_AGAIN_SECONDS = 2.0


@click.command("deploy", short_help="Declare functions, triggers and schedules to a cluster.")
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--image", "texts", metavar="NAME=REFERENCE", multiple=True, help="The image of a function.")
@click.option(
    "--images",
    "images_file",
    type=InputFile(),
    help="What 'torpor build -o json' printed: the images of functions; '-' is stdin.",
)
@click.option(
    "-n", "--namespace", metavar="NAMESPACE", help="Namespace of what names none.  [default: default]"
)
@click.option("--dry-run", is_flag=True, help="Have the cluster check everything, and change nothing.")
@click.option("--force-conflicts", is_flag=True, help="Take fields over that others have declared otherwise.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until everything is ready.")
@click.option(
    "--timeout",
    "timeout_seconds",
    metavar="SECONDS",
    type=click.FloatRange(1, 86_400),
    default=120.0,
    show_default=True,
    help="How long to wait.",
)
@context_option
@output_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    paths: tuple[Path, ...],
    *,
    texts: tuple[str, ...],
    images_file: IO[bytes] | None,
    namespace: str | None,
    wait: bool,
    timeout_seconds: float,
    output: str,
    **how: bool,
) -> None:
    """Declare what files and folders say, by default this one, to the cluster of --context kube:NAME.

    Each function needs an image: its own, one given by --image, or one of --images. What is the same already
    is left alone. Nothing is deleted. The exit code is 1 when something does not become ready.
    """
    target = _target(ctx.obj)
    paths = paths or (Path(),)
    declared = load(paths, complete=all(path.is_dir() for path in paths))
    objects = _objects(declared, namespace, texts, images_file)
    options = _Options(wait=wait and not how["dry_run"], timeout_seconds=timeout_seconds, **how)
    work = _Deployment(target, objects, options, quiet=output == "json")
    asyncio.run(work.run())
    if output == "json":
        print_json(work.document())
    problems = work.readiness.problems() if options.wait else {}
    for name, message in problems.items():
        click.echo(f"{click.style('Error:', fg='red')} {name} is not ready: {message}", err=True)
    if problems:
        ctx.exit(FAILED)
    if output != "json" and options.wait:
        for name, url in work.readiness.ready():
            click.echo(f"{name} is ready{f': {url}' if url else ''}")


def _target(chosen: Globals) -> Cluster:
    context = chosen.context
    if not is_cluster(context):
        own = "; on this machine, 'torpor up' watches files by itself" if context == "local" else ""
        text = f"deploying is for a cluster, --context {KUBE}NAME was expected, not {context!r}{own}"
        raise click.UsageError(text)
    try:
        return cluster(context, PlatformSettings.from_environment().kubeconfig)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _objects(
    declared: Declared, namespace: str | None, texts: Sequence[str], images_file: IO[bytes] | None
) -> list[Object]:
    """What is sent, functions first. Raises for what is wrong with it."""
    try:
        images = deployable.given(texts)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    unknown = deployable.unknown(images, declared)
    if unknown is not None:
        raise click.UsageError(unknown)
    built = _built(images_file) if images_file is not None else {}
    faults = deployable.faults(declared, namespace, images, built)
    if faults:
        raise DeclarationError([str(fault) for fault in faults])
    functions = [
        deployable.function_object(one, reference, _namespace(one.metadata.model_fields_set, namespace))
        for one in declared.functions.values()
        if (reference := deployable.image(one, images, built)) is not None
    ]
    declared_others: list[Trigger | Schedule] = [*declared.triggers.values(), *declared.schedules.values()]
    others = [
        deployable.events_object(one, _namespace(one.metadata.model_fields_set, namespace))
        for one in declared_others
    ]
    # Schedules come last, when there is who gets their events.
    others.sort(key=lambda item: (item["kind"] == "Schedule", name_of(item)))
    return [*sorted(functions, key=name_of), *others]


def _namespace(given: set[str], namespace: str | None) -> str | None:
    return None if "namespace" in given else namespace


def _built(images_file: IO[bytes]) -> dict[str, str]:
    try:
        return deployable.built(orjson.loads(images_file.read()))
    except ValueError as error:  # orjson's own among them
        raise WrongFileError(f"{images_file.name}: {error}") from None


@dataclass(frozen=True, slots=True)
class _Options:
    dry_run: bool
    force_conflicts: bool
    wait: bool
    timeout_seconds: float


@dataclass(slots=True)
class _Deployment:
    """One call's work: what is sent where, and what became of each object."""

    target: Cluster
    objects: list[Object]
    options: _Options
    quiet: bool
    actions: dict[Name, str] = field(default_factory=dict)
    readiness: Readiness = field(default_factory=Readiness)

    async def run(self) -> None:
        """Do it. Raises :class:`~torpor.errors.ClusterError` when an object is refused."""
        from torpor.providers.kubernetes.connection import connect  # noqa: PLC0415 - it takes half a second
        from torpor.providers.kubernetes.kube import closing  # noqa: PLC0415

        target = self.target
        connecting = connect(kubeconfig=target.kubeconfig or None, context=target.context)
        async with closing(await connecting) as kube:
            await self._check(kube)
            if not self.options.dry_run:
                for item in self.objects:
                    self.readiness.expect(await self._apply(kube, item, dry_run=False))
            if not self.quiet:
                self._show()
            if self.options.wait:
                await self._wait(kube, SystemClock())

    def document(self) -> list[dict[str, object]]:
        """What became of each object, for programs."""
        rows: list[dict[str, object]] = []
        for item in self.objects:
            name, metadata = name_of(item), item["metadata"]
            row = {"kind": name.kind, "name": metadata["name"], "namespace": metadata["namespace"]}
            row |= {"image": item["spec"].get("image"), "action": self.actions[name]}
            rows.append({**row, **(self.readiness.shown(name) if self.options.wait else {})})
        return rows

    def _show(self) -> None:
        done = " (dry run)" if self.options.dry_run else ""
        rows = [(name.kind, name.key, f"{action}{done}") for name, action in self.actions.items()]
        print_table(("kind", "name", "done"), rows, empty="nothing is declared")

    # --- sending ----------------------------------------------------------------------------------------

    async def _check(self, kube: Kube) -> None:
        """Have the cluster check all of it, so that what is wrong with one keeps all from being changed."""
        refused: list[ClusterError] = []
        for item in self.objects:
            metadata = item["metadata"]
            try:
                before = await kube.get(_resource(item), metadata["namespace"], metadata["name"])
                after = await self._apply(kube, item, dry_run=True)
            except ClusterUnreachableError:
                raise
            except ClusterError as error:
                refused.append(self._explained(item, error))
                continue
            action = "configured" if before is not None else "created"
            if before is not None and not deployable.differs(before, after):
                action = "unchanged"
            self.actions[name_of(item)] = action
        if refused:
            texts = dict.fromkeys(str(error) for error in refused)
            raise ClusterError("\n       ".join(texts), status=refused[0].status)

    async def _apply(self, kube: Kube, item: Object, *, dry_run: bool) -> Object:
        force = self.options.force_conflicts
        return await kube.apply(_resource(item), item, manager=MANAGER, force=force, dry_run=dry_run)

    def _explained(self, item: Object, error: ClusterError) -> ClusterError:
        name, text = name_of(item), str(error)
        if isinstance(error, ClusterMissingError) and "namespaces" not in text:
            return ClusterError(f"{self.target.name} knows no Functions: install Torpor's chart there first")
        if isinstance(error, ClusterConflictError):
            text = f"{text}; --force-conflicts takes them over"
        return ClusterError(f"{name}: {text}", status=error.status)

    # --- waiting ----------------------------------------------------------------------------------------

    async def _wait(self, kube: Kube, clock: Clock) -> None:
        until = clock.monotonic() + self.options.timeout_seconds
        news = asyncio.Event()
        places = {(_resource(item), item["metadata"]["namespace"]): None for item in self.objects}
        tasks = [asyncio.create_task(self._watch(kube, clock, *place, news)) for place in places]
        try:
            while not self.readiness.judge(clock.monotonic()) and clock.monotonic() < until:
                self._tell(self.readiness.progress())
                await happens_within(clock, min(_LOOK_SECONDS, until - clock.monotonic()), news)
                news.clear()
                for task in tasks:
                    if task.done():
                        task.result()
        finally:
            self._tell("")
            await cancel(*tasks)

    def _tell(self, text: str) -> None:
        """Show how far it is on the terminal's last line, which is used again."""
        if not self.quiet and sys.stderr.isatty():
            width = shutil.get_terminal_size().columns
            click.echo(f"\r\x1b[K{text[: width - 1]}", nl=False, err=True)

    async def _watch(
        self, kube: Kube, clock: Clock, resource: Resource, namespace: str, news: asyncio.Event
    ) -> None:
        """Tell of each change, for ever; raises when looking is not allowed."""
        while True:
            try:
                listed = await kube.list(resource, namespace)
                for item in listed.items:
                    self.readiness.see(item, clock.monotonic())
                news.set()
                async for event in kube.watch(resource, namespace, since=listed.version):
                    if event.change == "DELETED":
                        self.readiness.gone(event.item)
                    elif event.change != "BOOKMARK":
                        self.readiness.see(event.item, clock.monotonic())
                    news.set()
            except (ClusterGoneError, ClusterUnreachableError):
                await clock.sleep(_AGAIN_SECONDS)


def _resource(item: Object) -> Resource:
    return {"Function": FUNCTIONS, "Trigger": TRIGGERS, "Schedule": SCHEDULES}[item["kind"]]
