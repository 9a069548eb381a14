"""What happened to events, counted by broker, trigger and schedule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import orjson
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from torpor.runtime.metrics import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

_Counts = TypeVar("_Counts")


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
    replayed: int = 0
    """Dead letters that were replayed."""
    backlog_refused: int = 0
    """Events that producers are to send again, since as many waited as may."""
    backlog_overflowed: int = 0
    """Events that became dead letters since more waited than may."""


@dataclass(slots=True)
class CallCounts:
    """Of the calls of one function that nobody waits for."""

    accepted: int = 0
    """Calls taken in durably."""
    retried: int = 0
    """Attempts that did not succeed and were followed by another."""
    succeeded: int = 0
    """Calls that the function took."""
    failed: int = 0
    """Calls that were given up."""
    callbacks_delivered: int = 0
    """Callbacks that their receiver took."""
    callbacks_retried: int = 0
    """Attempts of callbacks that did not succeed and were followed by another."""
    callbacks_failed: int = 0
    """Callbacks that were given up."""


@dataclass(slots=True)
class ScheduleTally:
    """Of one schedule."""

    fired: int = 0
    """Firings whose event this process has put into the broker."""
    missed: int = 0
    """Firings that were left out."""
    lateness: Histogram = field(default_factory=Histogram)
    """How late their events were in the broker, jitter aside; since the process started."""
    late_seconds: float | None = None
    """The same of the newest one."""

    def observe(self, late_seconds: float) -> None:
        """One more has fired."""
        self.fired += 1
        self.late_seconds = late_seconds
        self.lateness.observe(late_seconds)


@dataclass(slots=True, eq=False)
class Stats(Collector):
    """All counters; a collector for Prometheus too."""

    published: dict[str, int] = field(default_factory=dict)
    """By broker key: events taken in durably, duplicates left out."""
    triggers: dict[str, TriggerCounts] = field(default_factory=dict)
    """By trigger key."""
    sinks: dict[str, TriggerCounts] = field(default_factory=dict)
    """By trigger key, the deliveries of its dead letters to their sink; those that it did not take count as
    dead-lettered."""
    schedules: dict[str, ScheduleTally] = field(default_factory=dict)
    """By schedule key."""
    calls: dict[str, CallCounts] = field(default_factory=dict)
    """By function key."""
    refused: dict[str, int] = field(default_factory=dict)
    """By kind of problem: requests that the ingress refused."""
    unrecorded: int = 0
    """Things that happened to events and could not be written down."""
    forgotten: int = 0
    """Events that waited for triggers when these were removed."""
    blobs_removed: int = 0
    """Blobs that nothing named any more, and that were removed."""
    blob_sweeps_failed: int = 0
    """Times that it could not be found out, or done."""

    def count_published(self, broker_key: str, events: int) -> None:
        """``events`` were taken in by the broker."""
        self.published[broker_key] = self.published.get(broker_key, 0) + events

    def count_refused(self, problem: str) -> None:
        """The ingress refused a request."""
        self.refused[problem] = self.refused.get(problem, 0) + 1

    def of(self, trigger_key: str) -> TriggerCounts:
        """The counters of a trigger, to count on."""
        return _of(self.triggers, trigger_key, TriggerCounts)

    def of_sink(self, trigger_key: str) -> TriggerCounts:
        """The counters of the sink of a trigger's dead letters, to count on."""
        return _of(self.sinks, trigger_key, TriggerCounts)

    def of_schedule(self, schedule_key: str) -> ScheduleTally:
        """The counters of a schedule, to count on."""
        return _of(self.schedules, schedule_key, ScheduleTally)

    def of_function(self, function_key: str) -> CallCounts:
        """The counters of a function's calls, to count on."""
        return _of(self.calls, function_key, CallCounts)

    def forget_all_but(
        self,
        trigger_keys: Collection[str],
        schedule_keys: Collection[str] = (),
        function_keys: Collection[str] = (),
    ) -> None:
        """Drop the counters of what is not declared any more."""
        self.triggers = {key: counts for key, counts in self.triggers.items() if key in trigger_keys}
        self.sinks = {key: counts for key, counts in self.sinks.items() if key in trigger_keys}
        self.schedules = {key: counts for key, counts in self.schedules.items() if key in schedule_keys}
        self.calls = {key: counts for key, counts in self.calls.items() if key in function_keys}

    def dump(self) -> bytes:
        """All counters, for :meth:`load`."""
        schedules = {
            key: {name: getattr(one, name) for name in _TALLY} for key, one in self.schedules.items()
        }
        return orjson.dumps(
            {
                "published": self.published,
                "triggers": self.triggers,
                "sinks": self.sinks,
                "calls": self.calls,
                "refused": self.refused,
                "schedules": schedules,
            }
        )

    def load(self, dumped: bytes) -> None:
        """Go on counting from what :meth:`dump` gave.

        Raises ``ValueError`` or ``TypeError`` for anything else.
        """
        document = orjson.loads(dumped)
        if not isinstance(document, dict):
            raise TypeError("the counters are no JSON object")
        published, refused = _numbers(document.get("published")), _numbers(document.get("refused"))
        triggers, sinks = _counts(document.get("triggers")), _counts(document.get("sinks", {}))
        calls = {key: CallCounts(**each) for key, each in _by_key(document.get("calls", {})).items()}
        schedules = _tallies(document.get("schedules", {}))
        self.published, self.refused, self.triggers, self.sinks = published, refused, triggers, sinks
        self.schedules, self.calls = schedules, calls

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
        unrecorded = CounterMetricFamily(
            "torpor_events_unrecorded", "Things that happened to events and could not be written down."
        )
        unrecorded.add_metric([], self.unrecorded)
        yield unrecorded
        forgotten = CounterMetricFamily(
            "torpor_events_forgotten", "Events that waited for triggers when these were removed."
        )
        forgotten.add_metric([], self.forgotten)
        yield forgotten
        for name, text in _BLOB_COUNTERS.items():
            counter = CounterMetricFamily(f"torpor_{name}", f"{text}.")
            counter.add_metric([], getattr(self, name))
            yield counter
        for name, text in _COUNTERS.items():
            yield _family(f"torpor_events_{name}", text, name, self.triggers)
        for name, text in _SINK_COUNTERS.items():
            yield _family(f"torpor_events_sink_{name}", text, name, self.sinks)
        for name, text in _CALL_COUNTERS.items():
            yield _family(f"torpor_calls_{name}", text, name, self.calls, kind="function")
        yield from self._of_schedules()

    def _of_schedules(self) -> Iterator[Metric]:
        labels = ["namespace", "schedule"]
        for name, text in _TALLY.items():
            family = CounterMetricFamily(f"torpor_schedule_{name}", f"{text}.", labels=labels)
            for key, tally in self.schedules.items():
                family.add_metric(key.split("/"), getattr(tally, name))
            yield family
        lateness = HistogramMetricFamily(
            "torpor_schedule_lateness_seconds",
            "How late firings' events were in the broker, jitter aside.",
            labels=labels,
        )
        for key, tally in self.schedules.items():
            lateness.add_metric(key.split("/"), tally.lateness.buckets(), tally.lateness.total)
        yield lateness


