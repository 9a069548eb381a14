"""What ``/api/v1`` shows of triggers, schedules and brokers, wherever they run. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torpor.events.names import DEFAULT_BROKER
from torpor.events.schedule_marks import type_of
from torpor.spec.status import BrokerStatus, EventCounts, ScheduleCounts, ScheduleStatus, TriggerStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torpor.events.declaration import EventsState, ScheduleReport
    from torpor.spec.models import Schedule, Trigger


def trigger_status(trigger: Trigger, counts: EventCounts | None, problem: str) -> TriggerStatus:
    """The view of ``trigger``; ``counts`` is ``None`` while the dispatcher says nothing of it."""
    return TriggerStatus(
        name=trigger.metadata.name,
        namespace=trigger.metadata.namespace,
        broker=trigger.spec.broker,
        function=trigger.spec.subscriber.function,
        filters=trigger.spec.filters,
        joins=trigger.spec.join is not None,
        ready=counts is not None and not problem,
        reason=problem or ("" if counts is not None else "not at work yet"),
        **_counts(counts or EventCounts()),
    )


def schedule_status(schedule: Schedule, report: ScheduleReport | None) -> ScheduleStatus:
    """The view of ``schedule``; ``report`` is ``None`` while the events part says nothing of it."""
    spec = schedule.spec
    problem = report.problem if report is not None else "not at work yet"
    counts = report or ScheduleCounts()
    return ScheduleStatus(
        name=schedule.metadata.name,
        namespace=schedule.metadata.namespace,
        cron=spec.cron,
        time_zone=spec.time_zone,
        broker=spec.broker,
        event_type=type_of(schedule),
        missed_policy=spec.missed,
        jitter_seconds=spec.jitter_seconds,
        suspended=spec.suspend,
        ready=spec.suspend or not problem,
        reason="suspended" if spec.suspend else problem,
        **{name: getattr(counts, name) for name in ScheduleCounts.model_fields},
    )


def broker_statuses(
    brokers: Iterable[tuple[str, str]], state: EventsState, gateway_url: str, filled: Iterable[str] = ()
) -> list[BrokerStatus]:
    """The views of the broker that there always is, and of those that triggers read or schedules fill.

    ``brokers`` are pairs of keys: a trigger and the broker that it reads; ``filled`` are keys of others.
    """
    readers: dict[str, list[str]] = {DEFAULT_BROKER: [], **{key: [] for key in filled}}
    for trigger, broker in brokers:
        readers.setdefault(broker, []).append(trigger)
    return [
        _broker_status(
            key,
            f"{gateway_url}/events/{key}",
            state.published(key),
            [counts for trigger in triggers if (counts := state.counts(trigger)) is not None],
        )
        for key, triggers in readers.items()
    ]


def _broker_status(key: str, url: str, published: int, triggers: Iterable[EventCounts]) -> BrokerStatus:
    """The view of the broker ``key``; its counts are the sums of those of its ``triggers``."""
    namespace, name = key.split("/")
    sums = dict.fromkeys(EventCounts.model_fields, 0)
    for counts in triggers:
        for field, value in _counts(counts).items():
            sums[field] += value
    return BrokerStatus(name=name, namespace=namespace, url=url, published=published, **sums)


def _counts(counts: EventCounts) -> dict[str, int]:
    return {name: getattr(counts, name) for name in EventCounts.model_fields}
