"""A cluster as its API has it: from an API server in memory, and pods that answer on real ports."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pytest

from torpor import serving as server
from torpor.api.app import ApiOptions, create
from torpor.binding import WireEvent, encode_structured
from torpor.blobs import BlobStore
from torpor.cluster.backend import ClusterBackend
from torpor.errors import EventLogError
from torpor.events import names
from torpor.events.calls import Call, call_id
from torpor.events.control_app import ControlApp
from torpor.events.dead_letters import dead_letters
from torpor.events.declaration import Declaration, EventsState, ScheduleReport, TriggerReport
from torpor.events.log import Record
from torpor.events.memory import MemoryLog
from torpor.events.service import Service
from torpor.providers.kubernetes.resources import FUNCTIONS, PODS, SCHEDULES, TRIGGERS
from torpor.scaling import told
from torpor.scaling.load import Load, encode
from torpor.scaling.loop import ScalingState
from torpor.spec.calls import CallSelection
from torpor.spec.models import Metadata, Subscriber, Trigger, TriggerSpec
from torpor.testing.clock import MovableClock
from torpor.testing.kube import ApiServer
from torpor.transport import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from torpor.serving import App, Receive, Scope, Send

READY = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:03Z"}


def event(number: int) -> WireEvent:
    return WireEvent({"specversion": "1.0", "id": str(number), "source": "/test", "type": "a"}, None)


class _Agent:
    """A pod's agent: answers by path, and a tail of events that goes on until it is cut."""

    def __init__(self, pages: dict[str, bytes]) -> None:
        self.pages = pages
        self.events: asyncio.Queue[WireEvent | None] = asyncio.Queue()
        self.tails = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path.startswith("/tail/"):
            await self._tail(send)
        elif path in self.pages:
            await server.answer(send, 200, b"application/json", self.pages[path])
        else:
            await server.answer(send, 404, b"text/plain", b"not here")

    async def _tail(self, send: Send) -> None:
        self.tails += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"\n", "more_body": True})
        while (one := await self.events.get()) is not None:
            line = encode_structured(one) + b"\n"
            await send({"type": "http.response.body", "body": line, "more_body": True})
        self.tails -= 1
        await send({"type": "http.response.body", "body": b""})


class _Bench:
    def __init__(self, folder: Path) -> None:
        self.kube = ApiServer()
        self.clock = MovableClock()
        self.client = Client(clock=self.clock)
        self.backend = ClusterBackend(
            self.kube.kube(),
            self.kube.kube(),
            self.client,
            self.clock,
            BlobStore(folder.as_uri()),
            namespace="torpor",
            url="http://gateway/",
        )
        self.stack = contextlib.AsyncExitStack()

    async def pod(self, component: str, name: str, agent: App, *, ready: bool = True) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        endpoint = await self.stack.enter_async_context(server.serving(agent, listener, grace_seconds=1))
        labels = {"app.kubernetes.io/part-of": "torpor", "app.kubernetes.io/component": component}
        port = {"name": "agent", "containerPort": endpoint.port}
        self.kube.put(
            PODS,
            {
                "metadata": {"name": name, "namespace": "torpor", "labels": labels},
                "spec": {"containers": [{"name": component, "image": "torpor:1", "ports": [port]}]},
                "status": {"podIP": "127.0.0.1", "conditions": [READY] if ready else []},
            },
        )

    def function(self, name: str = "f", **labels: str) -> None:
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "AtRest",
            "message": "",
            "observedGeneration": 1,
        }
        self.kube.put(
            FUNCTIONS,
            {
                "metadata": {"name": name, "namespace": "n", "labels": labels},
                "spec": {"image": "f:1"},
                "status": {"conditions": [ready], "revision": f"{name}-00001"},
            },
        )

    def instance(self, name: str, function: str = "f") -> None:
        labels = {
            "torpor.dev/function": function,
            "torpor.dev/revision": f"{function}-00001",
            "app.kubernetes.io/managed-by": "torpor",
        }
        status = {"name": "function", "containerID": name, "state": {"running": {}}}
        self.kube.put(
            PODS,
            {
                "metadata": {"name": name, "namespace": "n", "labels": labels},
                "status": {"podIP": "10.0.0.1", "conditions": [READY], "containerStatuses": [status]},
            },
        )

    def trigger(self, name: str, **spec: Any) -> None:
        spec = {"subscriber": {"function": "f"}, **spec}
        self.kube.put(TRIGGERS, {"metadata": {"name": name, "namespace": "n"}, "spec": spec})

    async def settle(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)


