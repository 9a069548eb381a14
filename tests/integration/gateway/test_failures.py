"""What happens when something breaks: Envoy, its configuration, a function's start, room to hold."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import orjson
import psutil
import pytest

from torpor.clock import SystemClock
from torpor.errors import GatewayError, StartError, TransportError
from torpor.gateway import names
from torpor.gateway.gateway import Gateway
from torpor.gateway.targets import HoldLimits
from torpor.problems import ProblemType

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torpor.spec.models import Function
    from torpor.transport import Response

KEY = "default/hello"


def kind(response: Response) -> tuple[int, str]:
    return response.status, orjson.loads(response.body)["type"]


def of(problem: ProblemType) -> tuple[int, str]:
    return problem.status, problem.uri


async def answered(world: Any, target: str) -> Response:
    """The first answer, once the gateway is there again."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(TransportError):
                response: Response = await world.get(target)
                return response
            await asyncio.sleep(0.01)


def test_a_killed_envoy_comes_back_as_it_was(run: Any, declare: Callable[..., Function]) -> None:
    news: list[str | None] = []

    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello"), declare("other")], events=[], api=[])
        instance = await world.instance()
        await world.gateway.publish(KEY, [instance.endpoint])
        for _ in range(3):
            assert (await world.get("/function/hello")).status == 200
        before, address = world.gateway.status(), world.gateway.address
        assert before.healthy
        assert (await world.gateway.observe())[KEY].requests_total == 3
        os.kill(before.pid, signal.SIGKILL)
        assert (await answered(world, "/function/hello")).body == b"instance"
        assert world.gateway.address == address
        async with asyncio.timeout(60):
            while not world.gateway.status().healthy:  # it serves a moment before it says so
                await asyncio.sleep(0.01)
        after = world.gateway.status()
        assert after.pid not in (None, before.pid)
        assert after.restarts == 1
        assert news == ["it was killed by SIGKILL and is started again", None]
        assert (await answered(world, "/function/unknown")).status == 404
        async with asyncio.timeout(30):
            while KEY not in (loads := await world.gateway.observe()) or loads[KEY].requests_total < 4:
                await asyncio.sleep(0.01)
        assert loads[KEY].requests_total == 4
        await world.gateway.publish(KEY, [])
        held = asyncio.create_task(world.get("/function/hello"))
        await world.until_held(1)
        await world.gateway.publish(KEY, [instance.endpoint])
        assert (await held).status == 200

    run(check, on_change=news.append)
    assert len(news) == 2  # that it ends with the gateway is none


def test_nobody_waits_for_an_envoy_that_is_dead(run: Any, declare: Callable[..., Function]) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello")], events=[], api=[])
        instance = await world.instance()
        os.kill(world.gateway.status().pid, signal.SIGKILL)
        await world.gateway.publish(KEY, [instance.endpoint])
        await world.gateway.configure([declare("hello"), declare("new")], events=[], api=[])
        await world.gateway.publish("default/new", [instance.endpoint])
        await world.gateway.observe()
        assert (await answered(world, "/function/new")).body == b"instance"
        assert (await world.get("/function/hello")).body == b"instance"

    run(check)


