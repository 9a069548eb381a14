"""What comes into a broker leaves room for what functions reply, and what can't be written waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.events.test_archive import RUN, archive
from tests.unit.events.test_letters import letters_of
from tests.unit.events.world import BROKER, World, answer, event, replying, trigger, world
from torpor.binding import decode
from torpor.errors import BlobError, EventLogError, RecordTooLargeError, StreamFullError
from torpor.events import names
from torpor.events.dispatcher import Dispatcher, Retention
from torpor.events.intake import append_events
from torpor.events.log import StreamSpec
from torpor.events.patience import Patience
from torpor.events.reckoning import FRESH_SECONDS
from torpor.spec.letters import LetterSelection
from torpor.spec.models import Backlog, Batch, Delivery
from torpor.spec.replays import Replay
from torpor.testing.clock import MovableClock
from torpor.transport.message import decode_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torpor.events.log import Record
    from torpor.transport import Response

MOST_BYTES = 1_000_000
ROOM = MOST_BYTES * 15 // 16
STREAM = names.broker_stream(BROKER)


async def fill(it: World, kind: str = "a") -> int:
    """Have producers send events until there is no room for more; how many were taken in."""
    for number in range(1000):
        try:
            await it.dispatcher.intake.publish(BROKER, [event(f"{kind}{number}", kind, b"x" * 4000)])
        except StreamFullError:
            return number
        await it.advance(FRESH_SECONDS)
    raise AssertionError("everything was taken in")


# --- room ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [{}, {"ordering": "key"}, {"batch": Batch(size=4, wait_seconds=1.0)}],
    ids=["singly", "key", "batch"],
)
def test_a_broker_full_of_events_with_replies_empties_by_itself(more: dict[str, Any]) -> None:
    async def run() -> None:
        async with world(Retention(max_bytes=MOST_BYTES)) as it:
            await it.declare(trigger("t", "a", parallelism=4, **more))
            it.functions.gate = asyncio.Event()
            sent = await fill(it)
            assert 100 < sent < 400
            assert ROOM - 10_000 < await it.log.size_bytes(STREAM) <= ROOM
            it.functions.behave = lambda events, _: answer(
                events=[event(f"{each.id}.0", "reply", b"y" * 400) for each in events]
            )
            it.functions.gate.set()
            await it.advance(300.0)
            assert await it.pending() == 0
            assert it.dispatcher.stats.published[BROKER] == 2 * sent
            assert Counter(each for call in it.functions.calls for each in call[2]) == {
                f"a{number}": 1 for number in range(sent)
            }

    asyncio.run(run())


def test_room_is_made_of_what_was_delivered_before_anybody_is_refused() -> None:
    async def run() -> None:
        async with world(Retention(max_bytes=MOST_BYTES)) as it:
            await it.declare(trigger("t", "a"))
            for number in range(1000):
                await it.dispatcher.intake.publish(BROKER, [event(str(number), "a", b"x" * 4000)])
                await it.advance(0.6)
            assert len(it.functions.calls) == 1000

    asyncio.run(run())


def test_who_is_refused_is_told_how_full_the_broker_is() -> None:
    async def run() -> None:
        async with world(Retention(max_bytes=MOST_BYTES)) as it:
            await it.declare(trigger("t", "a"))
            it.functions.gate = asyncio.Event()
            await fill(it)
            with pytest.raises(StreamFullError) as caught:
                await it.dispatcher.intake.publish(BROKER, [event("one more", "a", b"x" * 4000)])
            assert str(caught.value).startswith(f"broker {BROKER} is full: ")
            it.functions.gate.set()
            await it.advance(FRESH_SECONDS)
            await it.dispatcher.intake.publish(BROKER, [event("one more", "a", b"x" * 4000)])

    asyncio.run(run())


def test_replays_leave_room_for_replies_too() -> None:
    async def run() -> None:
        async with world(Retention(max_bytes=MOST_BYTES)) as it:
            it.functions.behave = lambda *_: answer(500)
            await it.declare(trigger("t", "a", delivery=Delivery(retry=0)))
            await it.publish(event("bad", "a", b"x" * 4000))
            since = datetime.fromtimestamp(it.clock.now() - 1, UTC)
            await it.advance(1.0)
            it.functions.gate = asyncio.Event()
            await fill(it)
            letters = letters_of(it)
            letters._intake = it.dispatcher.intake
            [letter] = [each async for each in await letters.select(LetterSelection())]
            with pytest.raises(StreamFullError):
                await letters.replay([letter.id])
            until = datetime.fromtimestamp(it.clock.now() + 1, UTC)
            with pytest.raises(StreamFullError):
                await archive(it).replay(BROKER, Replay(since=since, until=until, run=RUN))
            assert len(await it.dead()) == 1

    asyncio.run(run())


def test_many_at_once_look_once() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "a"))
            looks = 0
            look = it.log.size_bytes

            async def counted(stream: str) -> int:
                nonlocal looks
                looks += 1
                await asyncio.sleep(0)
                return await look(stream)

            it.log.size_bytes = counted  # type: ignore[method-assign]
            intake = it.dispatcher.intake
            await asyncio.gather(*(intake.publish(BROKER, [event(str(n), "a")]) for n in range(50)))
            assert looks == 1
            assert await it.log.size_bytes(STREAM) > 0

    asyncio.run(run())


def test_a_log_that_can_not_say_how_much_it_holds_takes_nothing_in() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "a"))

            async def away(stream: str) -> int:
                raise EventLogError("the log is away")

            it.log.size_bytes = away  # type: ignore[method-assign]
            asked = [it.dispatcher.intake.publish(BROKER, [event(str(n), "a")]) for n in range(3)]
            assert {str(each) for each in await asyncio.gather(*asked, return_exceptions=True)} == {
                "the log is away"
            }
            assert await it.events("a") == []

    asyncio.run(run())


# --- what can't be written waits ----------------------------------------------------------------------------


class Away:
    """A log to which a stream is away for as long as it is told so."""

    def __init__(self, log: Any, stream: str) -> None:
        self._log = log
        self._stream = stream
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append(self, stream: str, records: Sequence[Record], **more: Any) -> list[bool]:
        if stream == self._stream and self.error is not None:
            raise self.error
        return list(await self._log.append(stream, records, **more))


async def problem(it: World) -> str:
    return (await it.dispatcher.states())["default/t"].problem


def test_what_fits_is_written_though_something_larger_waits_before_it() -> None:
    async def run() -> None:
        async with world(Retention(max_bytes=100_000)) as it:
            await it.declare(trigger("t", "a", parallelism=2), trigger("v", "v", function="g"))
            gates = {each: asyncio.Event() for each in ("small", "large", "v")}
            sizes = {"small": 1000, "large": 20_000}
            send = it.functions.send

            async def held(function_key: str, fields: bytes, body: bytes, timeout_seconds: float) -> Response:
                [called] = decode(decode_fields(fields), body) or []
                await gates[called.id].wait()
                return await send(function_key, fields, body, timeout_seconds)

            it.functions.send = held  # type: ignore[method-assign]
            it.functions.behave = lambda events, _: (
                replying(events, 1, b"r" * sizes[events[0].id]) if events[0].id in sizes else answer()
            )
            await it.publish(event("v", "v", b"x" * 8000))
            await it.publish(event("small", "a", b"x"), event("large", "a", b"x"))
            with contextlib.suppress(StreamFullError):
                for number in range(1000):
                    await it.publish(event(f"f{number}", "nobody's", b"x" * 500))
            for each in ("large", "small", "v"):
                gates[each].set()
                await it.advance(2.0)
            await it.advance(60.0)
            assert [each.id for each in await it.events("reply")] == ["small.0"]
            assert (await it.pending(), "replies can't be written" in await problem(it)) == (1, True)
            await it.log.ensure_stream(StreamSpec(STREAM, max_bytes=200_000))
            await it.advance(10.0)
            assert [each.id for each in await it.events("reply")] == ["small.0", "large.0"]
            assert (await it.pending(), await problem(it)) == (0, "")

    asyncio.run(run())


def test_dead_letters_that_can_not_be_written_keep_no_other_event_from_its_function() -> None:
    async def run() -> None:
        it = World()
        away = Away(it.log, names.dead_stream(BROKER))
        it.dispatcher = Dispatcher(away, it.functions, it.clock)
        await it.declare(trigger("t", "a", parallelism=4))
        it.functions.behave = lambda events, _: answer(400 if events[0].id.startswith("bad") else 204)
        away.error = StreamFullError("dead letters are full")
        await it.publish(*(event(f"bad{number}", "a") for number in range(8)))
        await it.advance(1.0)
        await it.publish(*(event(f"good{number}", "a") for number in range(10)))
        await it.advance(3600.0)
        assert len(it.functions.calls) == 18
        assert await it.pending() == 8
        assert await problem(it) == "dead letters can't be written: dead letters are full"
        away.error = None
        await it.advance(61.0)
        assert (len(it.functions.calls), len(await it.dead()), await problem(it)) == (18, 8, "")
        assert {each.attributes["torporattempts"] for each in await it.dead()} == {"1"}
        await it.dispatcher.close()

    asyncio.run(run())


def test_an_event_is_never_delivered_and_moved_out_of_a_backlog_too() -> None:
    async def run() -> None:
        it = World()
        away = Away(it.log, names.dead_stream(BROKER))
        it.dispatcher = Dispatcher(away, it.functions, it.clock)
        backlog = Backlog(limit=2, on_limit="deadLetterOldest")
        await it.declare(trigger("t", "a", parallelism=1, backlog=backlog))
        it.functions.gate = asyncio.Event()
        away.error = EventLogError("out")
        await it.publish(*(event(str(number), "a") for number in range(6)))
        await it.advance(11.0)
        it.functions.gate.set()
        await it.advance(30.0)
        away.error = None
        await it.advance(60.0)
        called = {each for call in it.functions.calls for each in call[2]}
        assert called | {each.id for each in await it.dead()} == {str(number) for number in range(6)}
        assert called & {each.id for each in await it.dead()} == set()
        await it.dispatcher.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("stream", "status", "expected"),
    [
        (STREAM, 200, "replies can't be written: the log is out"),
        (names.dead_stream(BROKER), 400, "dead letters can't be written: the log is out"),
    ],
    ids=["replies", "dead letters"],
)
def test_while_the_log_takes_nothing_no_attempt_is_lost(stream: str, status: int, expected: str) -> None:
    async def run() -> None:
        it = World()
        away = Away(it.log, stream)
        it.dispatcher = Dispatcher(away, it.functions, it.clock)
        await it.declare(trigger("t", "a", delivery=Delivery(retry=3)))
        it.functions.behave = replying if status == 200 else lambda *_: answer(status)
        await it.publish(event("1", "a"))
        await it.advance(1.0)
        away.error = EventLogError("the log is out")
        it.functions.calls.clear()
        await append_events(it.log, BROKER, [event("2", "a")])
        await it.advance(3600.0)
        assert len(it.functions.calls) == 1
        assert await problem(it) == expected
        away.error = None
        await it.advance(10.0)
        assert len(it.functions.calls) == 1
        assert (await problem(it), await it.pending()) == ("", 0)
        ids = [each.id for each in await it.events("reply")]
        assert ids == (["1.0", "2.0"] if status == 200 else [])
        assert len(await it.dead()) == (0 if status == 200 else 2)
        await it.dispatcher.close()

    asyncio.run(run())


def test_patience_waits_ever_longer_and_ends_for_what_never_fits() -> None:
    async def run() -> None:
        clock = MovableClock()
        patience = Patience(clock)
        tried: list[float] = []
        errors: list[Exception] = [BlobError("no disk")] * 6

        async def write() -> str:
            tried.append(clock.monotonic())
            if errors:
                raise errors.pop()
            return "written"

        async def settle() -> None:
            for _ in range(5):
                await asyncio.sleep(0)

        began = clock.monotonic()
        task = asyncio.ensure_future(patience.write("s", "replies", write))
        await settle()
        assert patience.problem("s") == "replies can't be written: no disk"
        await clock.advance(100.0, settle)
        assert await task == "written"
        assert [at - began for at in tried] == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 23.5]
        assert patience.problem("s") == ""
        errors.append(RecordTooLargeError("too large"))
        with pytest.raises(RecordTooLargeError):
            await patience.write("s", "replies", write)

    asyncio.run(run())
