"""A gateway in a pod: Envoy and the activator, fed by what the Kubernetes API has.

It needs the API server only for what changes: while that is away, or the controller is, requests go where
they went.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY

from torpor.clock import alongside, cancel
from torpor.cluster import names
from torpor.cluster.addresses import addresses, ready
from torpor.cluster.leaving import until_quiet
from torpor.cluster.prober import Prober
from torpor.cluster.reader import Reader
from torpor.cluster.telemetry import GatewayMetrics
from torpor.cluster.waker import Waker
from torpor.controller.names import FUNCTION, PART_OF
from torpor.controller.status import READY, SERVING, condition
from torpor.controller.world import function_key
from torpor.endpoint import Endpoint
from torpor.errors import GatewayError, TransportError
from torpor.gateway.gateway import Gateway
from torpor.providers.kubernetes import pages, resources
from torpor.providers.kubernetes.mirror import Mirror
from torpor.providers.kubernetes.resources import key
from torpor.scaling.load import encode, encode_active
from torpor.scaling.waiting import encode_waiting
from torpor.spec.objects import function_of

if TYPE_CHECKING:
    from pathlib import Path

    from torpor.clock import Clock
    from torpor.otlp import Tracer
    from torpor.providers.kubernetes.kube import Kube
    from torpor.providers.kubernetes.resources import Object
    from torpor.settings import GatewaySettings
    from torpor.spec.models import Function

_LOG = logging.getLogger("torpor.gateway")
_SERVICE = "kubernetes.io/service-name"
# Changes that come together are taken in together.
_GATHER_SECONDS = 0.02


class GatewayPod:
    """Everything that a gateway's process runs. ``tracer``, which it closes, takes spans of cold starts."""

    def __init__(
        self,
        kube: Kube,
        clock: Clock,
        settings: GatewaySettings,
        work_dir: Path,
        tracer: Tracer | None = None,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._gateway = Gateway(
            clock=clock,
            work_dir=work_dir,
            wake=lambda name: self._waker.wake(name),  # noqa: PLW0108 - it is made below
            host=settings.host,
            port=settings.http_port,
            internal=Endpoint(settings.host, settings.internal_port),
            domain=settings.domain,
            workers=settings.workers,
        )
        self._metrics = GatewayMetrics(self._gateway)
        self._gateway.follow_starts(self._metrics.starts.observe, tracer)
        self._waker = Waker(
            kube,
            clock,
            revision=self._revision,
            waits=self._gateway.waits,
            raised=lambda name: self._gateway.reached(name, "decide"),
        )
        self._prober = Prober(clock, self._gateway.publish)
        self._news = asyncio.Event()
        self._functions = Mirror(kube, resources.FUNCTIONS, clock, self._function_changed)
        self._pods = Mirror(
            kube,
            resources.ENDPOINT_SLICES,
            clock,
            self._pods_changed,
            labels=FUNCTION,
            group=function_key,
        )
        self._parts = Mirror(
            kube,
            resources.ENDPOINT_SLICES,
            clock,
            lambda _: self._news.set(),
            namespace=settings.namespace,
            labels=f"{PART_OF}=torpor",
        )
        self._declared: dict[str, Function] = {}
        self._reader = Reader(function_of)
        self._configured = False
        self._leaving = False
        self.agent_port = settings.health_port
        """Where health and metrics are, once it runs."""

    @property
    def ready(self) -> bool:
        """Whether callers may be sent here."""
        return self._configured and not self._leaving and self._gateway.status().healthy

    async def run(self, ending: asyncio.Event) -> None:
        """Serve until ``ending`` is set, and then until nobody is sent here and nothing is under way."""
        await self._gateway.start()
        tasks = [
            asyncio.create_task(work)
            for work in (*(mirror.run() for mirror in self._mirrors), self._configure_for_ever())
        ]
        try:
            async with pages.serving(
                self._settings.health_port,
                ready=lambda: self.ready,
                pages={"/loads": self._loads, "/metrics": self._tell_metrics},
                questions={"/active": self._active, "/waiting": self._waiting},
            ) as self.agent_port:
                await alongside(ending.wait(), tasks)
                await self._leave()
        finally:
            await cancel(*tasks)
            await self._prober.close()
            await self._waker.close()
            await self._gateway.close()

    @property
    def _mirrors(self) -> tuple[Mirror, ...]:
        return (self._functions, self._pods, self._parts)

    async def _leave(self) -> None:
        """Not ready from now on; whoever has not heard of it yet is served."""
        self._leaving = True
        try:
            await self._gateway.drain()
        except TransportError as error:
            _LOG.warning("callers can't be asked to leave: %s", error)
        await self._clock.sleep(self._settings.leave_seconds)
        await until_quiet(self._gateway.traffic, self._clock)

    # --- what the cluster has -----------------------------------------------------------------------------

    def _function_changed(self, item: Object) -> None:
        self._news.set()
        # An instance, or its end, may be known before the function is.
        self._tell_problem(key(item))

    def _pods_changed(self, item: Object) -> None:
        if not self._pods.synced.is_set():
            return  # some of a function's pods may be in a slice that comes later
        self._follow(function_key(item))

    def _follow(self, name: str) -> None:
        found = addresses(self._pods.of(name))
        if found:
            self._gateway.reached(name, "pod")
        self._prober.follow(name, found)

    def _revision(self, name: str) -> str | None:
        found: str | None = self._functions.items.get(name, {}).get("status", {}).get("revision")
        return found

    def _tell_problem(self, name: str) -> None:
        status = self._functions.items.get(name, {}).get("status", {})
        ready_now, serving = condition(status, READY), condition(status, SERVING)
        broken = ready_now is not None and ready_now["status"] == "False"
        runs = serving is not None and serving["status"] == "True"
        self._gateway.fail(name, ready_now["message"] if ready_now and broken and not runs else None)

    async def _configure_for_ever(self) -> None:
        for mirror in self._mirrors:
            await mirror.synced.wait()
        for name in {function_key(item) for item in self._pods.items.values()}:
            self._follow(name)
        last: object = None
        while True:
            self._news.clear()
            new = self._declare()
            parts = {
                "events": self._part("events"),
                "api": self._part("api") if self._settings.public_api else (),
            }
            wanted = (self._declared, parts)
            try:
                if wanted != last:  # what changes most often is a status, which leads nobody elsewhere
                    await self._gateway.configure(list(self._declared.values()), **parts)
            except GatewayError as error:
                _LOG.error("the configuration is refused, and the one before goes on: %s", error)
            else:
                self._configured = True
                last = wanted
            for name in new:
                # What was known of it before it was declared was not kept.
                self._tell_problem(name)
                self._prober.publish_again(name)
            await self._news.wait()
            await self._clock.sleep(_GATHER_SECONDS)

    def _declare(self) -> set[str]:
        """Take over what is declared; returns what was not before.

        A function that has become wrong is served as it was, like its pods.
        """
        before, self._declared = self._declared, self._reader.read(self._functions.items)
        for name in before.keys() - self._declared.keys():
            self._metrics.starts.forget(name)
        return self._declared.keys() - before.keys()

    def _part(self, component: str) -> tuple[Endpoint, ...]:
        service = {"events": names.EVENTS, "api": names.API}[component]
        return ready(
            item for item in self._parts.items.values() if item["metadata"]["labels"].get(_SERVICE) == service
        )

    async def _loads(self) -> pages.Page:
        return pages.Page(200, "application/json", encode(await self._gateway.observe()))

    async def _tell_metrics(self) -> pages.Page:
        self._metrics.loads = await self._gateway.observe()
        return pages.metrics(REGISTRY, self._metrics)

    async def _active(self, name: str) -> pages.Page:
        return pages.Page(200, "application/json", encode_active(await self._gateway.active(name)))

    async def _waiting(self, name: str) -> pages.Page:
        return pages.Page(200, "application/json", encode_waiting(self._gateway.waiting(name)))
