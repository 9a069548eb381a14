"""The short form of the chaos driver, and whether what it counts can fail."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.chaos.driver import Chaos
from tests.chaos.workload import Workload, faults, workload
from torpor.binding import WireEvent

if TYPE_CHECKING:
    from pathlib import Path


def _results(wanted: Workload) -> tuple[list[WireEvent], list[WireEvent]]:
    """What a platform without fault makes of the work."""
    stored, dead = [], []

    def done(kind: str, data: object) -> None:
        attributes = {"specversion": "1.0", "id": f"{kind}{data}", "source": "/", "type": kind}
        stored.append(WireEvent(attributes, orjson.dumps(data)))

    for event in wanted.events:
        data = orjson.loads(event.data or b"")
        if event.type == "job.wanted" and data["poison"]:
            dead.append(event)
        elif event.type == "job.wanted":
            done("job.done", {"number": data["number"]})
        elif event.type == "step.wanted":
            done("step.done", data)
        else:
            for index in range(data["size"]):
                done("group.part.done", {"group": data["number"], "index": index})
            done("group.joined", {"group": data["number"], "indexes": list(range(data["size"]))})
    return stored, dead


def test_what_is_lost_doubled_or_out_of_order_is_seen() -> None:
    wanted = workload(2_000, random.Random(1))
    stored, dead = _results(wanted)
    assert list(faults(wanted, stored, dead)) == []
    for index, event in enumerate(stored):
        if index % 50 == 0:
            assert list(faults(wanted, stored[:index] + stored[index + 1 :], dead)), f"lost: {event}"
            assert list(faults(wanted, [*stored, event], dead)), f"doubled: {event}"
    steps = [index for index, event in enumerate(stored) if event.type == "step.done"]
    same = [i for i in steps if orjson.loads(stored[i].data or b"")["key"] == "k0"]
    swapped = list(stored)
    swapped[same[0]], swapped[same[1]] = swapped[same[1]], swapped[same[0]]
    assert list(faults(wanted, swapped, dead))
    assert list(faults(wanted, stored, dead[1:]))
    assert list(faults(wanted, stored, [*dead, dead[0]]))


@pytest.mark.parametrize(("broker", "seed"), [("nats", 1), ("nats", 2), ("kafka", 3)])
def test_nothing_is_lost_or_doubled_while_processes_are_killed(
    tmp_path: Path, broker: str, seed: int
) -> None:
    outcome = Chaos(tmp_path, seed=seed, total=1_500, kills=5, broker=broker).run()
    assert outcome.faults == []
    assert outcome.killed.total() > 0
