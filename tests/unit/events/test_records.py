"""What is written down of events: lines, batches of them, and what happens while the log is in trouble."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from tests.unit.events.world import BROKER, answer, event, part, trigger, world
from torpor.errors import EventLogError
from torpor.events.log import StreamSpec
from torpor.events.memory import MemoryLog
from torpor.events.recorder import PAUSE_SECONDS, Recorder, stream_spec
from torpor.events.records import Attempt, Line, key_of_one, matching, messages, needle, taken_in, tried
from torpor.events.stats import Stats
from torpor.spec.models import Delivery, Join
from torpor.testing.clock import MovableClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torpor.events.log import Guard, Record

STREAM = "records.default.default"


def lines(*numbers: int, size: int = 10) -> list[Line]:
    return [Line(b"%*d" % (size, number), str(number)) for number in numbers]


async def written(log: Any) -> list[tuple[str, list[Any]]]:
    """Keys and lines of all records."""
    return [
        (stored.key, [orjson.loads(line) for line in stored.event.data.split(b"\n")])
        async for stored in log.read(STREAM, ">")
    ]


async def happened(log: Any) -> list[Any]:
    return [line for _, some in await written(log) for line in some]


# --- lines --------------------------------------------------------------------------------------------------


def test_one_thing_alone_is_found_by_its_id_and_several_go_together() -> None:
    assert list(messages(lines(1))) == [(key_of_one("1"), b"         1")]
    assert list(messages(lines(1, 2))) == [("many", b"         1\n         2")]
    assert list(messages([Line(b"x")])) == [("many", b"x")]
    assert list(messages([])) == []
    sizes = [len(content) for _, content in messages(lines(*range(10), size=100_000))]
    assert sizes == [200_001] * 5


def test_lines_of_many_events_are_bounded() -> None:
    events = [event(str(number)) for number in range(1001)]
    made = taken_in(events, [True] * 1001, at=1.0, by="p", how="sent")
    assert [len(orjson.loads(each.text)["ev"]) for each in made] == [500, 500, 1]
    assert [each.found_by for each in made] == [None, None, "1000"]


@pytest.mark.parametrize("event_id", ["1", 'a"b\\c', "ä\u2028", "x" * 1000])
def test_lines_are_found_by_their_ids(event_id: str) -> None:
    texts = [
        tried([event(each)], None, Attempt("n/t", 1, 0.5, "delivered"), at=1.0, by="p").text
        for each in ("other", event_id, f"{event_id}/0")
    ]
    [found] = matching(b"\n".join(texts), [needle(event_id)])
    assert found["ev"] == [[event_id, "/s"]]
    assert list(matching(texts[0], [needle(event_id)])) == []


# --- writing ------------------------------------------------------------------------------------------------


class _SlowLog(MemoryLog):
    """One whose appends wait for a gate, and may fail."""

    def __init__(self, clock: MovableClock) -> None:
        super().__init__(clock)
        self.gate = asyncio.Event()
        self.failure: EventLogError | None = None

    async def append(
        self, stream: str, records: Sequence[Record], *, guard: Guard | None = None
    ) -> list[bool]:
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return await super().append(stream, records, guard=guard)


async def recorder() -> tuple[_SlowLog, Recorder, Stats, MovableClock]:
    clock, stats = MovableClock(), Stats()
    log = _SlowLog(clock)
    await log.ensure_stream(stream_spec(BROKER))
    return log, Recorder(log, clock, stats, "p"), stats, clock


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_what_comes_during_a_write_goes_together_with_the_next() -> None:
    async def run() -> None:
        log, records, _, _ = await recorder()
        done: list[int] = []

        async def write(number: int) -> None:
            records.add(BROKER, lines(number))
            await records.flush(BROKER)
            done.append(number)

        tasks = [asyncio.create_task(write(number)) for number in range(1, 2)]
        await settle()
        tasks += [asyncio.create_task(write(number)) for number in range(2, 6)]
        await settle()
        assert done == []
        log.gate.set()
        await asyncio.gather(*tasks)
        assert sorted(done) == [1, 2, 3, 4, 5]
        assert [(key == "many", some) for key, some in await written(log)] == [
            (False, [1]),
            (True, [2, 3, 4, 5]),
        ]
        await records.flush(BROKER)  # there is nothing to wait for

    asyncio.run(run())


def test_a_flush_waits_for_what_is_being_written() -> None:
    async def run() -> None:
        log, records, _, _ = await recorder()
        records.add(BROKER, lines(1))
        first = asyncio.create_task(records.flush(BROKER))
        await settle()
        second = asyncio.create_task(records.flush(BROKER))
        first.cancel()  # who waits no more does not take it from others
        await settle()
        assert not second.done()
        log.gate.set()
        await second
        assert await happened(log) == [1]

    asyncio.run(run())


def test_a_record_that_can_not_be_written_holds_nothing_up() -> None:
    async def run() -> None:
        log, records, stats, _ = await recorder()
        log.gate.set()
        log.failure = EventLogError("the log is out")
        records.add(BROKER, lines(1, 2))
        await records.flush(BROKER)
        assert stats.unrecorded == 2
        log.failure = None
        records.add(BROKER, lines(3))
        await records.flush(BROKER)
        assert await happened(log) == [3]

    asyncio.run(run())


def test_what_is_done_afterwards_waits_for_the_write_and_for_nothing_else() -> None:
    async def run() -> None:
        log, records, _, clock = await recorder()
        done: list[int] = []

        async def act(number: int) -> None:
            records.add(BROKER, lines(number))

            async def action() -> None:
                done.append(number)

            await records.afterwards(BROKER, action)

        records.began()  # a delivery is under way, so that more may come
        await act(1)
        await act(2)
        log.gate.set()
        await settle()
        assert done == []
        await clock.advance(PAUSE_SECONDS, settle)
        assert done == [1, 2]
        assert [some for _, some in await written(log)] == [[1, 2]]
        await act(3)
        await settle()
        assert done == [1, 2]
        records.ended()  # and now nothing is: there is nothing to wait for
        await settle()
        assert done == [1, 2, 3]
        records.began()
        for number in range(4, 516):
            await act(number)
        await settle()
        assert done == list(range(1, 516))  # enough came together

    asyncio.run(run())


def test_a_fault_in_what_is_done_afterwards_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        log, records, _, _ = await recorder()
        log.gate.set()

        async def refused() -> None:
            raise EventLogError("the connection is gone")

        async def broken() -> None:
            raise RuntimeError("a fault")

        for action in (refused, broken):
            records.add(BROKER, lines(1))
            await records.afterwards(BROKER, action)
            await settle()
        records.add(BROKER, lines(2))
        await records.flush(BROKER)
        assert [some for _, some in await written(log)] == [[1], [1], [2]]

    asyncio.run(run())
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "writing down what happened ended unexpectedly"
    ]


def test_closing_lets_nobody_wait() -> None:
    async def run() -> None:
        _, records, _, _ = await recorder()
        records.add(BROKER, lines(1))
        first = asyncio.create_task(records.flush(BROKER))
        await settle()
        records.add(BROKER, lines(2))
        second = asyncio.create_task(records.flush(BROKER))
        await settle()
        await records.close()
        await asyncio.gather(first, second)

    asyncio.run(run())


def test_a_full_stream_forgets_its_older_half() -> None:
    async def run() -> None:
        log, records, stats, clock = await recorder()
        log.gate.set()
        await log.ensure_stream(StreamSpec(STREAM, max_bytes=3000))
        for number in range(40):
            records.add(BROKER, lines(number, size=100))
            await records.flush(BROKER)
            await clock.advance(1.0, settle)
        kept = await happened(log)
        assert kept[-1] == 39
        assert kept == list(range(kept[0], 40))
        assert 0 < kept[0] < 35
        assert stats.unrecorded == 0

    asyncio.run(run())


# --- what is written ----------------------------------------------------------------------------------------


def test_each_attempt_is_written_before_it_is_acknowledged() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "a"))
            replies = [event("1.x/0", "b"), event("1.x/1", "b")]
            it.functions.behave = lambda _, attempt: answer(503) if attempt == 1 else answer(events=replies)
            await it.publish(event("1", "a"))
            [failed] = await happened(it.log)
            assert (failed["k"], failed["n"], failed["end"], failed["status"]) == ("try", 1, "retried", 503)
            assert (failed["trigger"], failed["delay"], failed["ev"]) == ("default/t", 1.0, [["1", "/s"]])
            await it.advance(5.0)
            _, taken, done = await happened(it.log)
            assert (taken["k"], taken["how"], taken["of"]) == ("in", "reply", ["1", "/s"])
            assert taken["ev"] == [["1.x/0", "/s"], ["1.x/1", "/s"]]
            assert (done["n"], done["end"], done["status"], done["replies"]) == (2, "delivered", 200, 2)
            assert await it.pending() == 0

    asyncio.run(run())


def test_an_attempt_after_a_crash_is_written_once_more() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger())
            it.functions.gate = asyncio.Event()
            await it.publish(event("1"))
            await it.crash()
            it.functions.gate.set()
            await it.advance(30.0)
            assert [(each["n"], each["end"]) for each in await happened(it.log)] == [(2, "delivered")]

    asyncio.run(run())


def test_dead_letters_and_joins_are_written_down() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(
                trigger("t", "a", delivery=Delivery(retry=0)),
                trigger("j", "part", join=Join(timeout_seconds=60.0), delivery=Delivery(retry=0)),
            )
            it.functions.behave = lambda *_: answer(500)
            await it.publish(event("1", "a"))
            await it.publish(part("g", 0, 2))
            await it.publish(part("g", 1, 2))
            kinds = [(each["k"], each.get("end"), each.get("group")) for each in await happened(it.log)]
            assert kinds == [
                ("try", "given up", None),
                ("dead", None, None),
                ("part", "kept", "g"),
                ("part", "kept", "g"),
                ("group", "whole", "g"),
                ("try", "given up", "g"),
                ("dead", None, "g"),
            ]

    asyncio.run(run())
