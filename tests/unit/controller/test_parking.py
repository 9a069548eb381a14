# ruff: noqa: E501 - tables are read by the line
"""How a function rests, and how large its pods are: tables, and what always holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.controller import names, parking
from torpor.controller.parking import Facts, Pod, Rest, Size, decide

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = 10_000.0
FULL = {"cpu": "500m", "memory": "256Mi"}


def pods(*sizes: str, ready: bool = True) -> Sequence[Pod]:
    return [Pod(f"p{index}", ready, Size(size)) for index, size in enumerate(sizes)]


def facts(
    desired: int, replicas: int, since: float | None, sizes: str = "", *, may: bool = True, ready: bool = True
) -> Facts:
    """Facts at 10,000 s of a function that is parked for 600 s."""
    return Facts(desired, replicas, since, may, 600.0, NOW, pods(*sizes.split(), ready=ready))


@pytest.mark.parametrize(
    ("what", "given", "rest", "replicas", "since", "resize", "again"),
    [
        ("at rest, it stays",          facts(0, 0, None),                        "zero",   0, None,   {}, None),
        ("wanted, it starts",          facts(3, 0, None),                        "active", 3, None,   {}, None),
        ("it scales",                  facts(1, 4, None, "full full full full"), "active", 1, None,   {}, None),
        ("wanted no more, it parks",   facts(0, 1, None, "full"),                "parked", 1, NOW,    {"p0": "small"}, 600.0),
        ("of several, one stays",      facts(0, 2, None, "full full"),           "parked", 1, NOW,    {}, 600.0),
        ("one that starts is let",     facts(0, 1, 9_900.0, "full", ready=False), "parked", 1, 9_900.0, {}, 500.0),
        ("parked, it stays",           facts(0, 1, 9_900.0, "small"),            "parked", 1, 9_900.0, {}, 500.0),
        ("replaced, it is shrunk",     facts(0, 1, 9_900.0, "full"),             "parked", 1, 9_900.0, {"p0": "small"}, 500.0),
        ("long enough",                facts(0, 1, 9_400.0, "small"),            "zero",   0, None,   {}, None),
        ("not any more, by spec",      facts(0, 1, 9_900.0, "small", may=False), "zero",   0, None,   {}, None),
        ("never, by spec",             facts(0, 1, None, "full", may=False),     "zero",   0, None,   {}, None),
        ("woken, it grows",            facts(1, 1, 9_900.0, "small"),            "active", 1, None,   {"p0": "full"}, None),
        ("woken late, it grows too",   facts(1, 1, 9_000.0, "small"),            "active", 1, None,   {"p0": "full"}, None),
        ("woken by many",              facts(5, 1, 9_900.0, "small"),            "active", 5, None,   {"p0": "full"}, None),
        ("growing failed before",      facts(1, 1, None, "small"),               "active", 1, None,   {"p0": "full"}, None),
        ("its node has no room",       facts(1, 1, None, "stuck"),               "active", 2, None,   {}, None),
        ("another runs: it can go",    facts(1, 2, None, "stuck full"),          "active", 1, None,   {}, None),
        ("two of three are wanted",    facts(2, 2, None, "stuck full"),          "active", 3, None,   {}, None),
        ("unwanted, it shrinks again", facts(0, 1, None, "stuck"),               "parked", 1, NOW,    {"p0": "small"}, 600.0),
    ],
)  # fmt: skip
def test_what_is_decided(
    what: str, given: Facts, rest: str, replicas: int, since: float | None, resize: dict[str, str], again: float | None
) -> None:  # fmt: skip
    found = decide(given)
    assert (found.rest, found.replicas, found.since) == (rest, replicas, since), what
    assert (dict(found.resize), found.again_seconds) == (resize, again), what


def test_it_stays_as_it_is_until_another_is_ready() -> None:
    waiting = Facts(1, 2, None, True, 600.0, NOW, [*pods("stuck"), Pod("other", False, Size.FULL)])
    assert decide(waiting).replicas == 2


def test_every_pair_has_a_next_state() -> None:
    assert set(parking.NEXT) == {(rest, wish) for rest in Rest for wish in parking.Wish}


@given(
    desired=st.integers(0, 5),
    replicas=st.integers(0, 6),
    age=st.none() | st.floats(0, 2000),
    may=st.booleans(),
    sizes=st.lists(st.tuples(st.booleans(), st.sampled_from(Size)), max_size=4),
)
def test_what_always_holds(
    desired: int, replicas: int, age: float | None, may: bool, sizes: list[tuple[bool, Size]]
) -> None:
    there = [Pod(f"p{index}", ready, size) for index, (ready, size) in enumerate(sizes)]
    since = None if age is None else NOW - age
    found = decide(Facts(desired, replicas, since, may, 600.0, NOW, there))
    assert (found.rest is Rest.PARKED) == (found.since is not None) == (found.again_seconds is not None)
    if desired:  # whoever waits is served, whatever can't be resized
        assert found.rest is Rest.ACTIVE
        assert found.replicas >= desired
        assert Size.SMALL not in found.resize.values()
    else:
        assert found.replicas <= 1
        assert Size.FULL not in found.resize.values()
    if found.rest is Rest.PARKED:
        assert may
        # Decided again from what it comes to, it is the same.
        after = [Pod(pod.name, pod.ready, found.resize.get(pod.name, pod.size)) for pod in there]
        again = decide(Facts(0, found.replicas, found.since, may, 600.0, NOW, after))
        assert (again.rest, again.replicas, again.since) == (Rest.PARKED, 1, found.since)
        assert not set(again.resize) & set(found.resize)


# --- objects ------------------------------------------------------------------------------------------------


def pod(requests: dict[str, str], *conditions: tuple[str, str]) -> dict[str, Any]:
    told = [{"type": kind, "status": "True", "reason": reason} for kind, reason in conditions]
    containers = [{"name": "sidecar"}, {"name": names.CONTAINER, "resources": {"requests": requests}}]
    return {"metadata": {"name": "p"}, "spec": {"containers": containers}, "status": {"conditions": told}}


@pytest.mark.parametrize(
    ("requests", "conditions", "size"),
    [
        (FULL, [], Size.FULL),
        ({"cpu": "0.5", "memory": "268435456"}, [], Size.FULL),  # the same amounts
        ({"cpu": "1m", "memory": "256Mi"}, [], Size.SMALL),
        ({"cpu": "500m", "memory": "40Mi"}, [], Size.SMALL),
        (FULL, [("PodResizeInProgress", "")], Size.FULL),
        (FULL, [("PodResizePending", "Deferred")], Size.STUCK),
        (FULL, [("PodResizePending", "Infeasible")], Size.STUCK),
        ({"cpu": "1m", "memory": "256Mi"}, [("PodResizePending", "Infeasible")], Size.SMALL),
    ],
)
def test_the_size_of_a_pod(requests: dict[str, str], conditions: list[tuple[str, str]], size: Size) -> None:
    assert parking.size_of(pod(requests, *conditions), FULL) is size


@pytest.mark.parametrize(
    ("full", "held_mib", "parked"),
    [
        (FULL, None, {"cpu": "1m", "memory": "256Mi"}),
        (FULL, 40.0, {"cpu": "1m", "memory": "44Mi"}),
        (FULL, 40.5, {"cpu": "1m", "memory": "45Mi"}),  # 44.55, and up
        (FULL, 400.0, {"cpu": "1m", "memory": "256Mi"}),  # at rest it never asks for more than at work
        ({"cpu": "1m"}, 40.0, {"cpu": "1m"}),
        ({}, 40.0, {}),
    ],
)
def test_what_a_parked_pod_asks_for(
    full: dict[str, str], held_mib: float | None, parked: dict[str, str]
) -> None:
    held = None if held_mib is None else int(held_mib * 1024**2)
    assert parking.parked_requests(full, held) == parked


def test_what_it_holds_is_its_own_containers() -> None:
    containers = [
        {"name": "sidecar", "usage": {"memory": "900Mi"}},
        {"name": names.CONTAINER, "usage": {"cpu": "12345n", "memory": "40960Ki"}},
    ]
    assert parking.held_bytes({"containers": containers}) == 40 * 1024**2
    assert parking.held_bytes({"containers": containers[:1]}) is None
    assert parking.held_bytes(None) is None


@pytest.mark.parametrize(
    ("limits", "resizable", "refused", "reason"),
    [
        ({"memory": "256Mi"}, True, None, None),
        ({"memory": "256Mi"}, False, None, "NoResize"),
        ({"memory": "256Mi", "cpu": "500m"}, True, None, "Guaranteed"),
        ({"memory": "256Mi", "cpu": "1"}, True, None, None),
        ({"memory": "256Mi"}, True, "minimum cpu usage per Container is 10m", "ResizeRefused"),
    ],
)
def test_what_keeps_it_from_being_parked(
    limits: dict[str, str], resizable: bool, refused: str | None, reason: str | None
) -> None:
    container = {"name": names.CONTAINER, "resources": {"limits": limits, "requests": FULL}}
    deployment = {"spec": {"template": {"spec": {"containers": [container]}}}}
    found = parking.hindrance(deployment, resizable=resizable, refused=refused)
    assert (found and found[0]) == reason
