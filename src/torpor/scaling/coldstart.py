"""How long the phases of a cold start take, by function, as Prometheus reads it.

Gateways and the controller each see some of the phases; docs/metrics.md says which. A function's figures go
with it, so that there are never more than functions that exist.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from torpor.runtime.metrics import Histogram

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

Phase = Literal[
    "decide", "pod", "boot", "ready", "first_byte", "total",  # what a gateway sees
    "schedule", "sandbox", "pull", "start",  # what the controller sees
]  # fmt: skip


class ColdStarts(Collector):
    """``torpor_cold_start_seconds``."""

    def __init__(self) -> None:
        self._found: dict[str, dict[Phase, Histogram]] = {}

    def observe(self, function: str, phase: Phase, seconds: float) -> None:
        """Count a phase of one start of the function of that key."""
        self._found.setdefault(function, {}).setdefault(phase, Histogram()).observe(seconds)

    def forget(self, function: str) -> None:
        """The function is gone."""
        self._found.pop(function, None)

    def collect(self) -> Iterator[Metric]:
        """See :class:`prometheus_client.registry.Collector`."""
        text = "Duration of the phases of cold starts."
        family = HistogramMetricFamily("torpor_cold_start_seconds", text, labels=("function", "phase"))
        for function, phases in sorted(self._found.items()):
            for phase, histogram in phases.items():
                family.add_metric((function, phase), histogram.buckets(), histogram.total)
        yield family
