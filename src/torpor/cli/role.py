"""``torpor role``: one part of the platform in this process, as its pod in a cluster runs it."""

from __future__ import annotations

import asyncio
import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from torpor.settings import (
        ApiSettings,
        ClusterSettings,
        ControllerSettings,
        EventsSettings,
        GatewaySettings,
    )

_LAST_SPANS_SECONDS = 5.0
_Settings = TypeVar("_Settings", bound="ClusterSettings")


@click.group("role", short_help="Run one part of the platform, as its pod in a cluster does.")
def command() -> None:
    """Run one part of the platform until SIGTERM. Settings come from the environment."""


@command.command("controller", short_help="Bring the cluster to what Functions declare.")
def controller() -> None:
    """Bring the cluster to what Functions and Triggers declare, and scale functions; one of several leads."""
    from torpor.settings import ControllerSettings  # noqa: PLC0415 - `--help` needs none of it

    _run(ControllerSettings.from_environment(), lambda settings: _until_told(_controller(settings)))


async def _controller(settings: ControllerSettings) -> None:
    from prometheus_client import REGISTRY  # noqa: PLC0415

    from torpor.clock import SystemClock  # noqa: PLC0415
    from torpor.controller.controller import Controller  # noqa: PLC0415
    from torpor.controller.manifests import Platform  # noqa: PLC0415
    from torpor.otlp import part_tracer  # noqa: PLC0415
    from torpor.providers.kubernetes import pages  # noqa: PLC0415
    from torpor.providers.kubernetes.connection import connect  # noqa: PLC0415
    from torpor.providers.kubernetes.kube import closing  # noqa: PLC0415
    from torpor.scaling.told import encode  # noqa: PLC0415

    platform = Platform(
        namespace=settings.namespace,
        url=settings.url.rstrip("/"),
        blobs_url=settings.blobs_url,
        kept_revisions=settings.kept_revisions,
        traces=settings.traces(),
    )
    async with closing(await connect(kubeconfig=settings.kubeconfig or None)) as kube:
        instance = settings.identity or socket.gethostname()
        tracer = part_tracer("controller", settings, settings.namespace, instance)
        part = Controller(kube, SystemClock(), platform, instance, tracer)

        async def scaling() -> pages.Page:
            return pages.Page(200, "application/json", encode(part.scaling()))

        told = (REGISTRY, part.metrics)
        try:
            async with pages.serving(settings.health_port, pages={"/scaling": scaling}, collectors=told):
                await part.run()
        finally:
            if tracer is not None:
                tracer.close(_LAST_SPANS_SECONDS)


@command.command("gateway", short_help="Lead callers to functions, and hold requests while they wake.")
def gateway() -> None:
    """Lead callers to functions, and hold requests while they wake; Envoy runs below this process."""
    from torpor.settings import GatewaySettings  # noqa: PLC0415 - `--help` needs none of it

    _run(GatewaySettings.from_environment(), _gateway)


async def _gateway(settings: GatewaySettings) -> None:
    from torpor.clock import SystemClock  # noqa: PLC0415
    from torpor.cluster.gateway import GatewayPod  # noqa: PLC0415
    from torpor.otlp import part_tracer  # noqa: PLC0415
    from torpor.providers.kubernetes.connection import connect  # noqa: PLC0415
    from torpor.providers.kubernetes.kube import closing  # noqa: PLC0415

    ending = _end_asked_for()
    instance = settings.identity or socket.gethostname()
    with tempfile.TemporaryDirectory(prefix="torpor-") as folder:
        async with closing(await connect(kubeconfig=settings.kubeconfig or None)) as kube:
            tracer = part_tracer("gateway", settings, settings.namespace, instance)
            await GatewayPod(kube, SystemClock(), settings, Path(folder), tracer).run(ending)


@command.command("events", short_help="Take in events and deliver them to functions.")
def events() -> None:
    """Take in events, keep them in NATS or Kafka, and deliver them to functions; several share the work."""
    from torpor.settings import EventsSettings  # noqa: PLC0415 - `--help` needs none of it

    _run(EventsSettings.from_environment(), _events)


async def _events(settings: EventsSettings) -> None:
    from torpor.clock import SystemClock  # noqa: PLC0415
    from torpor.cluster.events import EventsPod  # noqa: PLC0415
    from torpor.providers.kubernetes.connection import connect  # noqa: PLC0415
    from torpor.providers.kubernetes.kube import closing  # noqa: PLC0415

    ending = _end_asked_for()
    async with closing(await connect(kubeconfig=settings.kubeconfig or None)) as kube:
        await EventsPod(kube, SystemClock(), settings).run(ending)


@command.command("api", short_help="Show the platform by its REST API, and keep blobs.")
def api() -> None:
    """Show the platform by its REST API, and keep blobs for functions and events."""
    from torpor.settings import ApiSettings  # noqa: PLC0415 - `--help` needs none of it

    _run(ApiSettings.from_environment(), _api)


async def _api(settings: ApiSettings) -> None:
    from torpor.api.pod import ApiPod  # noqa: PLC0415

    await ApiPod(settings).run(_end_asked_for())


async def _until_told(work: Coroutine[None, None, None]) -> None:
    """Run ``work`` until it ends, or SIGTERM or SIGINT asks for the end; then it is cancelled."""
    task = asyncio.create_task(work)
    _on_signal(task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return


def _run(settings: _Settings, part: Callable[[_Settings], Coroutine[None, None, None]]) -> None:
    """Run a part as the only work of this process."""
    from torpor.logs import log_to_stderr  # noqa: PLC0415

    log_to_stderr(settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(part(settings))


def _end_asked_for() -> asyncio.Event:
    """Set by SIGTERM or SIGINT."""
    ending = asyncio.Event()
    _on_signal(ending.set)
    return ending


def _on_signal(told: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told)