def run(folder: Path, case: Callable[[_Bench], Awaitable[None]]) -> None:
    async def inner() -> None:
        bench = _Bench(folder)
        async with bench.stack:
            task = asyncio.create_task(bench.backend.run())
            try:
                async with asyncio.timeout(30):
                    while not bench.backend.ready:
                        await asyncio.sleep(0)
                    await case(bench)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await bench.client.close()

    asyncio.run(inner())


def test_functions_are_shown_with_what_gateways_and_the_controller_tell(tmp_path: Path) -> None:
    async def case(bench: _Bench) -> None:
        bench.function()
        bench.function("g")
        bench.instance("f-1")
        for number, total in enumerate((3, 4)):
            loads = encode({"n/f": Load(1.0, total)})
            await bench.pod("gateway", f"gateway-{number}", _Agent({"/loads": loads}))
        decided = told.encode({"n/f": ScalingState(3, 2.5, False, "2.5 of 1")})
        await bench.pod("controller", "controller-1", _Agent({"/scaling": decided}))
        await bench.pod("controller", "controller-2", _Agent({"/scaling": b"{}"}))
        await bench.pod("controller", "controller-3", _Agent({"/scaling": b"[]"}))
        await bench.settle()
        one, other = await bench.backend.functions()
        assert (one.name, one.requests, one.desired, one.scaling.observed) == ("f", 7, 3, 2.5)
        assert [instance.id for instance in one.instances] == ["f-1"]
        assert (other.name, other.requests, other.desired, other.reason) == ("g", 0, 0, "at rest")
        assert await bench.backend.function("n/g") == other
        assert await bench.backend.function("n/h") is None

    run(tmp_path, case)


def test_while_no_gateway_answers_functions_are_shown_all_the_same(tmp_path: Path) -> None:
    async def case(bench: _Bench) -> None:
        bench.function()
        await bench.settle()
        [one] = await bench.backend.functions()
        assert (one.ready, one.requests) == (True, 0)

    run(tmp_path, case)


def test_schedules_are_shown_as_events_pods_tell_of_them(tmp_path: Path) -> None:
    async def case(bench: _Bench) -> None:
        for name, spec in (
            ("s", {"broker": "bills"}),
            ("idle", {"suspend": True}),
            ("faulty", {"cron": "x"}),
        ):
            item = {"metadata": {"name": name, "namespace": "n"}, "spec": {"cron": "@hourly", **spec}}
            bench.kube.put(SCHEDULES, item)
        for number in (1, 2):
            report = ScheduleReport(
                fired=number,
                missed=3 - number,
                last=datetime(2026, 1, 1, number, tzinfo=UTC),
                next=datetime(2026, 1, 1, number + 1, tzinfo=UTC),
            )
            pages = {"/state": EventsState(schedules={"n/s": report}).model_dump_json().encode()}
            await bench.pod("events", f"events-{number}", _Agent(pages))
        await bench.settle()
        found = {one.name: one for one in await bench.backend.schedules()}
        one = found["s"]
        assert (one.fired, one.missed, one.ready, one.event_type) == (3, 3, True, "s.fired")
        assert (one.last, one.next) == (datetime(2026, 1, 1, 2, tzinfo=UTC),) * 2
        assert (found["idle"].ready, found["idle"].reason) == (True, "suspended")
        assert not found["faulty"].ready
        assert "spec.cron: is 'x'" in found["faulty"].reason
        brokers = [f"{each.namespace}/{each.name}" for each in await bench.backend.brokers()]
        assert sorted(brokers) == ["default/default", "n/bills", "n/default"]
        assert (await bench.backend.status()).schedules == 3

    run(tmp_path, case)


