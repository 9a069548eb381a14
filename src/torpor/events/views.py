"""What ``/api/v1`` shows of triggers and brokers, wherever they run. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torpor.events.names import DEFAULT_BROKER
from torpor.spec.status import BrokerStatus, EventCounts, TriggerStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torpor.events.declaration import EventsState
    from torpor.spec.models import Trigger


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


def broker_statuses(
    brokers: Iterable[tuple[str, str]], state: EventsState, gateway_url: str
) -> list[BrokerStatus]:
    """The views of the broker that there always is, and of those that triggers read.

    ``brokers`` are pairs of keys: a trigger and the broker that it reads.
    """
    readers: dict[str, list[str]] = {DEFAULT_BROKER: []}
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
