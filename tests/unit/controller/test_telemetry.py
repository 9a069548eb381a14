"""What Prometheus reads of a controller, and that the documentation has all of it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

from prometheus_client import CollectorRegistry, generate_latest

from torpor.cluster.telemetry import GatewayMetrics
from torpor.controller.queue import WorkQueue
from torpor.controller.telemetry import ControllerMetrics, InstanceFigures, Sight
from torpor.errors import ClusterConflictError, ClusterError
from torpor.events.stats import Stats
from torpor.scaling.load import Load
from torpor.spec.status import PartStatus
from torpor.testing.clock import MovableClock

if TYPE_CHECKING:
    from torpor.gateway.gateway import Gateway

DOCS = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"


class _Gateway:
    held = 3

    def status(self) -> PartStatus:
        return PartStatus(name="gateway", healthy=True, detail="", restarts=2)


def events() -> CollectorRegistry:
    stats, registry = Stats(), CollectorRegistry()
    stats.count_published("default/default", 1)
    stats.count_refused("malformed-event")
    for counts in (stats.of("default/t"), stats.of_sink("default/t")):
        counts.delivered += 1
    registry.register(stats)
    return registry


def controller() -> ControllerMetrics:
    metrics = ControllerMetrics(lambda: True)
    queue = WorkQueue(MovableClock(), _works, metrics.queues["function"])
    for key in ("default/a", "default/b"):
        queue.add(key)
    figures = [InstanceFigures("default/a", 2, 1, False), InstanceFigures("default/b", 0, 1, True)]
    metrics.sight = Sight({"function": queue}, lambda: figures)
    metrics.starts.observe("default/a", "schedule", 0.2)
    return metrics


def gateway() -> GatewayMetrics:
    metrics = GatewayMetrics(cast("Gateway", _Gateway()))
    metrics.loads = {"default/a": Load(2.0, 7)}
    metrics.starts.observe("default/a", "boot", 0.2)
    return metrics


async def _works(key: str) -> float | None:
    if key == "conflict":
        raise ClusterConflictError("somebody was quicker", status=409)
    if key == "failed":
        raise ClusterError("no", status=500)
    return None


def lines(metrics: ControllerMetrics | GatewayMetrics) -> list[str]:
    return [line for line in generate_latest(metrics).decode().splitlines() if not line.startswith("#")]


def test_what_a_leading_controller_tells() -> None:
    assert {
        "torpor_leader 1.0",
        'torpor_queue_length{kind="function"} 2.0',
        'torpor_instances_desired{function="default/a"} 2.0',
        'torpor_instances_ready{function="default/a"} 1.0',
        'torpor_instances_parked{function="default/a"} 0.0',
        'torpor_instances_parked{function="default/b"} 1.0',
        'torpor_cold_start_seconds_count{function="default/a",phase="schedule"} 1.0',
    } <= set(lines(controller()))


def test_one_that_waits_tells_of_no_function() -> None:
    metrics = ControllerMetrics(lambda: False)
    told = lines(metrics)
    assert "torpor_leader 0.0" in told
    assert not [line for line in told if "torpor_instances" in line or "torpor_queue" in line]


def test_what_became_of_the_work_is_counted() -> None:
    async def case() -> None:
        metrics = ControllerMetrics(lambda: True)
        queue = WorkQueue(MovableClock(), _works, metrics.queues["function"])
        for key in ("a", "b", "conflict", "failed"):
            queue.add(key)
        working = asyncio.create_task(queue.run())
        while queue.length:
            await asyncio.sleep(0)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        assert {
            'torpor_reconciles_total{kind="function",outcome="ok"} 2.0',
            'torpor_reconciles_total{kind="function",outcome="conflict"} 1.0',
            'torpor_reconciles_total{kind="function",outcome="failed"} 1.0',
            'torpor_reconcile_seconds_count{kind="function"} 4.0',
        } <= set(lines(metrics))

    asyncio.run(case())


def test_what_a_gateway_tells() -> None:
    assert {
        "torpor_envoy_up 1.0",
        "torpor_envoy_restarts_total 2.0",
        "torpor_requests_held 3.0",
        'torpor_requests_active{function="default/a"} 2.0',
        'torpor_requests_total{function="default/a"} 7.0',
        'torpor_cold_start_seconds_count{function="default/a",phase="boot"} 1.0',
    } <= set(lines(gateway()))


def test_the_documentation_has_every_metric_and_no_other() -> None:
    documented = set(re.findall(r"^\| `(torpor_\w+)`", DOCS.read_text("utf-8"), re.MULTILINE))
    told = {
        line.split()[2]
        for metrics in (controller(), gateway(), events())
        for line in generate_latest(metrics).decode().splitlines()
        if line.startswith("# TYPE")
    }
    assert documented == told
