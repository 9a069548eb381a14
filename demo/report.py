"""What the demo measures, and what has to hold for it to count as passed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MIN_REQUESTS = 2_000
MIN_CYCLES = 3
MIN_TILES = 16
MIN_INSTANCES = 2
MAX_DIFFERENCE = 1


class Latency(BaseModel):
    """Percentiles, over ``count`` requests, of the milliseconds from sending one to its whole answer."""

    p50: float
    p99: float
    count: int


class ApiReport(BaseModel):
    """The API gateway in front of a function."""

    requests: int
    failed: int
    failures: dict[str, int]
    cold_start_ms: Latency
    warm_ms: Latency
    cycles_to_zero: int
    max_instances: int


class FanOutReport(BaseModel):
    """One picture, split, resized in parallel, and joined."""

    tiles: int
    max_instances: int
    max_abs_diff: int
    wall_seconds: float
    single_instance_seconds: float


class MessagingReport(BaseModel):
    """One event that became hundreds of mails; in numbers of mails."""

    wanted: int
    """Recipients that have a mailbox."""
    sent: int
    duplicates: int
    refused: int
    """How often the server put one off."""
    retried: int
    """Deliveries that were not the first of their mail."""
    dead_lettered: int
    replayed: int
    lost: int
    """Recipients with a mailbox that got nothing."""
    wall_seconds: float


class EventsReport(BaseModel):
    """What went through the broker, in numbers of events."""

    published: int
    delivered: int
    redelivered: int
    dead_lettered: int


class Report(BaseModel):
    """``report.json``."""

    api: ApiReport
    fan_out: FanOutReport
    messaging: MessagingReport
    events: EventsReport
    instances_at_end: int
    processes_left: int

    def faults(self) -> list[str]:
        """What did not hold, in words; empty when the demo passed."""
        expectations = [
            (
                self.api.requests >= MIN_REQUESTS,
                f"{self.api.requests} requests were sent, at least {MIN_REQUESTS} are wanted",
            ),
            (self.api.failed == 0, f"{self.api.failed} requests failed"),
            (
                self.api.cycles_to_zero >= MIN_CYCLES,
                f"greeter went to zero {self.api.cycles_to_zero} times only",
            ),
            (self.api.max_instances >= MIN_INSTANCES, "greeter did not scale out"),
            (self.fan_out.tiles >= MIN_TILES, f"{self.fan_out.tiles} tiles only"),
            (self.fan_out.max_instances >= MIN_INSTANCES, "resize did not run on several instances"),
            (
                self.fan_out.max_abs_diff <= MAX_DIFFERENCE,
                f"the joined picture differs by {self.fan_out.max_abs_diff} grey levels from one resize",
            ),
            (
                self.messaging.sent == self.messaging.wanted and self.messaging.lost == 0,
                f"{self.messaging.sent} of {self.messaging.wanted} mails sent, {self.messaging.lost} lost",
            ),
            (self.messaging.duplicates == 0, f"{self.messaging.duplicates} mails were sent twice"),
            (self.messaging.retried > 0, "no mail had to be tried again"),
            (self.messaging.replayed > 0, "no dead letter was replayed"),
            (
                self.events.dead_lettered == self.messaging.dead_lettered,
                f"{self.events.dead_lettered} dead letters, {self.messaging.dead_lettered} were expected",
            ),
            (self.instances_at_end == 0, f"{self.instances_at_end} instances were left at the end"),
            (self.processes_left == 0, f"{self.processes_left} processes were left at the end"),
        ]
        return [fault for held, fault in expectations if not held]

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def latency(samples_seconds: Sequence[float]) -> Latency:
    """The percentiles of ``samples_seconds`` by nearest rank.

    Raises ``ValueError`` when there are no samples.
    """
    if not samples_seconds:
        raise ValueError("no samples")
    ordered = sorted(samples_seconds)

    def rank(percent: float) -> float:
        return round(ordered[math.ceil(percent / 100 * len(ordered)) - 1] * 1000, 2)

    return Latency(p50=rank(50), p99=rank(99), count=len(ordered))