def test_counters_of_triggers_are_added_up_over_events_pods(tmp_path: Path) -> None:
    async def case(bench: _Bench) -> None:
        bench.trigger("t")
        bench.trigger("u", broker="orders")
        for number in (1, 2):
            report = TriggerReport(delivered=number, pending=5)
            state = EventsState(published_by_broker={"n/default": number}, triggers={"n/t": report})
            pages = {"/state": state.model_dump_json().encode()}
            await bench.pod("events", f"events-{number}", _Agent(pages))
        await bench.pod("events", "events-3", _Agent({}))
        await bench.pod("events", "events-4", _Agent({"/state": b"[]"}))
        await bench.settle()
        triggers = {one.name: one for one in await bench.backend.triggers()}
        assert (triggers["t"].delivered, triggers["t"].pending, triggers["t"].ready) == (3, 5, True)
        assert triggers["u"].reason == "not at work yet"
        brokers = {f"{one.namespace}/{one.name}": one for one in await bench.backend.brokers()}
        assert sorted(brokers) == ["default/default", "n/default", "n/orders"]
        assert (brokers["n/default"].published, brokers["n/default"].delivered) == (3, 3)
        assert brokers["n/orders"].url == "http://gateway/events/n/orders"

    run(tmp_path, case)


def test_a_tail_goes_on_at_another_pod(tmp_path: Path) -> None:
    async def case(bench: _Bench) -> None:
        with pytest.raises(EventLogError, match="no events pod answers"):
            await bench.backend.tail("n/default")
        agents = [_Agent({}), _Agent({})]
        for number, agent in enumerate(agents):
            await bench.pod("events", f"events-{number}", agent)
        await bench.settle()
        events = await bench.backend.tail("n/default")
        [first] = [agent for agent in agents if agent.tails]
        first.events.put_nowait(event(1))
        assert await anext(events) == event(1)
        first.events.put_nowait(None)
        upcoming = asyncio.ensure_future(anext(events))
        while not any(agent.tails for agent in agents):
            await asyncio.sleep(0.001)
        [second] = [agent for agent in agents if agent.tails]
        second.events.put_nowait(event(2))
        assert await upcoming == event(2)
        await events.aclose()  # type: ignore[attr-defined]
        second.events.put_nowait(None)

    run(tmp_path, case)


def test_any_events_pod_tells_of_dead_letters_and_replays_them(tmp_path: Path) -> None:
    async def case(bench: _Bench) -> None:
        log = MemoryLog(bench.clock)
        services = [Service(log, bench.clock, shared=True) for _ in range(2)]
        trigger = Trigger(
            metadata=Metadata(name="t", namespace="n"), spec=TriggerSpec(subscriber=Subscriber(function="f"))
        )
        for number, service in enumerate(services):
            await service.declare(Declaration(triggers=(trigger,)))
            app = ControlApp(service, bench.clock, declares=False)
            await bench.pod("events", f"events-{number}", app)
        records = dead_letters(
            [event(number) for number in range(300)],
            trigger_key="n/t",
            function_key="n/f",
            sequence=1,
            attempt=2,
            reason="bad",
            code=500,
            data=b"",
        )
        await log.append("dead.n.default", records)
        await bench.settle()
        transport = httpx.ASGITransport(create(bench.backend, ApiOptions()))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost/api/v1/") as api:
            lines = (await api.get("dead-letters", params={"triggers": "n/t"})).content.split(b"\n")
            ids = [orjson.loads(line)["id"] for line in lines if line]
            assert len(ids) == 300
            assert (await api.get(f"dead-letters/{ids[0]}")).json()["event"]["id"] == "0"
            assert (await api.get(f"dead-letters/{'0' * 28}")).status_code == 404
            action = {"ids": ids[:2]}
            for outcome in ("replayed", "unknown"):
                answer = await api.post("/dead-letters:replay", json=action)
                assert [item["outcome"] for item in answer.json()["items"]] == [outcome] * 2
            answer = await api.post("/dead-letters:drop", json={"ids": ids[2:4], "dryRun": True})
            assert [item["outcome"] for item in answer.json()["items"]] == ["dropped"] * 2
        assert len([each async for each in log.read("dead.n.default", ">")]) == 298
        assert len([each async for each in log.read("broker.n.default", "=to.>")]) == 2
        for service in services:
            await service.close(0.0)

    run(tmp_path, case)


