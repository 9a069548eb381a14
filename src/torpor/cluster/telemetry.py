"""What a gateway tells of itself to Prometheus; docs/metrics.md has the list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from torpor.scaling.coldstart import ColdStarts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client import Metric

    from torpor.gateway.gateway import Gateway
    from torpor.scaling.load import Load


class GatewayMetrics(Collector):
    """All of it; ``loads`` are the functions' loads as observed last."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.starts = ColdStarts()
        self.loads: Mapping[str, Load] = {}

    def collect(self) -> Iterator[Metric]:
        """See :class:`prometheus_client.registry.Collector`."""
        status = self._gateway.status()
        yield GaugeMetricFamily(
            "torpor_envoy_up", "Whether Envoy takes requests.", value=float(status.healthy)
        )
        yield CounterMetricFamily("torpor_envoy_restarts", "Times that Envoy ended.", value=status.restarts)
        yield GaugeMetricFamily(
            "torpor_requests_held", "Requests that wait for an instance.", value=self._gateway.held
        )
        active = GaugeMetricFamily(
            "torpor_requests_active", "Requests under way, held ones included.", labels=("function",)
        )
        total = CounterMetricFamily("torpor_requests", "Requests to functions.", labels=("function",))
        for function, load in sorted(self.loads.items()):
            active.add_metric((function,), load.concurrency)
            total.add_metric((function,), load.requests_total)
        yield active
        yield total
        yield from self.starts.collect()
