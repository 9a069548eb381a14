# ruff: noqa: E501 - tables are read by the line
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
ENDING = "ending"


def pod(*stages: str, uid: str = "u") -> Object:
    """A pod that has come through ``stages``."""
    conditions = [{"type": "PodReadyToStartContainers", "status": str(BOXED in stages)}]
    status: dict[str, Any] = {"conditions": conditions}
    if RUNS in stages:
        status["containerStatuses"] = [{"name": names.CONTAINER, "state": {"running": {}}}]
    metadata: dict[str, Any] = {"namespace": "default", "uid": uid, "labels": {names.FUNCTION: "f"}}
    if ENDING in stages:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    spec = {"nodeName": "node"} if PLACED in stages else {}
    return {"metadata": metadata, "spec": spec, "status": status}


@pytest.mark.parametrize(
    ("seen", "phases"),
    [
        (
            [(0.0, [MADE]), (0.1, [PLACED]), (0.1, [PLACED]), (0.4, [PLACED, BOXED]), (1.4, [PLACED, BOXED, RUNS])],
            [("schedule", 0.1), ("sandbox", 0.3), ("start", 1.0)],
        ),
        # What is told of at once takes no time of its own.
        ([(0.0, [MADE]), (0.5, [PLACED, RUNS])], [("schedule", 0.5), ("sandbox", 0.0), ("start", 0.0)]),
        ([(0.0, [PLACED]), (0.5, [PLACED, RUNS])], []),  # it was not seen from its beginning
        ([(0.0, [MADE]), (0.5, [ENDING]), (0.6, [PLACED, ENDING])], []),
        ([(0.0, [MADE]), (1.0, [PLACED, RUNS]), (2.0, [PLACED, RUNS])],
         [("schedule", 1.0), ("sandbox", 0.0), ("start", 0.0)]),
    ],
)  # fmt: skip
def test_phases(seen: list[tuple[float, list[str]]], phases: list[tuple[str, float]]) -> None:
    found: list[tuple[str, str, float]] = []
    starts = PodStarts(lambda *phase: found.append(phase))
    for now, stages in seen:
        starts.see(pod(*stages), now)
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
