"""What happened to events, counted by broker and trigger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


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


@dataclass(slots=True, eq=False)
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

    def forget_all_but(self, trigger_keys: Collection[str]) -> None:
        """Drop the counters of triggers that are not declared any more."""
        self.triggers = {key: counts for key, counts in self.triggers.items() if key in trigger_keys}

    def dump(self) -> bytes:
        """All counters, for :meth:`load`."""
        return orjson.dumps({"published": self.published, "triggers": self.triggers, "refused": self.refused})

    def load(self, dumped: bytes) -> None:
        """Go on counting from what :meth:`dump` gave.

        Raises ``ValueError`` or ``TypeError`` for anything else.
        """
        document = orjson.loads(dumped)
        if not isinstance(document, dict):
            raise TypeError("the counters are no JSON object")
        published, refused = _numbers(document.get("published")), _numbers(document.get("refused"))
        triggers = document.get("triggers")
        if not isinstance(triggers, dict):
            raise TypeError("the triggers' counters are no JSON object")
        self.triggers = {key: TriggerCounts(**_numbers(counts)) for key, counts in triggers.items()}
        self.published, self.refused = published, refused

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


def _numbers(value: object) -> dict[str, int]:
    if not isinstance(value, dict) or not all(isinstance(number, int) for number in value.values()):
        raise TypeError("the counters are no numbers by name")
    return value


_COUNTERS = {
    "delivered": "Deliveries that succeeded",
    "redelivered": "Deliveries that were not the first of their event",
    "failed": "Deliveries that did not succeed",
    "dead_lettered": "Events that became dead letters",
}
