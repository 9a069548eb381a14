"""Places, time-outs, and calls that do not end."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from torpor import function
from torpor.runtime import calls
from torpor.runtime.places import Places
from torpor.runtime.workers import Interrupted

BRIEF_SECONDS = 0.05


def test_no_more_calls_run_than_there_are_places_and_the_rest_comes_in_order(serve: Any) -> None:
    running = most = 0
    order: list[bytes] = []
    gate = asyncio.Event()

    @function
    async def handler(data: bytes) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(data)
        await gate.wait()
        running -= 1

    async def run() -> None:
        served = serve(handler, container_concurrency=2)
        sent = [asyncio.create_task(served.event(b"%d" % index)) for index in range(6)]
        while served.runtime.places.waiting < 4:
            await asyncio.sleep(0)
        gate.set()
        assert [answer.status for answer in await asyncio.gather(*sent)] == [204] * 6
        assert served.runtime.places.taken == 0

    asyncio.run(run())
    assert most == 2
    assert order == [b"%d" % index for index in range(6)]


def test_who_leaves_while_waiting_is_not_served(serve: Any) -> None:
    served_calls: list[bytes] = []
    gate = asyncio.Event()

    @function
    async def handler(data: bytes) -> None:
        served_calls.append(data)
        await gate.wait()

    async def run() -> None:
        served = serve(handler, container_concurrency=1)
        first = asyncio.create_task(served.event(b"first"))
        while not served_calls:
            await asyncio.sleep(0)
        leaves = asyncio.Event()
        headers = {
            f"ce-{k}": v for k, v in (("id", "2"), ("source", "/s"), ("type", "t"), ("specversion", "1.0"))
        }
        second = asyncio.create_task(served.request(headers=headers, body=b"second", leaves=leaves))
        while served.runtime.places.waiting < 1:
            await asyncio.sleep(0)
        leaves.set()
        assert (await second).status == 0, "nobody is there to be answered"
        assert served.runtime.places.waiting == 0
        gate.set()
        assert (await first).status == 204
        assert served.runtime.places.taken == 0
        assert served.runtime.metrics.outcomes["caller-gone"] == 1

    asyncio.run(run())
    assert served_calls == [b"first"]


def test_a_place_given_to_somebody_who_leaves_goes_to_the_next() -> None:
    async def run() -> None:
        places = Places(1)
        assert places.try_take()
        waiting = [asyncio.create_task(places.take()) for _ in range(3)]
        await asyncio.sleep(0)
        places.free()
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        await waiting[1]
        assert places.taken == 1
        waiting[2].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[2]
        places.free()
        assert (places.taken, places.waiting) == (0, 0)

    asyncio.run(run())


def test_an_async_handler_is_cancelled_when_its_time_is_up(serve: Any) -> None:
    ended: list[str] = []

    @function
    async def handler(data: bytes) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def run() -> None:
        served = serve(handler, timeout_seconds=BRIEF_SECONDS, container_concurrency=1)
        answers = await asyncio.gather(served.event(b"x"), served.event(b"y"))
        for answer in answers:
            assert answer.status == 504
            assert answer.json["type"].endswith("/timed-out")
        assert served.runtime.places.taken == 0
        assert len(served.runtime.calls) == 0
        assert served.runtime.doomed is None
        assert served.runtime.metrics.outcomes["timed-out"] == 2

    asyncio.run(run())
    assert ended, "the one that ran was cancelled; the other may have waited all the while"


def test_a_sync_handler_that_loops_is_interrupted_and_only_then_frees_its_place(serve: Any) -> None:
    ended = threading.Event()

    @function
    def handler(data: bytes) -> None:
        try:
            while True:
                pass
        except Interrupted:
            ended.set()
            raise

    async def run() -> None:
        served = serve(handler, timeout_seconds=BRIEF_SECONDS, container_concurrency=1)
        answer = await served.event(b"x")
        assert answer.status == 504
        await until(lambda: served.runtime.places.taken == 0)
        assert ended.is_set()
        assert served.runtime.doomed is None
        assert len(served.runtime.calls) == 0

    asyncio.run(run())


def test_a_thread_serves_no_second_call_after_it_was_interrupted(serve: Any) -> None:
    @function
    def handler(data: bytes) -> str:
        if data == b"loop":
            while True:
                pass
        return threading.current_thread().name

    async def run() -> None:
        served = serve(handler, timeout_seconds=0.5, container_concurrency=1)
        assert (await served.event(b"loop")).status == 504
        await until(lambda: served.runtime.places.taken == 0)
        for _ in range(20):
            assert (await served.event(b"x")).status == 200

    asyncio.run(run())


def test_an_instance_with_a_call_that_is_blocked_outside_python_is_given_up(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "GRACE_SECONDS", 0.1)
    lock = threading.Lock()
    lock.acquire()

    @function
    def handler(data: bytes) -> str:
        if data == b"block":
            with lock:
                return "unblocked"
        return "served"

    async def run() -> None:
        served = serve(handler, timeout_seconds=BRIEF_SECONDS, container_concurrency=1)
        told: list[str] = []
        served.runtime.on_doom = lambda: told.append("doomed")
        served.runtime.ready = True
        assert (await served.request("GET", "/healthz/ready")).status == 200
        assert (await served.event(b"block")).status == 504
        assert served.runtime.places.taken == 1, "its work has not ended"
        await until(lambda: served.runtime.doomed is not None)
        assert told == ["doomed"]
        for path in ("/healthz/ready", "/healthz/live"):
            assert (await served.request("GET", path)).status == 503
        assert served.runtime.places.taken == 0, "others may go on while the instance ends"
        lock.release()

    asyncio.run(run())


def test_an_async_handler_that_will_not_be_cancelled_is_answered_for_and_given_up(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "GRACE_SECONDS", 0.1)
    stop = asyncio.Event()

    @function
    async def handler(data: bytes) -> None:
        while not stop.is_set():
            try:
                await stop.wait()
            except asyncio.CancelledError:
                continue

    async def run() -> None:
        served = serve(handler, timeout_seconds=BRIEF_SECONDS)
        request = asyncio.create_task(served.event(b"x"))
        await until(lambda: served.runtime.doomed is not None)
        stop.set()
        answer = await request
        assert answer.status == 504
        assert served.runtime.metrics.outcomes["timed-out"] == 1

    asyncio.run(run())


def test_a_body_that_does_not_come_is_not_waited_for(serve: Any) -> None:
    @function
    async def handler(data: bytes) -> None:
        return None

    async def run() -> None:
        served = serve(handler, timeout_seconds=BRIEF_SECONDS)
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "headers": [(b"ce-id", b"1")],
            "scheme": "http",
            "client": None,
        }
        sent: list[Any] = []

        async def receive() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        async def serve_one() -> None:
            await served.app(scope, receive, send)

        await asyncio.create_task(serve_one())
        assert sent[0]["status"] == 504

    asyncio.run(run())


def test_sync_handlers_wait_for_a_thread_in_order(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torpor.runtime.runtime.MAX_THREADS", 2)
    order: list[bytes] = []
    gate = threading.Event()

    @function
    def handler(data: bytes) -> None:
        gate.wait(20)
        order.append(data)

    async def run() -> None:
        served = serve(handler)
        sent = [asyncio.create_task(served.event(b"%d" % index)) for index in range(6)]
        await until(lambda: served.runtime.places.taken == 6)
        gate.set()
        assert {answer.status for answer in await asyncio.gather(*sent)} == {204}

    asyncio.run(run())
    assert sorted(order) == [b"%d" % index for index in range(6)]


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)
