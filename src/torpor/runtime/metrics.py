"""What /metrics shows: counted in plain numbers on the event loop, put into form when it is asked for."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client import Metric

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

OK = "ok"
REFUSED = "refused"
FAILED = "failed"
TIMED_OUT = "timed-out"
INVALID_REPLY = "invalid-reply"
GONE = "caller-gone"
CUT = "cut"
OUTCOMES = (OK, REFUSED, FAILED, TIMED_OUT, INVALID_REPLY, GONE, CUT)

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the buckets of all durations, in seconds."""


class Histogram:
    """Durations in seconds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def observe_none(self) -> None:
        """Count one that took no time."""
        self.counts[0] += 1

    def buckets(self) -> list[tuple[str, float]]:
        """Bounds and how many are within them, as Prometheus has it: each includes those below."""
        running = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*BOUNDS, "+Inf"), self.counts, strict=True):
            running += count
            buckets.append((str(bound), running))
        return buckets


class Metrics(Collector):
    """The numbers of one instance. Gauges are read through functions when they are asked for."""

    def __init__(self, gauges: Mapping[str, Callable[[], float]], labels: Mapping[str, str]) -> None:
        self._gauges = gauges
        self._labels = labels
        self.outcomes: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
        self.duration = Histogram()
        self.queue_wait = Histogram()
        self.start_seconds: dict[str, float] = {}

    def collect(self) -> Iterator[Metric]:
        """All families."""
        labels = list(self._labels)
        values = list(self._labels.values())
        invocations = CounterMetricFamily(
            "torpor_invocations", "Calls that have ended, by outcome.", labels=[*self._labels, "outcome"]
        )
        for outcome, count in self.outcomes.items():
            invocations.add_metric([*values, outcome], count)
        yield invocations
        for name, text, histogram in (
            ("torpor_invocation_duration_seconds", "Time from request to answer.", self.duration),
            ("torpor_queue_wait_seconds", "Time that calls waited for a place.", self.queue_wait),
        ):
            family = HistogramMetricFamily(name, text, labels=labels)
            family.add_metric(values, histogram.buckets(), histogram.total)
            yield family
        for name, read in self._gauges.items():
            gauge = GaugeMetricFamily(f"torpor_{name}", _GAUGE_HELP[name], labels=labels)
            gauge.add_metric(values, read())
            yield gauge
        phases = GaugeMetricFamily(
            "torpor_start_seconds", "Time that the phases of the start took.", labels=[*self._labels, "phase"]
        )
        for phase, seconds in self.start_seconds.items():
            phases.add_metric([*values, phase], seconds)
        yield phases


_GAUGE_HELP = {
    "in_flight": "Calls that run.",
    "queued": "Calls that wait for a place.",
    "memory_bytes": "Resident memory of the process.",
    "draining": "1 while the instance ends.",
}


def exposition(metrics: Metrics) -> bytes:
    """The text for Prometheus: ours, and what the author's own code counts in the default registry."""
    own = CollectorRegistry(auto_describe=False)
    own.register(metrics)
    return generate_latest(own) + generate_latest(REGISTRY)
