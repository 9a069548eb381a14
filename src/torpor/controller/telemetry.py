"""What the controller tells of itself to Prometheus; docs/metrics.md has the list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from torpor.runtime.metrics import Histogram
from torpor.scaling.coldstart import ColdStarts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client import Metric


@dataclass(slots=True)
class QueueCounts:
    """What became of the work of one queue, over all times that this controller led."""

    outcomes: dict[str, int] = field(default_factory=lambda: {"ok": 0, "conflict": 0, "failed": 0})
    seconds: Histogram = field(default_factory=Histogram)


class InstanceFigures(NamedTuple):
    """Of one function."""

    function: str
    desired: int
    ready: int
    parked: bool


class Queue(Protocol):
    """A queue of work."""

    @property
    def length(self) -> int:
        """How many keys wait, or are worked on."""


class Sight(NamedTuple):
    """What can be seen while it leads: its queues, and every function's instances."""

    queues: Mapping[str, Queue]
    instances: Callable[[], Iterable[InstanceFigures]]


class ControllerMetrics(Collector):
    """All of it. ``sight`` is there while the controller leads."""

    def __init__(self, leading: Callable[[], bool]) -> None:
        self._leading = leading
        self.starts = ColdStarts()
        self.queues = {kind: QueueCounts() for kind in ("function", "trigger", "schedule")}
        self.sight: Sight | None = None

    def collect(self) -> Iterator[Metric]:
        """See :class:`prometheus_client.registry.Collector`."""
        yield GaugeMetricFamily(
            "torpor_leader", "Whether this controller leads.", value=float(self._leading())
        )
        yield from self._reconciles()
        if self.sight is not None:
            yield from _seen(self.sight)
        yield from self.starts.collect()

    def _reconciles(self) -> Iterator[Metric]:
        total = CounterMetricFamily(
            "torpor_reconciles", "Looks at one object, by what became of them.", labels=("kind", "outcome")
        )
        seconds = HistogramMetricFamily(
            "torpor_reconcile_seconds", "Duration of looks at one object.", labels=("kind",)
        )
        for kind, counts in self.queues.items():
            for outcome, number in counts.outcomes.items():
                total.add_metric((kind, outcome), number)
            seconds.add_metric((kind,), counts.seconds.buckets(), counts.seconds.total)
        yield total
        yield seconds


def _seen(sight: Sight) -> Iterator[Metric]:
    length = GaugeMetricFamily(
        "torpor_queue_length", "Objects that wait to be looked at, or are.", labels=("kind",)
    )
    for kind, queue in sight.queues.items():
        length.add_metric((kind,), queue.length)
    yield length
    texts = {
        "desired": "Instances that the autoscaler wants.",
        "ready": "Instances that take requests.",
        "parked": "Whether the function rests parked.",
    }
    families = {
        name: GaugeMetricFamily(f"torpor_instances_{name}", text, labels=("function",))
        for name, text in texts.items()
    }
    for figures in sight.instances():
        for name, family in families.items():
            family.add_metric((figures.function,), float(getattr(figures, name)))
    yield from families.values()
