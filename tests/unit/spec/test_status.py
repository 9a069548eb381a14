"""The views: as JSON by the API's names, and read back by a reader that may be older than the writer."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from torpor.spec.models import Filter
from torpor.spec.status import InstanceStatus, LogLine, TriggerStatus


def test_times_come_as_seconds_since_the_epoch_and_are_shown_in_utc() -> None:
    line = LogLine(time=1_767_225_600.25, instance="f-00001-abcdef", stream="stdout", text="hello")
    assert line.time == datetime(2026, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC)
    assert json.loads(line.model_dump_json())["time"] == "2026-01-01T00:00:00.250000Z"


def test_a_reader_ignores_what_it_does_not_know() -> None:
    text = (
        '{"id": "f-00001-abcdef", "revision": "f-00001", "state": "ready", "endpoint": "127.0.0.1:4000",'
        ' "startedAt": "2026-01-01T00:00:00Z", "mood": "calm"}'
    )
    instance = InstanceStatus.model_validate_json(text)
    assert (instance.started_at.year, instance.pid) == (2026, None)
    assert InstanceStatus.model_validate_json(instance.model_dump_json()) == instance


def test_counts_and_filters_have_the_names_of_yaml() -> None:
    filters = (Filter(not_=Filter(exact={"type": "a"})),)
    status = TriggerStatus(
        name="t", namespace="default", broker="default", function="f", filters=filters, dead_lettered=3
    )
    document = json.loads(status.model_dump_json())
    assert document["deadLettered"] == 3
    assert document["filters"][0]["not"]["exact"] == {"type": "a"}
    assert TriggerStatus.model_validate_json(status.model_dump_json()) == status
