"""Events pods on a real broker and an API server in memory: fed by watches, led by a lease, ended well."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pytest

from tests.integration.events.process import PATIENCE_SECONDS, Functions, Kafka, until
from torpor.blobs import BlobStore
from torpor.clock import SystemClock
from torpor.cluster import events as part
from torpor.cluster.events import EventsPod
from torpor.errors import BlobNotFoundError
from torpor.events import blob_sweep, call_workers, names
from torpor.events.blob_keeper import blob_keeper
from torpor.events.jetstream import JetStreamLog
from torpor.events.log import ConsumerSpec
from torpor.events.nats_server import NatsServer
from torpor.providers.kubernetes.resources import FUNCTIONS, LEASES, SCHEDULES, TRIGGERS
from torpor.serving import answer
from torpor.settings import EventsSettings
from torpor.testing.kube import ApiServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from torpor.binding import WireEvent
    from torpor.providers.kubernetes.resources import Object

EVENT = {"ce-specversion": "1.0", "ce-source": "/test", "ce-type": "upload"}


class _Functions(Functions):
    """``slow`` waits until it is let go."""

    def __init__(self, tiles: int) -> None:
        super().__init__(tiles)
        self.seen: list[str] = []
        self.made: list[str] = []
        self.called = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def app(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        if headers[b"torpor-function"] == b"default/slow":
            self.called.set()
            await self.gate.wait()
        if b"x-call-id" in headers:
            self.made.append(headers[b"x-call-id"].decode())
            await answer(send, 200, b"text/plain", b"done")
            return
        await super().app(scope, receive, send)

    def slow(self, events: list[WireEvent]) -> list[WireEvent]:
        self.seen += [each.id for each in events]
        return []


class _World:
    def __init__(self, nats: NatsServer, functions: _Functions, settings: dict[str, Any] | None) -> None:
        self.nats = nats
        self.settings = settings or {"broker_url": nats.url, "nats_token": nats.token}
        self.functions = functions
        self.api = ApiServer()
        self.pods: dict[str, EventsPod] = {}
        self.endings: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def declare(self, name: str, function: str, **spec: Any) -> None:
        self.api.put(TRIGGERS, _object(TRIGGERS, name, subscriber={"function": function}, **spec))

    def start(self, name: str) -> EventsPod:
        settings = EventsSettings(
            host="127.0.0.1",
            http_port=0,
            health_port=0,
            identity=name,
            gateway=f"localhost:{self.functions.endpoint.port}" if self.functions.endpoint else "",
            leave_seconds=0.2,
            **self.settings,
        )
        pod = self.pods[name] = EventsPod(self.api.kube(), SystemClock(), settings)
        self.endings[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(pod.run(self.endings[name]))
        return pod

    async def ready(self, *pods: EventsPod) -> None:
        async def reached() -> bool:
            for task in self.tasks.values():
                if task.done():
                    task.result()
            return all(pod.ready for pod in pods)

        await until(reached)

    async def end(self, name: str) -> None:
        self.endings[name].set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.tasks.pop(name)

    async def close(self) -> None:
        self.functions.gate.set()
        for name in list(self.tasks):
            await self.end(name)

    async def log(self) -> JetStreamLog:
        return await JetStreamLog.connect(self.nats.url, token=self.nats.token)

    async def consumers(self, broker: str = "default/default") -> list[str]:
        log = await self.log()
        try:
            return await log.consumers(names.broker_stream(broker))
        finally:
            await log.close()


def _object(resource: Any, name: str, **spec: Any) -> Object:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": resource.api, "kind": resource.kind, "metadata": metadata, "spec": spec}


async def _post(
    pod: EventsPod, event_id: str, broker: str = "default/default", content: bytes = b"", **headers: str
) -> httpx.Response:
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
        url = f"http://127.0.0.1:{pod.ports['http']}/events/{broker}"
        return await client.post(url, headers={**EVENT, "ce-id": event_id, **headers}, content=content)


async def _ask(pod: EventsPod, path: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
        return await client.get(f"http://127.0.0.1:{pod.ports['agent']}{path}")


@asynccontextmanager
async def _world(
    folder: Path, tiles: int = 5, settings: dict[str, Any] | None = None
) -> AsyncIterator[_World]:
    nats = NatsServer(folder / "nats", sync="interval")
    await nats.start()
    functions, ready, end = _Functions(tiles), asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(functions.serve(ready, end))
    await ready.wait()
    world = _World(nats, functions, settings)
    try:
        yield world
    finally:
        await world.close()
        end.set()
        await serving
        await nats.close()


def _exact(kind: str) -> list[Any]:
    return [{"exact": {"type": kind}}]


def test_a_pod_follows_what_is_declared(tmp_path: Path) -> None:
    async def run() -> None:
        async with _world(tmp_path) as it:
            it.declare("to-slow", "slow", filters=_exact("upload"))
            it.api.put(TRIGGERS, _object(TRIGGERS, "faulty", subscriber={"function": 7}))
            pod = it.start("a")
            await it.ready(pod)
            assert (await _post(pod, "1")).status_code == 202
            assert (await _post(pod, "2", "default/orders")).status_code == 404
            it.declare("to-orders", "slow", broker="orders")
            it.api.put(FUNCTIONS, _object(FUNCTIONS, "slow", image="x", timeoutSeconds=5))

            async def taken() -> bool:
                return (await _post(pod, "2", "default/orders")).status_code == 202

            await until(taken)

            async def counted() -> bool:
                state = (await _ask(pod, "/state")).json()
                return bool(
                    {key: report["delivered"] for key, report in state["triggers"].items()}
                    == {"default/to-slow": 1, "default/to-orders": 1}
                )

            await until(counted)
            assert sorted(it.functions.seen) == ["1", "2"]
            assert "torpor_events_delivered_total" in (await _ask(pod, "/metrics")).text
            assert (await _ask(pod, "/healthz/ready")).status_code == 200
            assert (await _ask(pod, "/declared")).status_code == 404

    asyncio.run(run())


@pytest.mark.parametrize("place", ["nats", "folder"])
def test_large_data_is_a_blob_for_as_long_as_its_event_is_kept(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pod that leads removes what no event names; a filter sees the data wherever it is."""
    for name in ("FIRST_SECONDS", "EVERY_SECONDS"):
        monkeypatch.setattr(blob_sweep, name, 0.1)

    async def run() -> None:
        async with _world(tmp_path) as it:
            store = it.nats.url if place == "nats" else (tmp_path / "blobs").as_uri()
            it.settings |= {"blobs_store": store, "blobs_ttl_seconds": 1.0, "claim_check_bytes": 1024}
            it.declare("to-slow", "slow", filters=[{"exact": {"data.size": "large"}}])
            pods = it.start("a"), it.start("b")
            await it.ready(*pods)
            keeper = blob_keeper(store, SystemClock(), nats_token=it.nats.token)
            blobs = BlobStore("http://torpor-api.torpor.svc:8082/blobs", keeper)
            other = await blobs.put(b"nothing names this")
            data = orjson.dumps({"size": "large", "rest": "x" * 2000})
            posted = await _post(pods[0], "1", content=data, **{"content-type": "application/json"})
            assert posted.status_code == 202

            async def gone() -> bool:
                try:
                    await blobs.get(other)
                except BlobNotFoundError:
                    return True
                return False

            await until(gone)
            log = await it.log()
            [stored] = [one.event async for one in log.read(names.broker_stream("default/default"), ">")]
            await log.close()
            assert stored.data is None
            assert await blobs.get(stored.attributes["dataref"]) == data
            assert it.functions.seen == ["1"]
            await keeper.close()

    asyncio.run(run())


