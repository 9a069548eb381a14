"""Phases of a pod's start, by when the watch tells of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from torpor.controller import names
from torpor.controller.podstarts import PodStarts

if TYPE_CHECKING:
    from torpor.providers.kubernetes.resources import Object

MADE = "made"
PLACED = "placed"
BOXED = "boxed"
RUNS = "runs"
READY = "ready"
ENDING = "ending"


def pod(*stages: str, uid: str = "u") -> Object:
    """A pod that has come through ``stages``."""
    conditions = [
        {"type": "PodReadyToStartContainers", "status": str(BOXED in stages)},
        {"type": "Ready", "status": str(READY in stages)},
    ]
    status: dict[str, Any] = {"conditions": conditions}
    if RUNS in stages:
        status["containerStatuses"] = [{"name": names.CONTAINER, "state": {"running": {}}}]
    metadata: dict[str, Any] = {
        "namespace": "default",
        "name": "p",
        "uid": uid,
        "labels": {names.FUNCTION: "f"},
    }
    if ENDING in stages:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    spec = {"nodeName": "node"} if PLACED in stages else {}
    return {"metadata": metadata, "spec": spec, "status": status}


EARLY = [
    (0.0, [MADE]),
    (0.1, [PLACED]),
    (0.1, [PLACED]),
    (0.4, [PLACED, BOXED]),
    (1.4, [PLACED, BOXED, RUNS]),
]
AT_ONCE = [(0.0, [MADE]), (0.1, [PLACED]), (1.4, [PLACED, BOXED, RUNS])]
READY_NOW = (2.0, [PLACED, BOXED, RUNS, READY])
WITHOUT_PULL = [("schedule", 0.1), ("sandbox", 0.3), ("start", 1.0)]


@pytest.mark.parametrize(
    ("seen", "phases"),
    [
        ([*EARLY, READY_NOW], WITHOUT_PULL),
        (EARLY, [("schedule", 0.1)]),  # whether it was pulled may come to be known yet
        # The pull is taken out of what it is in, whenever it is told of.
        (
            [*EARLY[:-1], (1.2, 0.7), EARLY[-1]],
            [("schedule", 0.1), ("sandbox", 0.3), ("pull", 0.7), ("start", 0.3)],
        ),
        ([*EARLY, (1.5, 0.7)], [("schedule", 0.1), ("sandbox", 0.3), ("pull", 0.7), ("start", 0.3)]),
        ([*EARLY, (1.5, 0.0)], WITHOUT_PULL),  # it was there
        (
            [*EARLY, (1.5, 0.7), (1.6, 9.0)],
            [("schedule", 0.1), ("sandbox", 0.3), ("pull", 0.7), ("start", 0.3)],
        ),
        ([*EARLY, READY_NOW, (2.1, 0.7)], WITHOUT_PULL),  # too late
        ([*AT_ONCE, (1.5, 0.7)], [("schedule", 0.1), ("sandbox", 0.6), ("pull", 0.7), ("start", 0.0)]),
        # A pull that is longer than all that it can be a part of, by somebody's clock.
        ([*AT_ONCE, (1.5, 9.0)], [("schedule", 0.1), ("sandbox", 0.0), ("pull", 1.3), ("start", 0.0)]),
        # What is told of at once takes no time of its own.
        (
            [(0.0, [MADE]), (0.5, [PLACED, RUNS, READY])],
            [("schedule", 0.5), ("sandbox", 0.0), ("start", 0.0)],
        ),
        ([(0.0, [PLACED]), (0.5, [PLACED, RUNS, READY])], []),  # it was not seen from its beginning
        ([(0.0, [MADE]), (0.5, [ENDING]), (0.6, [PLACED, ENDING])], []),
        ([*EARLY, (1.5, [PLACED, BOXED, RUNS, ENDING])], WITHOUT_PULL),
        ([*EARLY[:-1], (0.5, [PLACED, BOXED, ENDING])], WITHOUT_PULL[:2]),
        ([*EARLY, READY_NOW, (3.0, [PLACED, RUNS]), (4.0, [PLACED, RUNS, READY])], WITHOUT_PULL),
    ],
)
def test_phases(seen: list[tuple[float, Any]], phases: list[tuple[str, float]]) -> None:
    found: list[tuple[str, str, float]] = []
    starts = PodStarts(lambda *phase: found.append(phase))
    for now, what in seen:
        if isinstance(what, float):
            starts.pulled("u", what)
        else:
            starts.see(pod(*what), now)
    assert [phase for _, phase, _ in found] == [phase for phase, _ in phases]
    assert [seconds for _, _, seconds in found] == pytest.approx([seconds for _, seconds in phases])
    assert {function for function, _, _ in found} <= {"default/f"}


def test_pods_that_never_run_take_no_room_for_ever() -> None:
    found: list[str] = []
    starts = PodStarts(lambda _, phase, __: found.append(phase))
    for number in range(1500):
        starts.see(pod(MADE, uid=str(number)), 0.0)
    for number in range(1500):
        starts.see(pod(PLACED, uid=str(number)), 1.0)
    assert len(found) == 1000
