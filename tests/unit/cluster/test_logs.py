"""The logs of pods as one stream: in order, followed over new pods, restarts and broken connections."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from torpor.cluster import logs
from torpor.cluster.logs import PodLogs, parse
from torpor.errors import ClusterRefusedError
from torpor.providers.kubernetes.resources import PODS
from torpor.testing.clock import MovableClock
from torpor.testing.kube import ApiServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from torpor.providers.kubernetes.kube import Call
    from torpor.spec.status import LogLine


@pytest.mark.parametrize(
    ("line", "at", "text"),
    [
        ("1970-01-01T00:00:01.000000002Z a b", 1_000_000_002, "a b"),
        ("1970-01-01T01:00:01.5+01:00 x", 1_500_000_000, "x"),
        ("1970-01-01T00:00:01Z ", 1_000_000_000, ""),
        ("1970-01-01T00:00:01.1Z", 1_100_000_000, ""),
        ("1970-01-01T00:00:00Z tab\tand \u2028", 0, "tab\tand \u2028"),
    ],
)
def test_a_line_begins_with_its_time(line: str, at: int, text: str) -> None:
    assert parse(line) == (at, text)


@pytest.mark.parametrize("line", ["", "failed to open log file", "1970-13-01T00:00:01Z x", "2026 x"])
def test_what_has_no_time_is_no_line(line: str) -> None:
    assert parse(line) is None


def line(second: int, text: str) -> str:
    return f"2026-01-01T00:00:{second:02}.000000000Z {text}"


class _Bench:
    def __init__(self) -> None:
        self.server = ApiServer()
        self.clock = MovableClock()
        self.logs = PodLogs(self.server.kube(), self.clock, lambda _: self.server.all(PODS))
        self.got: list[str] = []

    def pod(self, name: str, state: str = "running", container: str = "c1") -> None:
        status: dict[str, Any] = {"name": "function", "containerID": f"{name}-{container}"}
        status["state"] = {state: {}}
        self.server.put(
            PODS,
            {
                "metadata": {"name": name, "namespace": "n", "uid": name},
                "status": {"containerStatuses": [status]},
            },
        )
        self.logs.changed("n/f")

    def write(self, name: str, *lines: str) -> None:
        self.server.write_logs(f"n/{name}", list(lines))

    async def tail(self, lines: int) -> list[tuple[str, str]]:
        return [(one.instance, one.text) async for one in self.logs.read("n/f", tail=lines, follow=False)]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0)

    async def take(self, reading: AsyncGenerator[LogLine, None]) -> None:
        async for one in reading:
            self.got.append(one.text)

    def asked(self, name: str) -> list[Call]:
        return [call for call in self.server.calls if call.path.endswith(f"/{name}/log")]


def run(case: Callable[[_Bench], Awaitable[None]]) -> None:
    async def inner() -> None:
        await case(_Bench())

    asyncio.run(inner())


def test_the_last_lines_of_all_pods_come_by_their_times() -> None:
    async def case(bench: _Bench) -> None:
        for name in ("a", "b"):
            bench.pod(name)
        bench.pod("c", "waiting")
        bench.write("a", "no time", line(1, "one"), line(4, "four"))
        bench.write("b", line(2, "two"), line(3, "three"))
        assert await bench.tail(10) == [("a", "one"), ("b", "two"), ("b", "three"), ("a", "four")]
        assert await bench.tail(2) == [("b", "three"), ("a", "four")]
        assert await bench.tail(0) == []
        assert not bench.asked("c")
        [first] = [one async for one in bench.logs.read("n/f", tail=1, follow=False)]
        assert first.time == datetime(2026, 1, 1, 0, 0, 4, tzinfo=UTC)

    run(case)


def test_following_takes_up_new_lines_new_pods_and_new_containers() -> None:
    async def case(bench: _Bench) -> None:
        bench.pod("a")
        bench.write("a", line(1, "one"))
        reading = bench.logs.read("n/f", tail=0, follow=True)
        task = asyncio.create_task(bench.take(reading))
        await bench.until(lambda: len(bench.asked("a")) == 2)
        bench.write("a", line(1, "one"), line(2, "two"))
        await bench.until(lambda: bench.got == ["two"])
        bench.pod("b", "waiting")
        bench.write("b", line(3, "three"))
        bench.pod("b")
        await bench.until(lambda: bench.got == ["two", "three"])
        bench.pod("a", container="c2")
        bench.write("a", line(2, "two"), line(4, "four"))
        await bench.until(lambda: "four" in bench.got)
        assert bench.got == ["two", "three", "four"]
        assert bench.logs.following("n/f") == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await reading.aclose()
        assert bench.logs.following("n/f") == 0

    run(case)


def test_a_connection_that_ends_is_made_again_and_nothing_comes_twice() -> None:
    async def case(bench: _Bench) -> None:
        bench.pod("a")
        bench.write("a", line(1, "one"))
        reading = bench.logs.read("n/f", tail=5, follow=True)
        task = asyncio.create_task(bench.take(reading))
        await bench.until(lambda: len(bench.asked("a")) == 2)
        bench.server.disconnect()
        await bench.until(lambda: bench.clock.next_due is not None)
        bench.write("a", line(1, "one"), line(1, "one, and at the same time"), line(2, "two"))
        await bench.clock.advance(1)
        await bench.until(lambda: "two" in bench.got)
        assert bench.got == ["one", "two"]
        assert bench.asked("a")[-1].query["sinceTime"] == "2026-01-01T00:00:01Z"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(case)


def test_a_container_that_has_ended_is_read_once() -> None:
    async def case(bench: _Bench) -> None:
        bench.pod("a")
        bench.write("a", line(1, "one"))
        task = asyncio.create_task(bench.take(bench.logs.read("n/f", tail=0, follow=True)))
        await bench.until(lambda: len(bench.asked("a")) == 2)
        bench.pod("a", "terminated")
        bench.server.end_logs("n/a")
        await bench.until(lambda: bench.clock.next_due is not None)
        await bench.clock.advance(60)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(bench.asked("a")) == 2
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(case)


def test_a_log_that_can_t_be_read_is_given_up_and_said_so() -> None:
    async def case(bench: _Bench) -> None:
        bench.pod("a")
        bench.server.fail = lambda call: 500 if call.query.get("follow") else None
        task = asyncio.create_task(bench.take(bench.logs.read("n/f", tail=0, follow=True)))
        async with asyncio.timeout(20):
            while not bench.got:
                await bench.clock.advance(10)
                await asyncio.sleep(0)
        assert bench.got == ["a can't be read any more: the API server answered 500"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(case)


@pytest.mark.parametrize("follow", [False, True])
def test_who_may_not_read_is_told_so(follow: bool) -> None:
    async def case(bench: _Bench) -> None:
        bench.pod("a")
        bench.server.fail = lambda call: 403 if bool(call.query.get("follow")) is follow else None
        with pytest.raises(ClusterRefusedError):
            async for _ in bench.logs.read("n/f", tail=1, follow=follow):
                pass

    run(case)


def test_pods_that_go_or_have_not_begun_are_left_out() -> None:
    async def case(bench: _Bench) -> None:
        for name in ("a", "b", "c"):
            bench.pod(name)
            bench.write(name, line(1, name))
        statuses = {"a": 404, "b": 400}
        bench.server.fail = lambda call: statuses.get(call.path.split("/")[-2])
        assert await bench.tail(5) == [("c", "c")]

    run(case)


def test_more_pods_than_are_followed_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    async def case(bench: _Bench) -> None:
        for name in ("a", "b", "c"):
            bench.pod(name)
        task = asyncio.create_task(bench.take(bench.logs.read("n/f", tail=0, follow=True)))
        await bench.until(lambda: bool(bench.got))
        assert bench.got == ["more than 2 instances write; those beyond are not shown until others end"]
        assert len([call for call in bench.server.calls if call.query.get("follow")]) == 2
        bench.pod("a", "terminated")
        bench.server.end_logs("n/a")
        await bench.until(lambda: bench.clock.next_due is not None)
        await bench.clock.advance(10)
        await bench.until(lambda: len([one for one in bench.server.calls if one.query.get("follow")]) == 3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    monkeypatch.setattr(logs, "MAX_FOLLOWED", 2)
    run(case)


def test_more_than_an_answer_may_have_is_asked_for_again_with_fewer_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def case(bench: _Bench) -> None:
        bench.pod("a")
        bench.write("a", *(line(second, "x" * 50) for second in range(16)))
        assert len(await bench.tail(16)) == 4

    monkeypatch.setattr(logs, "_MAX_POD_BYTES", 500)
    run(case)
