"""What events pods tell: who knows of the newest firing is believed, and of what waits the largest number."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import orjson
import pytest

from torpor.controller.backlogs import Backlogs
from torpor.controller.firings import EventsPods, Firings
from torpor.controller.schedules import ScheduleReconciler
from torpor.errors import ClusterUnreachableError, ConnectError
from torpor.events.declaration import EventsState, ScheduleReport
from torpor.providers.kubernetes.mirror import Mirror
from torpor.providers.kubernetes.resources import FUNCTIONS, PODS, SCHEDULES, TRIGGERS
from torpor.scaling.backlog import Backlog, encode
from torpor.testing.clock import MovableClock
from torpor.testing.kube import ApiServer
from torpor.transport.message import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from torpor.controller.events import Recorder
    from torpor.controller.world import World
    from torpor.endpoint import Endpoint
    from torpor.transport import Client

LABELS = {"app.kubernetes.io/part-of": "torpor", "app.kubernetes.io/component": "events"}
KEY = "default/s"


class _Pods:
    """Events pods in place of a network, and the parts of a controller that look at schedules."""

    def __init__(self) -> None:
        self.server = ApiServer()
        self.clock = MovableClock()
        self.told: dict[str, bytes] = {}
        self.asked = 0
        self.bodies: list[bytes] = []
        self.events = EventsPods(self.server.kube(), cast("Client", self), self.clock, "torpor")
        self.firings = Firings(self.events, self.clock)

    async def request(
        self,
        endpoint: Endpoint,
        method: bytes,
        target: bytes,
        fields: bytes,
        body: bytes,
        *,
        timeout_seconds: float,
    ) -> Response:
        assert timeout_seconds > 2.0  # that is how long a pod may look for what it does not know
        assert (method, target, fields) in ((b"GET", b"/state", b""), (b"POST", b"/backlogs", b""))
        self.bodies.append(body)
        self.asked += 1
        if endpoint.host not in self.told:
            raise ConnectError("nobody is there")
        return Response(200, [], self.told[endpoint.host])

    def pod(self, host: str, report: ScheduleReport | None = None) -> None:
        port = {"name": "agent", "containerPort": 9000}
        pod: dict[str, Any] = {
            "metadata": {"name": f"events-{host}", "namespace": "torpor", "labels": LABELS},
            "spec": {"containers": [{"name": "events", "ports": [port]}]},
            "status": {"podIP": host, "conditions": [{"type": "Ready", "status": "True"}]},
        }
        self.server.put(PODS, pod)
        if report is not None:
            self.told[host] = EventsState(schedules={KEY: report}).model_dump_json().encode()


def run(case: Callable[[_Pods], Awaitable[None]]) -> None:
    async def inner() -> None:
        pods = _Pods()
        mirror = asyncio.create_task(pods.events.mirror.run())
        await pods.events.mirror.synced.wait()
        try:
            await case(pods)
        finally:
            mirror.cancel()
            await asyncio.gather(mirror, return_exceptions=True)

    asyncio.run(inner())


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def at(hour: int) -> datetime:
    return datetime(2026, 1, 1, hour, tzinfo=UTC)


def test_the_newest_firing_counts_and_answers_hold_for_a_moment() -> None:
    async def case(pods: _Pods) -> None:
        pods.pod("10.0.0.1", ScheduleReport(last=at(2)))
        pods.pod("10.0.0.2", ScheduleReport(last=at(1), problem="away"))
        pods.pod("10.0.0.3")
        pods.pod("10.0.0.4")
        pods.told["10.0.0.4"] = b"[]"
        await turns()
        found = await pods.firings.of(KEY)
        assert found is not None
        assert (found.last, found.problem) == (at(2), "")
        assert await pods.firings.of("default/other") is None
        assert pods.asked == 4
        await pods.clock.advance(5)
        await pods.firings.of(KEY)
        assert pods.asked == 8

    run(case)


def test_a_schedule_says_when_it_fired_and_keeps_that_while_nobody_tells() -> None:
    async def case(pods: _Pods) -> None:
        spec = {"cron": "@hourly"}
        pods.server.put(SCHEDULES, {"metadata": {"name": "s", "namespace": "default"}, "spec": spec})
        world = _World(pods)
        mirror = asyncio.create_task(world.schedules.run())
        await world.schedules.synced.wait()
        reconciler = ScheduleReconciler(
            pods.server.kube(), cast("World", world), cast("Recorder", world), pods.clock, pods.firings
        )
        pods.pod("10.0.0.1", ScheduleReport(last=at(2)))
        await turns()
        assert await reconciler.reconcile(KEY) == 3600
        assert _status(pods)["lastFiringTime"] == "2026-01-01T02:00:00Z"
        assert _status(pods)["nextFiringTime"] == "2026-01-01T01:00:00Z"
        del pods.told["10.0.0.1"]
        await pods.clock.advance(3600)
        await turns()
        await reconciler.reconcile(KEY)
        assert _status(pods)["lastFiringTime"] == "2026-01-01T02:00:00Z"
        assert _status(pods)["nextFiringTime"] == "2026-01-01T02:00:00Z"
        pods.pod("10.0.0.1", ScheduleReport(last=at(2), problem="the broker is full"))
        await pods.clock.advance(5)
        await turns()
        await reconciler.reconcile(KEY)
        [condition] = _status(pods)["conditions"]
        assert (condition["status"], condition["reason"]) == ("False", "NotFiring")
        assert condition["message"] == "the broker is full"
        mirror.cancel()
        await asyncio.gather(mirror, return_exceptions=True)

    run(case)


def test_what_waits_for_functions_that_are_scaled_by_it() -> None:
    async def case(pods: _Pods) -> None:
        functions = {
            "f": {"metric": "lag", "targetAge": "5s"},
            "g": {"metric": "rps"},
            "h": {"metric": "lag"},
        }
        triggers = {"t": "f", "u": "f", "v": "g", "w": "h"}
        world = _World(pods)
        cast("dict[str, Any]", world.functions.items).update(
            {
                f"default/{name}": {"metadata": {"name": name}, "spec": {"scaling": scaling}}
                for name, scaling in functions.items()
            }
        )
        cast("dict[str, Any]", world.triggers.items).update(
            {
                f"default/{name}": {
                    "metadata": {"name": name, "namespace": "default"},
                    "spec": {"subscriber": {"function": function}},
                }
                for name, function in triggers.items()
            }
        )
        awake = {"default/f", "default/g"}
        backlogs = Backlogs(cast("World", world), pods.events, awake.__contains__)
        assert backlogs.lagging() == {"default/f": True}
        awake.add("default/h")
        lagging = backlogs.lagging()
        assert lagging == {"default/f": True, "default/h": False}
        with pytest.raises(ClusterUnreachableError, match="none of 0 events pods"):
            await backlogs.ask(lagging)
        for host, told in (
            ("10.0.0.1", {"t": Backlog(3, 9.0), "u": Backlog(4), "gone": Backlog(9), "f calls": Backlog(2)}),
            ("10.0.0.2", {"t": Backlog(5, 8.0), "w": Backlog(0)}),
        ):
            pods.pod(host)
            pods.told[host] = encode({f"default/{name}": each for name, each in told.items()})
        pods.pod("10.0.0.3")  # it does not answer
        await turns()
        found = await backlogs.ask(lagging)
        assert found == {"default/f": Backlog(11, 9.0), "default/h": Backlog(0)}
        assert [orjson.loads(each) for each in pods.bodies] == [
            {
                "default/t": True,
                "default/u": True,
                "default/w": False,
                "default/f calls": True,
                "default/h calls": False,
            }
        ] * 3

    run(case)


class _World:
    """As much of a controller's as a schedule needs."""

    def __init__(self, pods: _Pods) -> None:
        kube, clock = pods.server.kube(), pods.clock
        self.schedules = Mirror(kube, SCHEDULES, clock, lambda _: None)
        self.functions = Mirror(kube, FUNCTIONS, clock, lambda _: None)
        self.triggers = Mirror(kube, TRIGGERS, clock, lambda _: None)

    async def changed(self, *_: object) -> None:
        """Nobody is told."""


def _status(pods: _Pods) -> dict[str, Any]:
    item = pods.server.read(SCHEDULES, KEY)
    assert item is not None
    status: dict[str, Any] = item["status"]
    return status