def test_a_configuration_that_envoy_refuses_changes_nothing(
    run: Any, declare: Callable[..., Function], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello")], events=[], api=[])
        instance = await world.instance()
        await world.gateway.publish(KEY, [instance.endpoint])
        with monkeypatch.context() as broken:
            broken.setattr(
                Gateway, "_routes", lambda *_: b"\x0a\x06public\x12\x02\x0a\x00"
            )  # a host without name
            with pytest.raises(GatewayError, match="refused"):
                await world.gateway.configure([declare("hello"), declare("new")], events=[], api=[])
        assert (await world.get("/function/hello")).body == b"instance"
        assert (await world.get("/function/new")).status == 404
        await world.gateway.configure([declare("hello"), declare("new")], events=[], api=[])
        await world.gateway.publish("default/new", [instance.endpoint])
        assert (await world.get("/function/new")).body == b"instance"

    run(check)


def test_endpoints_that_envoy_refuses_do_not_stop_a_drain(
    run: Any, declare: Callable[..., Function], caplog: pytest.LogCaptureFixture
) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello")], events=[], api=[])
        instance = await world.instance()
        await world.gateway.publish(KEY, [instance.endpoint])
        await world.get("/function/hello")
        await world.gateway.publish(KEY, [instance.endpoint._replace(host="not an address")])
        assert "out of date" in caplog.text
        await world.gateway.publish(KEY, [instance.endpoint])
        assert (await world.get("/function/hello")).body == b"instance"

    run(check)


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    async def check() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            gateway = Gateway(clock=SystemClock(), work_dir=tmp_path, wake=lambda _: None, port=port)
            with pytest.raises(StartError, match=rf"127\.0\.0\.1:{port}.*in use"):
                await gateway.start()
            assert gateway.status().pid is None

    asyncio.run(check())


def test_two_gateways_do_not_share_a_port(run: Any, tmp_path: Path) -> None:
    async def check(world: Any) -> None:
        port = world.gateway.address.port
        second = Gateway(clock=SystemClock(), work_dir=tmp_path / "2", wake=lambda _: None, port=port)
        with pytest.raises(StartError, match="in use"):
            await second.start()

    run(check)


def test_a_work_dir_whose_path_is_too_long_for_sockets(tmp_path: Path) -> None:
    async def check() -> None:
        gateway = Gateway(clock=SystemClock(), work_dir=tmp_path / ("x" * 120), wake=lambda _: None)
        await gateway.start()
        assert gateway.status().healthy
        await gateway.close()
        assert gateway.status().pid is None

    asyncio.run(check())


def test_envoy_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import asyncio, pathlib, sys
        from torpor.clock import SystemClock
        from torpor.gateway.gateway import Gateway

        async def main():
            gateway = Gateway(clock=SystemClock(), work_dir=pathlib.Path(sys.argv[1]), wake=lambda _: None)
            await gateway.start()
            print(gateway.status().pid, flush=True)
            await asyncio.Event().wait()

        asyncio.run(main())
    """)

    async def check() -> None:
        parent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, str(tmp_path), stdout=asyncio.subprocess.PIPE
        )
        assert parent.stdout is not None
        envoy = psutil.Process(int(await asyncio.wait_for(parent.stdout.readline(), 60)))
        assert envoy.is_running()
        parent.kill()
        await parent.wait()
        async with asyncio.timeout(30):
            while envoy.is_running() and envoy.status() != psutil.STATUS_ZOMBIE:
                await asyncio.sleep(0.01)

    asyncio.run(check())


def test_a_function_that_cannot_start(run: Any, declare: Callable[..., Function]) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello")], events=[], api=[])
        held = [asyncio.create_task(world.get("/function/hello")) for _ in range(3)]
        await world.until_held(3)
        world.gateway.fail(KEY, "main.py:3: NameError: name 'x' is not defined")
        for task in held:
            response = await task
            assert kind(response) == of(ProblemType.START_FAILED)
            document = orjson.loads(response.body)
            assert document["detail"] == "main.py:3: NameError: name 'x' is not defined"
            assert document["requestId"].encode() == response.header(b"x-request-id")
            assert response.header(b"retry-after")
        world.woken.clear()
        assert kind(await world.get("/function/hello")) == of(ProblemType.START_FAILED)
        assert world.woken == [KEY]
        world.gateway.fail(KEY, None)
        mended = asyncio.create_task(world.get("/function/hello"))
        await world.until_held(1)
        instance = await world.instance()
        await world.gateway.publish(KEY, [instance.endpoint])
        assert (await mended).status == 200

    run(check)


def test_more_than_can_be_held(run: Any, declare: Callable[..., Function]) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello")], events=[], api=[])
        held = [asyncio.create_task(world.get("/function/hello")) for _ in range(3)]
        await world.until_held(3)
        refused = await world.get("/function/hello")
        assert kind(refused) == of(ProblemType.OVERLOADED)
        assert refused.header(b"retry-after")
        instance = await world.instance()
        await world.gateway.publish(KEY, [instance.endpoint])
        assert [(await task).status for task in held] == [200] * 3

    run(check, limits=HoldLimits(max_requests=3))


def test_more_bytes_than_can_be_held(run: Any, declare: Callable[..., Function]) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello")], events=[], api=[])
        small = asyncio.create_task(world.get("/function/hello"))
        await world.until_held(1)
        refused = await world.send(b"POST", "/function/hello", body=b"x" * 50_000)
        assert kind(refused) == of(ProblemType.OVERLOADED)
        instance = await world.instance()
        await world.gateway.publish(KEY, [instance.endpoint])
        assert (await small).status == 200

    run(check, limits=HoldLimits(max_bytes=10_000))


def test_a_request_is_not_held_for_ever(run: Any, declare: Callable[..., Function]) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello")], events=[], api=[])
        late = await world.get("/function/hello")
        assert kind(late) == of(ProblemType.HELD_TOO_LONG)
        assert late.header(b"retry-after")
        assert world.gateway.held == 0

    run(check, limits=HoldLimits(max_seconds=0.2))


def test_requests_for_an_instance_that_died_go_to_the_next_one(
    run: Any, declare: Callable[..., Function]
) -> None:
    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello")], events=[], api=[])
        gone, there = await world.instance("gone"), await world.instance("there")
        await world.gateway.publish(KEY, [gone.endpoint, there.endpoint])
        gone.close()
        calls = [asyncio.create_task(world.send(b"POST", "/function/hello")) for _ in range(20)]
        await there.until(lambda: bool(there.seen))
        await world.gateway.publish(KEY, [there.endpoint])
        assert {(await call).body for call in calls} == {b"there"}

    run(check)


_SERVER = """
import asyncio

class Connection(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.read = transport, b""

    def data_received(self, data):
        self.read += data
        while b"\\r\\n\\r\\n" in self.read:
            self.read = self.read.partition(b"\\r\\n\\r\\n")[2]
            self.transport.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 4\\r\\n\\r\\ngone")

async def main():
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_what_begins_after_an_instance_was_killed_is_served_by_the_other(
    run: Any, declare: Callable[..., Function]
) -> None:
    """Even while the dead one is published. What was sent to it before is not sent again: it may have run."""

    async def check(world: Any) -> None:
        await world.gateway.configure([declare("hello")], events=[], api=[])
        there = await world.instance("there")
        gone = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _SERVER, stdout=asyncio.subprocess.PIPE
        )
        assert gone.stdout is not None
        port = int(await asyncio.wait_for(gone.stdout.readline(), 30))
        await world.gateway.publish(KEY, [there.endpoint._replace(port=port), there.endpoint])
        answers: list[tuple[bool, int, bytes]] = []
        news, dead = asyncio.Event(), asyncio.Event()

        async def keep_asking() -> None:
            late = 0
            while late < 20:
                after = dead.is_set()
                answer = await world.send(b"POST", "/function/hello")
                answers.append((after, answer.status, answer.body))
                late += after
                news.set()

        callers = [asyncio.create_task(keep_asking()) for _ in range(8)]
        while not any(body == b"gone" for _, _, body in answers):
            news.clear()
            await news.wait()
        gone.kill()
        await gone.wait()  # the kernel has closed its sockets by then
        dead.set()
        await asyncio.gather(*callers)
        assert {(status, body) for after, status, body in answers if after} == {(200, b"there")}
        assert {status for _, status, _ in answers} <= {200, 502}

    run(check)


def test_names_of_clusters_cannot_be_those_of_parts() -> None:
    assert "/" not in names.PUBLIC_ROUTES
    assert all("/" not in part for part in ("events", "api"))
