"""What happened to events, counted by broker and trigger since this process started."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class TriggerCounts:
    """Of one trigger. A delivery of a joined group counts as one."""

    delivered: int = 0
    """Deliveries that succeeded."""
    redelivered: int = 0
    """Deliveries that were not the first of their event."""
    failed: int = 0
    """Deliveries that did not succeed."""
    dead_lettered: int = 0
    """Events that became dead letters."""


@dataclass(slots=True)
class Stats(Collector):
    """All counters; a collector for Prometheus too."""

    published: dict[str, int] = field(default_factory=dict)
    """By broker key: events taken in durably, duplicates left out."""
    triggers: dict[str, TriggerCounts] = field(default_factory=dict)
    """By trigger key."""
    refused: dict[str, int] = field(default_factory=dict)
    """By kind of problem: requests that the ingress refused."""

    def count_published(self, broker_key: str, events: int) -> None:
        """``events`` were taken in by the broker."""
        self.published[broker_key] = self.published.get(broker_key, 0) + events

    def count_refused(self, problem: str) -> None:
        """The ingress refused a request."""
        self.refused[problem] = self.refused.get(problem, 0) + 1

    def of(self, trigger_key: str) -> TriggerCounts:
        """The counters of a trigger, to count on."""
        return self.triggers.setdefault(trigger_key, TriggerCounts())

    def collect(self) -> Iterator[Metric]:
        """The counters as Prometheus metrics."""
        published = CounterMetricFamily(
            "torpor_events_published", "Events taken in durably.", labels=["namespace", "broker"]
        )
        for key, value in self.published.items():
            published.add_metric(key.split("/"), value)
        yield published
        refused = CounterMetricFamily(
            "torpor_events_refused", "Requests that the ingress refused.", labels=["problem"]
        )
        for key, value in self.refused.items():
            refused.add_metric([key], value)
        yield refused
        for name, text in _COUNTERS.items():
            family = CounterMetricFamily(f"torpor_events_{name}", f"{text}.", labels=["namespace", "trigger"])
            for key, counts in self.triggers.items():
                family.add_metric(key.split("/"), getattr(counts, name))
            yield family


_COUNTERS = {
    "delivered": "Deliveries that succeeded",
    "redelivered": "Deliveries that were not the first of their event",
    "failed": "Deliveries that did not succeed",
    "dead_lettered": "Events that became dead letters",
}