def test_without_a_place_for_blobs_what_is_too_large_is_refused_in_words(tmp_path: Path) -> None:
    async def run() -> None:
        async with _world(tmp_path) as it:
            pod = it.start("a")
            await it.ready(pod)
            refused = await _post(pod, "1", content=b"x" * 9_000_000)
            assert refused.status_code == 413
            assert "this platform has no place for blobs" in refused.json()["detail"]

    asyncio.run(run())


def test_several_pods_make_each_call_once_whichever_ends_and_forget_a_function_that_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "FORGET_SECONDS", 0.1)
    monkeypatch.setattr(call_workers, "LOOK_SECONDS", 0.1)

    async def call(pod: EventsPod) -> str:
        async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
            url = f"http://127.0.0.1:{pod.ports['http']}/async-function/slow"
            response = await client.post(url, content=b"x" * 1000)
        assert response.status_code == 202
        return str(response.headers["x-call-id"])

    async def run() -> None:
        async with _world(tmp_path) as it:
            it.api.put(FUNCTIONS, _object(FUNCTIONS, "slow", image="x"))
            first, second = it.start("a"), it.start("b")
            await it.ready(first, second)
            it.functions.gate.clear()
            ids = [await call((first, second)[number % 2]) for number in range(100)]
            await it.functions.called.wait()
            running = (await _ask(first, f"/calls/{ids[0]}")).json()
            assert running["state"] in ("running", "accepted")
            ending = asyncio.create_task(it.end("a"))
            it.functions.gate.set()
            await ending

            async def done() -> bool:
                states = [(await _ask(second, f"/calls/{each}")).json()["state"] for each in ids]
                return states == ["succeeded"] * len(ids)

            await until(done)
            assert sorted(it.functions.made) == sorted(ids)
            log = await it.log()
            assert await log.consumers(names.CALLS) == ["call.default.slow"]
            it.api.remove(FUNCTIONS, "default/slow")

            async def forgotten() -> bool:
                return not (await log.consumers(names.CALLS) or await log.consumers(names.CALLBACKS))

            await until(forgotten)
            await log.close()

    asyncio.run(run())


