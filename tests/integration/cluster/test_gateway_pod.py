"""A gateway as its pod runs it, with the real Envoy and an API server in memory: a function's cold start."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING

from prometheus_client import generate_latest

from tests.collector import collecting
from tests.integration.gateway.conftest import Instance
from torpor.clock import SystemClock
from torpor.cluster.gateway import GatewayPod
from torpor.controller import names
from torpor.controller.controller import Controller
from torpor.controller.manifests import Platform
from torpor.otlp import part_tracer
from torpor.providers.kubernetes import resources
from torpor.settings import GatewaySettings
from torpor.testing.kube import ApiServer
from torpor.transport import Client, encode_fields

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    import pytest

KEY, REVISION = "default/f", "f-00001"
TRACE, CALLER = "1" * 32, "b7ad6b7169203331"
PHASES = {"decide", "pod", "boot", "ready", "first_byte"}


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def turns() -> None:
    """All that follows from what has been done by now is done."""
    for _ in range(200):
        await asyncio.sleep(0)


def cluster() -> ApiServer:
    """One function, at zero."""
    server = ApiServer()
    metadata = {"name": "f", "namespace": "default"}
    status = {"revision": REVISION}
    server.put(resources.FUNCTIONS, {"metadata": metadata, "spec": {"image": "f:1"}, "status": status})
    deployment = {"metadata": {"name": REVISION, "namespace": "default"}, "spec": {"replicas": 0}}
    server.put(resources.DEPLOYMENTS, deployment)
    return server


async def wake_and_call(
    pod: GatewayPod, server: ApiServer, instance: Instance, start: Callable[[], Awaitable[None]]
) -> None:
    """A request that waits for ``instance``, and one that does not; ``start`` is what a node does before."""
    client = Client()
    sent = encode_fields([(b"traceparent", f"00-{TRACE}-{CALLER}-01".encode())])

    async def call() -> int:
        address = pod._gateway.address
        return (await client.request(address, b"GET", b"/function/f/", sent, b"", timeout_seconds=60)).status

    def replicas() -> int:
        deployment = server.read(resources.DEPLOYMENTS, f"default/{REVISION}")
        return 0 if deployment is None else int(deployment["spec"]["replicas"])

    await until(lambda: pod.ready)
    held = asyncio.create_task(call())
    await until(replicas)
    await start()
    server.put(
        resources.ENDPOINT_SLICES,
        {
            "metadata": {"name": "fn-f-1", "namespace": "default", "labels": {names.FUNCTION: "f"}},
            "ports": [{"name": "http", "port": instance.endpoint.port}],
            "endpoints": [{"addresses": [instance.endpoint.host], "conditions": {"serving": False}}],
        },
    )
    assert await held == 200
    assert await call() == 200
    await client.close()


def settings(environment: dict[str, str]) -> GatewaySettings:
    """All on ports that are free."""
    return GatewaySettings.from_environment(
        {
            **environment,
            "TORPOR_HOST": "127.0.0.1",
            "TORPOR_HEALTH_PORT": "0",
            "TORPOR_HTTP_PORT": "0",
            "TORPOR_INTERNAL_PORT": "0",
            "TORPOR_LEAVE_SECONDS": "0",
        }
    )


async def nothing() -> None:
    """Nobody else looks at the pod."""


@contextlib.asynccontextmanager
async def serving(
    folder: Path, server: ApiServer, environment: dict[str, str]
) -> AsyncIterator[tuple[GatewayPod, Instance]]:
    """A gateway, and an instance that it may find."""
    read, ending = settings(environment), asyncio.Event()
    tracer = part_tracer("gateway", read, "torpor", "gateway-1")
    pod = GatewayPod(server.kube(), SystemClock(), read, folder, tracer)
    running = asyncio.create_task(pod.run(ending))
    instance = await Instance().start()
    try:
        async with asyncio.timeout(120):
            yield pod, instance
    finally:
        ending.set()
        await running
        instance.close()


def run(folder: Path, environment: dict[str, str]) -> tuple[dict[str, int], list[bytes]]:
    """What phases were counted, and the places in a trace that the instance was given."""

    async def case() -> tuple[dict[str, int], list[bytes]]:
        server = cluster()
        async with serving(folder, server, environment) as (pod, instance):
            await wake_and_call(pod, server, instance, nothing)
            told = generate_latest(pod._metrics.starts).decode()
        counts = re.findall(r'_count\{function="default/f",phase="(\w+)"\} (\d+)', told)
        places = [seen.headers[b"traceparent"] for seen in instance.seen]
        return {phase: int(count) for phase, count in counts}, places

    return asyncio.run(case())


def test_the_phases_of_a_cold_start_are_counted_and_in_the_callers_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        counts, places = run(tmp_path / "gateway", environment)
    assert set(counts.values()) == {1}
    assert counts.keys() | {"ready"} == PHASES | {"total"}, "an answer may be quicker than Envoy"
    start, *phases = collector.of(TRACE)
    assert (start.service, start.name, start.parent) == ("torpor-gateway", "cold start", CALLER)
    assert {span.parent for span in phases} == {start.id}
    assert {span.name for span in phases} | {"ready"} == PHASES
    cold, warm = places
    assert cold == f"00-{TRACE}-{start.id}-01".encode()
    assert warm == f"00-{TRACE}-{CALLER}-01".encode()


def test_envoy_tells_how_many_came_for_who_is_about_to_leave(tmp_path: Path) -> None:
    async def case() -> None:
        server = cluster()
        async with serving(tmp_path, server, {}) as (pod, instance):
            before = await pod._gateway.traffic()
            await wake_and_call(pod, server, instance, nothing)
            assert (before.total, (await pod._gateway.traffic()).total) == (0, 2)

    asyncio.run(case())


def test_without_a_collector_the_callers_place_goes_on_as_it_came(tmp_path: Path) -> None:
    counts, places = run(tmp_path / "gateway", {})
    assert counts["total"] == 1
    assert set(places) == {f"00-{TRACE}-{CALLER}-01".encode()}


class Node:
    """What Kubernetes does for a pod of the function, and the gateway's own pod."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    def gateway(self, port: int) -> None:
        """The pod of the gateway, whose agent has that port."""
        labels = {names.PART_OF: "torpor", names.COMPONENT: "gateway"}
        container = {"name": "gateway", "ports": [{"name": "agent", "containerPort": port}]}
        self._server.put(
            resources.PODS,
            {
                "metadata": {"name": "gateway-1", "namespace": "torpor", "labels": labels},
                "spec": {"containers": [container]},
                "status": {"podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
            },
        )

    async def start(self) -> None:
        """Make a pod, place it, and run it after a pull; each is seen before the next."""
        labels = {names.FUNCTION: "f", names.REVISION: REVISION, names.MANAGED: "torpor"}
        metadata = {"name": "f-pod", "namespace": "default", "uid": "u", "labels": labels}
        container = {"name": names.CONTAINER}
        running = {**container, "state": {"running": {}}}
        pod = {"metadata": metadata, "spec": {"containers": [container]}}
        self._server.put(resources.PODS, pod)
        await turns()
        pod = {"metadata": metadata, "spec": {"containers": [container], "nodeName": "n"}}
        self._server.put(resources.PODS, pod)
        await turns()
        self._server.put(resources.PODS, {**pod, "status": {"containerStatuses": [running]}})
        self._server.put(
            resources.CORE_EVENTS,
            {
                "metadata": {"name": "f-pod.1", "namespace": "default"},
                "involvedObject": {"kind": "Pod", "uid": "u", "fieldPath": "spec.containers{function}"},
                "reason": "Pulled",
                "message": 'Successfully pulled image "f:1" in 3ms (3ms including waiting)',
            },
        )


def test_with_a_controller_the_trace_has_what_a_pods_start_was_spent_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def case(environment: dict[str, str]) -> None:
        server = ApiServer()
        node = Node(server)
        server.put(
            resources.FUNCTIONS,
            {"metadata": {"name": "f", "namespace": "default"}, "spec": {"image": "f:1"}},
        )
        tracer = part_tracer("controller", settings(environment))
        platform = Platform(namespace="torpor", url="http://gateway")
        controller = Controller(server.kube(), SystemClock(), platform, "controller-1", tracer)
        leading = asyncio.create_task(controller.run())
        async with serving(tmp_path / "gateway", server, environment) as (pod, instance):
            await until(lambda: pod.ready and pod.agent_port)
            node.gateway(pod.agent_port)
            await until(lambda: (server.read(resources.FUNCTIONS, KEY) or {}).get("status"))
            await wake_and_call(pod, server, instance, node.start)
            await until(lambda: "start" in {span.name for span in collector.spans})
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
        assert tracer is not None
        await asyncio.to_thread(tracer.close, 60)

    with collecting() as collector:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        asyncio.run(case(environment))
    [whole] = [span for span in collector.spans if span.name == "cold start"]
    within = {span.name: span for span in collector.of(TRACE) if span.parent == whole.id}
    assert within.keys() | {"ready"} == PHASES | {"schedule", "sandbox", "pull", "start"}
    assert {within[name].service for name in ("schedule", "pull", "start")} == {"torpor-controller"}
    assert within["pull"].attributes["k8s.pod.name"] == "f-pod"
    assert within["schedule"].ended == within["sandbox"].began