def test_calls_are_listed_by_any_events_pod_and_all_together_know_which_are_being_made(
    tmp_path: Path,
) -> None:
    async def case(bench: _Bench) -> None:
        log = MemoryLog(bench.clock)
        service = Service(log, bench.clock, shared=True)
        await service.declare(Declaration())
        ids = [call_id("n/f", f"{number:032x}") for number in range(3)]
        calls = [Call(each, "POST", "/", [], bench.clock.now()) for each in ids]
        await log.append(names.CALLS, [Record(each.id, each.id, each.event(b"")) for each in calls])
        await bench.pod("events", "events-1", _Agent({"/calls/running": orjson.dumps([ids[1]])}))
        await bench.pod("events", "events-2", ControlApp(service, bench.clock, declares=False))
        await bench.pod("events", "events-3", _Agent({}))
        await bench.settle()
        page = await bench.backend.calls(CallSelection(namespace="n"))
        assert [(each.id, each.state) for each in page.items] == [
            (ids[2], "accepted"),
            (ids[1], "running"),
            (ids[0], "accepted"),
        ]
        await service.close(0.0)

    run(tmp_path, case)


def test_the_platform_s_pods_are_its_parts(tmp_path: Path) -> None:
    async def case(bench: _Bench) -> None:
        metrics = b"# HELP process_resident_memory_bytes x\nprocess_resident_memory_bytes 1.5e+06\n"
        await bench.pod("gateway", "gateway-1", _Agent({"/metrics": metrics}))
        await bench.pod("api", "api-1", _Agent({"/metrics": b"none"}))
        await bench.pod("events", "events-1", _Agent({}), ready=False)
        bench.function()
        bench.trigger("t")
        await bench.settle()
        status = await bench.backend.status()
        assert (status.functions, status.triggers, status.gateway_url) == (1, 1, "http://gateway")
        parts = {part.name: part for part in status.parts}
        assert sorted(parts) == ["api-1", "controller", "events-1", "gateway-1"]
        assert [name for name, part in parts.items() if part.healthy] == ["api-1", "gateway-1"]
        assert (parts["gateway-1"].memory_bytes, parts["api-1"].memory_bytes) == (1_500_000, None)

    run(tmp_path, case)


def test_everything_is_served_by_the_api_to_any_host(tmp_path: Path) -> None:
    async def case(bench: _Bench) -> None:
        bench.function()
        bench.instance("f-1")
        bench.kube.write_logs("n/f-1", ["2026-01-01T00:00:01.000000000Z hello"])
        await bench.settle()
        transport = httpx.ASGITransport(create(bench.backend, ApiOptions(allowed_hosts=("*",))))
        base = "https://kubernetes.example:6443"
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            listed = await client.get("/api/v1/functions")
            assert [one["name"] for one in listed.json()["items"]] == ["f"]
            lines = await client.get("/api/v1/functions/n/f/logs")
            assert lines.json()["text"] == "hello"
            stored = await client.put("/api/v1/blobs", content=b"bytes")
            assert stored.status_code == 201
            assert (await client.get(f"/api/v1/blobs/{stored.json()['name']}")).content == b"bytes"

    run(tmp_path, case)


def test_it_writes_nothing_to_the_cluster(tmp_path: Path) -> None:
    async def case(bench: _Bench) -> None:
        bench.function()
        bench.trigger("t")
        await bench.settle()
        await bench.backend.functions()
        await bench.backend.triggers()
        await bench.backend.brokers()
        await bench.backend.status()
        assert [one async for one in _all(bench)] == []
        assert bench.kube.writes == []

    run(tmp_path, case)


async def _all(bench: _Bench) -> AsyncIterator[object]:
    async for line in bench.backend.logs("n/f", tail=5, follow=False):
        yield line