def test_schedules_are_fired_once_by_several_pods_and_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "FORGET_SECONDS", 0.1)

    async def run() -> None:
        async with _world(tmp_path) as it:
            it.api.put(SCHEDULES, _object(SCHEDULES, "often", cron="* * * * * *", broker="clock"))
            it.api.put(SCHEDULES, _object(SCHEDULES, "faulty", cron="61 * * * *"))
            await it.ready(it.start("a"), it.start("b"))
            log = await it.log()

            async def fired() -> bool:
                events = [one.event async for one in log.read(names.broker_stream("default/clock"), ">")]
                times = [one.attributes["time"] for one in events]
                assert times == sorted(set(times))
                return len(times) >= 3

            await until(fired)
            state = (await _ask(it.pods["a"], "/state")).json()
            assert list(state["schedules"]) == ["default/often"]
            assert state["schedules"]["default/often"]["next"]
            assert "torpor_schedule_fired_total" in (await _ask(it.pods["a"], "/metrics")).text
            it.api.remove(SCHEDULES, "default/often")

            async def forgotten() -> bool:
                return [one async for one in log.read(names.SCHEDULES, ">")] == []

            await until(forgotten)
            await log.close()

    asyncio.run(run())


def test_a_pod_waits_for_nats(tmp_path: Path) -> None:
    async def run() -> None:
        async with _world(tmp_path) as it:
            await it.nats.close()
            pod = it.start("a")

            async def alive() -> bool:
                return "agent" in pod.ports and (await _ask(pod, "/healthz/live")).status_code == 200

            await until(alive)
            assert (await _ask(pod, "/healthz/ready")).status_code == 503
            assert (await _ask(pod, "/state")).status_code == 503
            await it.nats.start()
            await it.ready(pod)
            await it.nats.close()

            async def away() -> bool:
                return (await _ask(pod, "/healthz/ready")).status_code == 503

            await until(away)
            await it.nats.start()
            await it.ready(pod)

    asyncio.run(run())


@pytest.mark.parametrize("broker", ["nats", "kafka"])
def test_the_lead_is_handed_over_in_order(
    broker: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings = None
    if broker == "kafka":
        kafka = Kafka(request.getfixturevalue("kafka")).broker
        options = tmp_path / "kafka.properties"
        options.write_text(
            "# of the client\n" + "".join(f"{key}={it}\n" for key, it in kafka.options.items())
        )
        settings = {"broker_url": kafka.url, "kafka_options": str(options)}

    async def run() -> None:
        async with _world(tmp_path, settings=settings) as it:
            it.declare("to-split", "split", filters=_exact("upload"))
            it.declare("to-join", "join", filters=_exact("tile"), join={})
            it.declare("one-by-one", "slow", filters=_exact("joined"), parallelism=1)
            first = it.start("a")
            await it.ready(first)
            await _leads(it, "a")
            second = it.start("b")
            await it.ready(second)
            for number in range(5):
                await _post(second, f"g{number}")
            await _joined(it, 5)
            await it.end("a")
            await _leads(it, "b")
            for number in range(5, 10):
                await _post(second, f"g{number}")
            await _joined(it, 10)
            assert it.functions.calls == {"split": 10, "join": 10, "slow": 10}

    asyncio.run(run())


async def _leads(it: _World, name: str) -> None:
    async def reached() -> bool:
        lease = it.api.read(LEASES, f"torpor/{part.LEASE}")
        return it.pods[name].leads and lease is not None and lease["spec"]["holderIdentity"] == name

    await until(reached)


async def _joined(it: _World, count: int) -> None:
    async def reached() -> bool:
        return len(it.functions.seen) >= count

    await until(reached)
    assert len(it.functions.seen) == len(set(it.functions.seen)) == count


def test_a_pod_that_ends_serves_on_and_finishes(tmp_path: Path) -> None:
    async def run() -> None:
        async with _world(tmp_path) as it:
            it.declare("to-slow", "slow", filters=_exact("upload"))
            pod = it.start("a")
            await it.ready(pod)
            it.functions.gate.clear()
            await _post(pod, "1")
            await it.functions.called.wait()
            ending = asyncio.create_task(it.end("a"))

            async def unready() -> bool:
                return (await _ask(pod, "/healthz/ready")).status_code == 503

            await until(unready)
            late = await _post(pod, "2")
            assert (late.status_code, late.headers["connection"]) == (202, "close")
            assert not ending.done()
            it.functions.gate.set()
            await ending
            assert "1" in it.functions.seen
            await it.ready(it.start("b"))
            await _joined(it, 2)  # the one that came late by whichever pod

    asyncio.run(run())


def test_a_trigger_is_forgotten_once_that_is_sure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "FORGET_SECONDS", 0.3)

    async def run() -> None:
        async with _world(tmp_path) as it:
            it.declare("goes", "join", join={})
            it.declare("stays", "slow")
            pod = it.start("a")
            await it.ready(pod)
            await _leads(it, "a")
            # What another pod made for a trigger that this one has not heard of, and a faulty one.
            it.api.put(TRIGGERS, _object(TRIGGERS, "faulty", subscriber={"function": 7}))
            log = await it.log()
            for name in ("faulty", "unknown"):
                stream = names.broker_stream("default/default")
                await log.consumer(ConsumerSpec(stream, names.trigger_consumer(f"default/{name}")))
            it.api.remove(TRIGGERS, "default/goes")

            async def gone() -> bool:
                left = await it.consumers()
                return left == ["direct", "trigger.default.faulty", "trigger.default.stays"] and not [
                    each for each in await log.streams() if each.startswith("groups.")
                ]

            await until(gone)
            await log.close()

    asyncio.run(run())


