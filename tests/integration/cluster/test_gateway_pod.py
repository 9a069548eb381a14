"""A gateway as its pod runs it, with the real Envoy and an API server in memory: a function's cold start."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from prometheus_client import generate_latest

from tests.collector import collecting
from tests.integration.gateway.conftest import Instance
from torpor.clock import SystemClock
from torpor.cluster.gateway import GatewayPod
from torpor.controller import names
from torpor.otlp import gateway_tracer
from torpor.providers.kubernetes import resources
from torpor.settings import GatewaySettings
from torpor.testing.kube import ApiServer
from torpor.transport import Client

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

KEY, REVISION = "default/f", "f-00001"
TRACE, CALLER = "1" * 32, "b7ad6b7169203331"
PHASES = {"decide", "pod", "boot", "ready", "first_byte"}


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def cluster() -> ApiServer:
    """One function, at zero."""
    server = ApiServer()
    metadata = {"name": "f", "namespace": "default"}
    status = {"revision": REVISION}
    server.put(resources.FUNCTIONS, {"metadata": metadata, "spec": {"image": "f:1"}, "status": status})
    deployment = {"metadata": {"name": REVISION, "namespace": "default"}, "spec": {"replicas": 0}}
    server.put(resources.DEPLOYMENTS, deployment)
    return server


async def wake_and_call(pod: GatewayPod, server: ApiServer, instance: Instance) -> None:
    """A request that waits for ``instance``, and one that does not."""
    client = Client()
    sent = [(b"traceparent", f"00-{TRACE}-{CALLER}-01".encode())]

    async def call() -> int:
        address = pod._gateway.address
        return (await client.request(address, b"GET", b"/function/f/", sent, b"", timeout_seconds=60)).status

    def replicas() -> int:
        deployment = server.read(resources.DEPLOYMENTS, f"default/{REVISION}")
        return 0 if deployment is None else int(deployment["spec"]["replicas"])

    await until(lambda: pod.ready)
    held = asyncio.create_task(call())
    await until(replicas)
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


def run(folder: Path, environment: dict[str, str]) -> tuple[dict[str, int], list[bytes]]:
    """What phases were counted, and the places in a trace that the instance was given."""
    settings = GatewaySettings.from_environment(
        {
            **environment,
            "TORPOR_HOST": "127.0.0.1",
            "TORPOR_HEALTH_PORT": "0",
            "TORPOR_HTTP_PORT": "0",
            "TORPOR_INTERNAL_PORT": "0",
            "TORPOR_LEAVE_SECONDS": "0",
        }
    )

    async def case() -> tuple[dict[str, int], list[bytes]]:
        server, ending = cluster(), asyncio.Event()
        tracer = gateway_tracer(settings, "torpor", "gateway-1")
        pod = GatewayPod(server.kube(), SystemClock(), settings, folder, tracer)
        running = asyncio.create_task(pod.run(ending))
        instance = await Instance().start()
        try:
            async with asyncio.timeout(120):
                await wake_and_call(pod, server, instance)
                told = generate_latest(pod._metrics.starts).decode()
        finally:
            ending.set()
            await running
            instance.close()
        counts = re.findall(r'_count\{function="default/f",phase="(\w+)"\} (\d+)', told)
        return {phase: int(count) for phase, count in counts}, [
            seen.headers[b"traceparent"] for seen in instance.seen
        ]

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


def test_without_a_collector_the_callers_place_goes_on_as_it_came(tmp_path: Path) -> None:
    counts, places = run(tmp_path / "gateway", {})
    assert counts["total"] == 1
    assert set(places) == {f"00-{TRACE}-{CALLER}-01".encode()}
