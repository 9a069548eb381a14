"""The controller as a whole, on an API server in memory: it leads, follows changes, and hands over."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import generate_latest

from tests.unit.controller.bench import KEY, PLATFORM, REVISION_1, function
from torpor.controller import names
from torpor.controller.controller import Controller
from torpor.providers.kubernetes import resources
from torpor.testing.clock import MovableClock
from torpor.testing.kube import ApiServer

if TYPE_CHECKING:
    from torpor.providers.kubernetes.resources import Object


async def turns() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


def ready(server: ApiServer, resource: resources.Resource, key: str) -> tuple[str, str]:
    item = server.read(resource, key)
    assert item is not None
    [one] = [one for one in item["status"]["conditions"] if one["type"] == "Ready"]
    return one["status"], one["reason"]


def trigger(name: str, subscriber: str, sink: dict[str, str] | None = None) -> Object:
    metadata = {"name": name, "namespace": "default"}
    spec: dict[str, Any] = {"subscriber": {"function": subscriber}}
    return {"metadata": metadata, "spec": spec | ({"delivery": {"deadLetterSink": sink}} if sink else {})}


def test_functions_and_triggers_are_followed() -> None:
    async def case() -> None:
        server, clock = ApiServer(), MovableClock()
        server.put(resources.TRIGGERS, trigger("t", "f"))
        tasks = [
            asyncio.create_task(Controller(server.kube(), clock, PLATFORM, name).run()) for name in ("a", "b")
        ]
        await turns()
        assert ready(server, resources.TRIGGERS, "default/t") == ("False", "SubscriberMissing")
        server.put(resources.FUNCTIONS, function())
        await turns()
        assert ready(server, resources.FUNCTIONS, KEY) == ("True", "AtRest")
        assert ready(server, resources.TRIGGERS, "default/t") == ("True", "Declared")
        tasks[0].cancel()
        await turns()
        await clock.advance(20, turns)
        server.put(resources.TRIGGERS, trigger("u", "f"))
        await server.kube().scale(resources.DEPLOYMENTS, "default", REVISION_1, 1)
        await turns()
        assert ready(server, resources.TRIGGERS, "default/u") == ("True", "Declared")
        assert ready(server, resources.FUNCTIONS, KEY) == ("Unknown", "Starting")
        server.remove(resources.FUNCTIONS, KEY)
        await turns()
        assert ready(server, resources.TRIGGERS, "default/t") == ("False", "SubscriberMissing")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(case())


def test_schedules_say_when_they_fire() -> None:
    async def case() -> None:
        server, clock = ApiServer(), MovableClock()

        def put(name: str, **spec: object) -> None:
            item = {"metadata": {"name": name, "namespace": "default"}, "spec": {"cron": "@hourly", **spec}}
            server.put(resources.SCHEDULES, item)

        def status(name: str) -> dict[str, Any]:
            item = server.read(resources.SCHEDULES, f"default/{name}")
            assert item is not None
            found: dict[str, Any] = item["status"]
            return found

        put("s")
        put("wrong", cron="61 * * * *")
        put("lost", timeZone="Mars/Olympus")
        task = asyncio.create_task(Controller(server.kube(), clock, PLATFORM, "a").run())
        await turns()
        assert ready(server, resources.SCHEDULES, "default/s") == ("True", "Declared")
        assert status("s")["nextFiringTime"] == "2026-01-01T01:00:00Z"
        assert ready(server, resources.SCHEDULES, "default/wrong") == ("False", "Invalid")
        assert "spec.cron: is '61 * * * *'" in status("wrong")["conditions"][0]["message"]
        assert "spec.timeZone: is 'Mars/Olympus'" in status("lost")["conditions"][0]["message"]
        await clock.advance(3600 + 5, turns)
        assert status("s")["nextFiringTime"] == "2026-01-01T02:00:00Z"
        put("s", suspend=True)
        await turns()
        assert ready(server, resources.SCHEDULES, "default/s") == ("True", "Suspended")
        assert "nextFiringTime" not in status("s")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(case())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"exact": {"Type": "a"}}, "spec.filters[0].any[0].exact.Type: is 'Type', "),
        ({"exact": {"data.": "a"}}, "spec.filters[0].any[0].exact.data.: is 'data.', a path "),
        ({"sql": "type ="}, "spec.filters[0].any[0].sql: ends after character 6, "),
        ({"sql": "LOVER(type) = 'a'"}, "spec.filters[0].any[0].sql: calls LOVER at character 1, "),
    ],
)
def test_a_wrong_trigger_is_told(wrong: dict[str, Any], message: str) -> None:
    async def case() -> None:
        server = ApiServer()
        item = trigger("t", "f")
        item["spec"]["filters"] = [{"any": [wrong]}]
        server.put(resources.TRIGGERS, item)
        task = asyncio.create_task(Controller(server.kube(), MovableClock(), PLATFORM, "a").run())
        await turns()
        assert ready(server, resources.TRIGGERS, "default/t") == ("False", "Invalid")
        told = server.read(resources.TRIGGERS, "default/t")
        assert told is not None
        assert told["status"]["conditions"][0]["message"].startswith(message)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(case())


def test_a_sink_that_is_missing_is_told() -> None:
    async def case() -> None:
        server = ApiServer()
        server.put(resources.FUNCTIONS, function())
        server.put(resources.TRIGGERS, trigger("t", "f", {"function": "g"}))
        server.put(resources.TRIGGERS, trigger("u", "f", {"broker": "morgue"}))
        task = asyncio.create_task(Controller(server.kube(), MovableClock(), PLATFORM, "a").run())
        await turns()
        for key in ("default/t", "default/u"):
            assert ready(server, resources.TRIGGERS, key) == ("False", "SinkMissing")
        other = function()
        other["metadata"] = {"name": "g", "namespace": "default"}
        server.put(resources.FUNCTIONS, other)
        reader = trigger("v", "f")
        reader["spec"]["broker"] = "morgue"
        server.put(resources.TRIGGERS, reader)
        await turns()
        for key in ("default/t", "default/u"):
            assert ready(server, resources.TRIGGERS, key) == ("True", "Declared")
        server.remove(resources.FUNCTIONS, "default/g")
        server.remove(resources.TRIGGERS, "default/v")
        await turns()
        for key in ("default/t", "default/u"):
            assert ready(server, resources.TRIGGERS, key) == ("False", "SinkMissing")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(case())


def test_the_phases_of_a_pods_start_are_told_with_the_pull_apart() -> None:
    async def case() -> None:
        server, clock = ApiServer(), MovableClock()
        controller = Controller(server.kube(), clock, PLATFORM, "a")
        task = asyncio.create_task(controller.run())
        server.put(resources.FUNCTIONS, function())
        await turns()
        labels = {names.FUNCTION: "f", names.REVISION: REVISION_1, names.MANAGED: "torpor"}
        pod: Object = {"metadata": {"name": "p", "namespace": "default", "uid": "u", "labels": labels}}
        container = {"name": names.CONTAINER, "state": {"running": {}}}
        server.put(resources.PODS, {**pod, "spec": {"containers": []}})
        await turns()
        await clock.advance(0.5, turns)
        pod["spec"] = {"nodeName": "n", "containers": []}
        server.put(resources.PODS, pod)
        await turns()
        await clock.advance(3.0, turns)
        server.put(resources.PODS, {**pod, "status": {"containerStatuses": [container]}})
        about = {"kind": "Pod", "uid": "u", "fieldPath": "spec.containers{function}"}
        server.put(
            resources.CORE_EVENTS,
            {
                "metadata": {"name": "p.1", "namespace": "default"},
                "involvedObject": about,
                "reason": "Pulled",
                "message": 'Successfully pulled image "f" in 2s (2s including waiting)',
            },
        )
        await turns()
        told = generate_latest(controller.metrics).decode()
        sums = re.findall(r'torpor_cold_start_seconds_sum\{function="default/f",phase="(\w+)"\} (\S+)', told)
        assert {phase: float(seconds) for phase, seconds in sums} == {
            "schedule": 0.5,
            "sandbox": 1.0,
            "pull": 2.0,
            "start": 0.0,
        }
        server.remove(resources.PODS, "default/p")
        server.remove(resources.FUNCTIONS, KEY)
        await turns()
        assert "default/f" not in generate_latest(controller.metrics).decode()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(case())
