"""The gateway as the other parts see it: Envoy, its configuration and the activator, as one thing."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import shutil
from typing import TYPE_CHECKING

from torpor.endpoint import Endpoint, socket_folder
from torpor.errors import GatewayError, TransportError
from torpor.gateway import bootstrap, names, snapshot, stats
from torpor.gateway.activator import Activator
from torpor.gateway.ads import AdsServer
from torpor.gateway.counters import Counters
from torpor.gateway.envoy import Envoy
from torpor.gateway.routes import FunctionRoute, tables
from torpor.gateway.spans import ColdStartSpans
from torpor.gateway.starts import Starts
from torpor.memory import private_bytes
from torpor.scaling.load import Load
from torpor.spec.status import PartStatus
from torpor.transport import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from torpor.clock import Clock
    from torpor.gateway.delta import Change
    from torpor.gateway.routes import Part
    from torpor.gateway.targets import HoldLimits
    from torpor.otlp import Tracer
    from torpor.scaling.coldstart import Phase
    from torpor.scaling.waiting import Waiting
    from torpor.spec.models import Function

_LOG = logging.getLogger("torpor.gateway")
_ACK_SECONDS = 30.0
_LAST_SPANS_SECONDS = 5.0
_OPEN_FILES = 65_536
_CONNECTIONS_PER_INSTANCE = 1024


class Gateway:
    """Routes requests to functions, and holds them while there is no instance. Belongs to one running loop.

    ``wake`` is called, often, with the key of a function that has requests and no instance. Functions are
    also reached at ``<name>.<namespace>.<domain>``. Callers of the public listener cannot set a header that
    begins with ``torpor-``; the internal one, on loopback unless ``internal`` says where, is for the
    platform's own parts alone. gRPC to functions is not passed on, since instances speak HTTP/1.1.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        work_dir: Path,
        wake: Callable[[str], None],
        host: str = "127.0.0.1",
        port: int = 0,
        internal: Endpoint | None = None,
        domain: str = "localhost",
        workers: int | None = None,
        limits: HoldLimits | None = None,
    ) -> None:
        self._clock = clock
        self._on_change: Callable[[str | None], None] = lambda _: None
        self._work_dir = work_dir.absolute()  # a path that begins with "/" is a unix socket to the client
        self._domain = domain
        self._public = Endpoint(host, port)
        self._internal = internal or Endpoint("127.0.0.1", 0)
        self._version: str | None = None
        # More than half of the machine would be taken from the functions.
        self._workers = workers or max(1, min(2, (os.cpu_count() or 1) // 2))
        self._client = Client(clock=clock, max_connections_per_endpoint=_CONNECTIONS_PER_INSTANCE)
        self._starts = Starts()
        self._tracer: Tracer | None = None
        self._activator = Activator(
            clock=clock, client=self._client, wake=wake, limits=limits, starts=self._starts
        )
        self._ads = AdsServer(clock)
        self._counters = Counters()
        self._configuring = asyncio.Lock()
        self._declared: set[str] = set()
        self._retired: set[str] = set()
        self._sockets: Path | None = None
        self._envoy: Envoy | None = None

    # --- life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start Envoy and return when it takes requests; without functions, all get 404.

        This process's limit of open files is raised as far as it may be. Raises
        :class:`~torpor.errors.StartError` when Envoy is missing or can't start, such as on a taken port.
        """
        _raise_open_files()
        self._work_dir.mkdir(parents=True, exist_ok=True)
        self._sockets = socket_folder(self._work_dir)
        paths = bootstrap.Paths(*(self._sockets / name for name in ("ads", "admin", "activator")))
        for path in (paths.ads, paths.admin, paths.activator):
            path.unlink(missing_ok=True)
        self._ads.put(names.ROUTES, names.PUBLIC_ROUTES, self._routes([], ()))
        self._envoy = Envoy(
            clock=self._clock,
            client=self._client,
            admin=paths.admin,
            config=lambda: self._bootstrap(paths),
            work_dir=self._work_dir,
            workers=self._workers,
            on_alive=self._ads.client_alive,
            on_change=self._on_change,
        )
        try:
            await self._activator.start(paths.activator)
            await self._ads.start(f"unix:{paths.ads}")
            listening = await self._envoy.start()
        except BaseException:
            await self.close()
            raise
        self._public, self._internal = listening.public, listening.internal
        self._version = listening.version

    async def close(self) -> None:
        """End Envoy and what is held."""
        if self._envoy is not None:
            await self._envoy.close()
        await self._activator.close()
        await self._client.close()
        await self._ads.close()
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close, _LAST_SPANS_SECONDS)
        if self._sockets is not None and self._sockets != self._work_dir:
            shutil.rmtree(self._sockets, ignore_errors=True)

    @property
    def address(self) -> Endpoint:
        """Where callers send requests."""
        return self._public

    @property
    def internal(self) -> Endpoint:
        """Where the platform's own parts do; the header ``torpor-function`` is the function's key."""
        return self._internal

    # --- what is served -----------------------------------------------------------------------------------

    async def configure(
        self, functions: Sequence[Function], *, events: Sequence[Endpoint], api: Sequence[Endpoint]
    ) -> None:
        """Make ``functions`` the ones that are served; returns when Envoy has taken that in.

        ``events`` and ``api`` are where these parts are; without any their paths answer 503.
        Requests under way to one that is no longer among them go on. While Envoy does not run this returns
        at once: it starts with what was configured last. Raises :class:`~torpor.errors.GatewayError` when
        Envoy refuses the configuration; then the one before goes on.
        """
        async with self._configuring:
            routes = [FunctionRoute.of(function) for function in functions]
            keys = {route.key for route in routes}
            self._retired = (self._retired | self._declared) - keys
            self._declared = keys
            self._activator.declare(keys)
            for key in keys:
                self._ads.put(names.CLUSTER, key, snapshot.cluster(key))
                self._assign(key, self._activator.targets.endpoints(key))
            parts: dict[Part, Sequence[Endpoint]] = {"events": events, "api": api}
            changes = []
            for part, endpoints in parts.items():
                if endpoints:
                    self._ads.put(names.CLUSTER, part, snapshot.cluster(part))
                    assignment = snapshot.assignment(part, endpoints)
                    changes.append(self._ads.put(names.ASSIGNMENT, part, assignment))
            there = [part for part, endpoints in parts.items() if endpoints]
            table = self._routes(routes, there)
            changes.append(self._ads.put(names.ROUTES, names.PUBLIC_ROUTES, table))
            await self._ads.settle(changes, timeout_seconds=_ACK_SECONDS)

    async def publish(self, key: str, endpoints: Sequence[Endpoint]) -> None:
        """See ``torpor.providers.base.EndpointPublisher``; without endpoints the activator holds requests.

        Held requests go to ``endpoints`` at once. Returns when Envoy has taken the change in, or does not
        run. If Envoy neither acknowledges nor dies for 30 s, that is logged and this returns, so that no
        drain waits for ever.
        """
        if endpoints:
            self.reached(key, "boot")
        self._activator.publish(key, endpoints)
        if not (endpoints or key in self._declared or key in self._retired):
            self._ads.remove(names.ASSIGNMENT, key)
            return
        change = self._assign(key, endpoints)
        try:
            await self._ads.settle([change], timeout_seconds=_ACK_SECONDS)
        except GatewayError as error:
            _LOG.error("the endpoints of %s may be out of date: %s", key, error)
        if endpoints:
            self.reached(key, "ready")

    def fail(self, key: str, problem: str | None) -> None:
        """Answer held and new requests of a function that has no instance with 503 and ``problem``.

        Until it is ``None``, or an instance is published. ``wake`` is called as before.
        """
        self._activator.fail(key, problem)

    # --- what is observed ---------------------------------------------------------------------------------

    async def observe(self) -> Mapping[str, Load]:
        """The load of each function that has instances or ever had a request, held requests included.

        While Envoy does not run, nothing is under way.
        """
        clusters = await self._clusters() or {}
        loads = {}
        for key in self._declared:
            cluster = clusters.get(key)
            if cluster is not None:
                loads[key] = Load(float(cluster.active), self._counters.observe(key, cluster.total))
            elif (total := self._counters.total(key)) or self._activator.targets.endpoints(key):
                loads[key] = Load(0.0, total)
        return loads

    def follow_process(self, on_change: Callable[[str | None], None]) -> None:
        """Call ``on_change`` when Envoy has ended by itself (what is wrong) or is back (``None``).

        To be called before the start.
        """
        self._on_change = on_change

    def follow_starts(
        self, observe: Callable[[str, Phase, float], None] | None = None, tracer: Tracer | None = None
    ) -> None:
        """Tell of cold starts that callers wait for: ``observe`` gets key, phase and seconds of each phase.

        With a ``tracer``, which is closed with the gateway, each request that waits has a span.
        """
        if observe is not None:
            self._starts.observe = observe
        if tracer is not None:
            self._tracer = tracer
            self._activator.spans = ColdStartSpans(tracer, self._clock)

    def reached(self, key: str, phase: Phase) -> None:
        """A phase of a cold start has ended that is not the gateway's own."""
        self._starts.reached(key, phase, self._clock.monotonic())

    async def traffic(self) -> stats.Traffic:
        """The requests of all callers; none while Envoy does not run.

        Raises :class:`~torpor.errors.TransportError` when Envoy does not tell.
        """
        if self._envoy is None or not self._envoy.ready:
            return stats.Traffic()
        listeners = (names.PUBLIC_LISTENER, names.INTERNAL_LISTENER)
        return stats.parse_traffic(await self._envoy.ask(stats.traffic_path(listeners)))

    async def active(self, key: str) -> Mapping[Endpoint, int]:
        """Requests under way by instance of one function, those through the activator included."""
        found = dict(self._activator.targets.loads(key))
        if self._envoy is not None and self._envoy.ready:
            try:
                hosts = stats.parse_hosts(await self._envoy.ask(stats.hosts_path(key)))
            except TransportError as error:
                _LOG.warning("Envoy's statistics can't be read: %s", error)
                return found
            for endpoint, number in hosts.items():
                found[endpoint] = found.get(endpoint, 0) + number
        return found

    def waiting(self, key: str) -> Sequence[Waiting]:
        """The requests that wait for a function, or did until some seconds ago, as far as they are traced."""
        return () if self._activator.spans is None else self._activator.spans.waiting(key)

    @property
    def held(self) -> int:
        """Requests that are held now."""
        return self._activator.held

    def waits(self, key: str) -> bool:
        """Whether a request for the function is held now."""
        return self._activator.waits(key)

    async def drain(self) -> None:
        """Ask callers to leave: from now on each answer closes its connection; new ones are served as before.

        Raises :class:`~torpor.errors.TransportError` when Envoy does not take that in.
        """
        if self._envoy is not None and self._envoy.ready:
            await self._envoy.ask("/healthcheck/fail", post=True)

    def status(self) -> PartStatus:
        """How the gateway is."""
        envoy = self._envoy
        healthy = envoy is not None and envoy.ready
        pid = envoy.pid if envoy is not None else None
        return PartStatus(
            name="gateway",
            healthy=healthy,
            detail="" if healthy else "Envoy is being started",
            address=str(self.address),
            pid=pid,
            version=self._version,
            restarts=envoy.restarts if envoy is not None else 0,
            memory_bytes=private_bytes(pid),
        )

    # --- inside -------------------------------------------------------------------------------------------

    def _bootstrap(self, paths: bootstrap.Paths) -> dict[str, Any]:
        # The addresses are the ones that the first start came to, so that a restart keeps them.
        return bootstrap.bootstrap(self._public, self._internal, paths, node="torpor")

    def _routes(self, routes: Sequence[FunctionRoute], parts: Sequence[Part]) -> bytes:
        return snapshot.route_configuration(tables(routes, parts=parts, domain=self._domain))

    def _assign(self, key: str, endpoints: Sequence[Endpoint]) -> Change:
        activator = Endpoint(str(self._sockets and self._sockets / "activator"), 0)
        return self._ads.put(names.ASSIGNMENT, key, snapshot.assignment(key, endpoints, activator))

    async def _clusters(self) -> Mapping[str, stats.ClusterStats] | None:
        if self._envoy is None or not self._envoy.ready:
            return None
        try:
            clusters = stats.parse(await self._envoy.ask("/stats?format=json"))
        except TransportError as error:
            _LOG.warning("Envoy's statistics can't be read: %s", error)
            return None
        self._drop_retired(clusters)
        return clusters

    def _drop_retired(self, clusters: Mapping[str, stats.ClusterStats]) -> None:
        """Let go of functions that are no longer declared, once nothing of theirs is under way."""
        for key in tuple(self._retired):
            cluster = clusters.get(key)
            if cluster is None or cluster.active == 0:
                self._ads.remove(names.CLUSTER, key)
                self._ads.remove(names.ASSIGNMENT, key)
                self._counters.forget(key)
                self._retired.discard(key)


def _raise_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