def test_an_empty_nats_is_filled_again(tmp_path: Path) -> None:
    """Its volume is gone: what waited is lost with it, what comes from then on is not."""

    async def run() -> None:
        async with _world(tmp_path) as it:
            it.declare("to-split", "split", filters=_exact("upload"))
            it.declare("to-join", "join", filters=_exact("tile"), join={})
            it.declare("to-slow", "slow", filters=_exact("joined"))
            pod = it.start("a")
            await it.ready(pod)
            await _leads(it, "a")
            await _post(pod, "1")
            await _joined(it, 1)
            log = await it.log()
            for stream in await log.streams():
                await log.remove_stream(stream)
            await log.close()
            pod._doubt()  # as after the connection was lost

            async def taken() -> bool:
                return (await _post(pod, "2")).status_code == 202

            await until(taken)
            await _joined(it, 2)

    asyncio.run(run())


def test_two_pods_keep_a_limit_by_refusing_or_by_moving_the_oldest(tmp_path: Path) -> None:
    limit = 40

    async def run() -> None:
        async with _world(tmp_path) as it:
            common = {"parallelism": 4, "filters": _exact("upload")}
            it.declare("refuses", "slow", broker="strict", backlog={"limit": limit}, **common)
            oldest = {"limit": limit, "onLimit": "deadLetterOldest"}
            it.declare("moves", "slow", broker="loose", backlog=oldest, **common)
            it.functions.gate.clear()
            pods = [it.start("a"), it.start("b")]
            await it.ready(*pods)
            await until_leads(it)
            answers: dict[int, int] = {}
            for number in range(4 * limit):
                pod = pods[number % 2]
                status = (await _post(pod, f"s{number}", "default/strict")).status_code
                answers[status] = answers.get(status, 0) + 1
                assert (await _post(pod, f"l{number}", "default/loose")).status_code == 202
            assert set(answers) == {202, 429}
            assert limit <= answers[202] <= 2 * limit

            async def moved() -> bool:
                state = (await _ask(pods[0], "/state")).json()
                return bool(state["triggers"]["default/moves"]["pending"] <= limit)

            await until(moved)
            log = await it.log()
            dead = [each.event async for each in log.read(names.dead_stream("default/loose"), ">")]
            assert await asyncio.gather(*(_count(log, broker) for broker in ("strict", "loose"))) == [
                answers[202],
                4 * limit,
            ]
            await log.close()
            assert len(dead) >= 3 * limit
            assert {each.attributes["knativeerrorcode"] for each in dead} == {"429"}
            newest = [f"l{number}" for number in range(4 * limit - limit // 2, 4 * limit)]
            assert not {each.id for each in dead} & set(newest)
            it.functions.gate.set()
            waiting = set(newest)

            async def delivered() -> bool:
                return waiting <= set(it.functions.seen)

            await until(delivered)

    asyncio.run(run())


async def until_leads(it: _World) -> None:
    async def reached() -> bool:
        return any(pod.leads for pod in it.pods.values())

    await until(reached)


async def _count(log: JetStreamLog, broker: str) -> int:
    return len([1 async for _ in log.read(names.broker_stream(f"default/{broker}"), ">")])