def _family(
    name: str, text: str, field_name: str, counts: Mapping[str, object], kind: str = "trigger"
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, f"{text}.", labels=["namespace", kind])
    for key, each in counts.items():
        family.add_metric(key.split("/"), getattr(each, field_name))
    return family


def _counts(value: object) -> dict[str, TriggerCounts]:
    return {key: TriggerCounts(**counts) for key, counts in _by_key(value).items()}


def _tallies(value: object) -> dict[str, ScheduleTally]:
    return {
        key: ScheduleTally(fired=counts.get("fired", 0), missed=counts.get("missed", 0))
        for key, counts in _by_key(value).items()
    }


def _by_key(value: object) -> dict[str, dict[str, int]]:
    if not isinstance(value, dict):
        raise TypeError("the counters of triggers, schedules or functions are no JSON object")
    return {key: _numbers(counts) for key, counts in value.items()}


def _numbers(value: object) -> dict[str, int]:
    if not isinstance(value, dict) or not all(isinstance(number, int) for number in value.values()):
        raise TypeError("the counters are no numbers by name")
    return value


_TALLY = {
    "fired": "Firings of schedules whose event is in the broker",
    "missed": "Firings of schedules that were left out",
}
_BLOB_COUNTERS = {
    "blobs_removed": "Blobs that nothing named any more, and that were removed",
    "blob_sweeps_failed": "Sweeps of blobs that failed, and are done again",
}
_COUNTERS = {
    "delivered": "Deliveries that succeeded",
    "redelivered": "Deliveries that were not the first of their event",
    "failed": "Deliveries that did not succeed",
    "dead_lettered": "Events that became dead letters",
    "replayed": "Dead letters that were replayed",
    "backlog_refused": "Events that were answered 429, since as many waited as may",
    "backlog_overflowed": "Events that became dead letters since more waited than may",
}
_CALL_COUNTERS = {
    "accepted": "Calls that nobody waits for, taken in durably",
    "retried": "Attempts of such calls that were followed by another",
    "succeeded": "Calls that nobody waits for and that their function took",
    "failed": "Calls that nobody waits for and that were given up",
    "callbacks_delivered": "Callbacks that their receiver took",
    "callbacks_retried": "Attempts of callbacks that were followed by another",
    "callbacks_failed": "Callbacks that were given up",
}
_SINK_COUNTERS = {
    "delivered": "Dead letters that a trigger's sink took",
    "failed": "Deliveries of dead letters to a sink that did not succeed",
    "dead_lettered": "Dead letters that a sink did not take, and that stay in the list alone",
}


def _of(all_counts: dict[str, _Counts], key: str, new: Callable[[], _Counts]) -> _Counts:
    """The counters of ``key``, made by ``new`` if it has none: events come too often to make some in vain."""
    counts = all_counts.get(key)
    if counts is None:
        counts = all_counts[key] = new()
    return counts
