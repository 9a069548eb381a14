"""One partition as a process reads it, without a broker."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest

from torpor.errors import EventLogError
from torpor.events.kafka_follower import Follower
from torpor.events.kafka_partition import Followed

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Consumer

    from torpor.events.kafka_wire import Wire


class _Message:
    def __init__(self, offset: int) -> None:
        self._offset = offset

    def error(self) -> None:
        return None

    def offset(self) -> int:
        return self._offset


class _Wire:
    """A partition whose end is asked for as often as it says."""

    def __init__(self) -> None:
        self.end = 0
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.give: Callable[[list[Any]], None] = lambda _: None
        self.followed: list[tuple[int, bool] | None] = []

    async def first(self, topic: str, partition: int) -> int:
        return 0

    async def next(self, topic: str, partition: int) -> int:
        self.asked += 1
        end = self.end
        await self.gate.wait()
        return end

    def follow(
        self,
        topic: str,
        partition: int,
        start: int,
        take: Callable[[list[Any]], None],
        *,
        beside: bool = False,
    ) -> None:
        self.give = take
        self.followed.append((start, beside))

    def unfollow(self, topic: str, partition: int) -> None:
        self.followed.append(None)

    def write(self) -> None:
        self.end += 1
        self.give([_Message(self.end - 1)])


def _followed(wire: _Wire, take: Callable[[Any], None], fell: Callable[[], None]) -> Followed:
    return Followed(cast("Wire", wire), "t", 0, take, fell)


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_who_asks_during_a_question_has_the_answer_of_the_next() -> None:
    """What was written after the first question began is not in its answer."""

    async def run() -> None:
        wire = _Wire()
        followed = _followed(wire, lambda _: None, lambda: None)
        await followed.open()
        wire.asked = 0
        wire.gate.clear()
        first = asyncio.create_task(followed.sync())
        await _turns()
        wire.write()
        later = [asyncio.create_task(followed.sync()) for _ in range(5)]
        await _turns()
        wire.gate.set()
        assert await first == 0
        assert await asyncio.gather(*later) == [1] * 5
        assert wire.asked == 2
        assert await followed.sync() == 1
        assert wire.asked == 3

    asyncio.run(run())


def test_who_waits_for_what_is_not_read_yet_goes_on_once_it_is() -> None:
    async def run() -> None:
        wire = _Wire()
        followed = _followed(wire, lambda _: None, lambda: None)
        await followed.open()
        wire.end = 2
        waiting = asyncio.create_task(followed.sync())
        await _turns()
        wire.give([_Message(0)])
        await _turns()
        assert not waiting.done()
        wire.give([_Message(0), _Message(1)])  # what came before is left out
        assert await waiting == 2
        assert followed.end == 2

    asyncio.run(run())


def test_patience_counts_from_the_last_that_came(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large backlog may take as long as it does; a partition that gives nothing is given up."""
    monkeypatch.setattr("torpor.events.kafka_partition.PATIENCE_SECONDS", 0.0)

    async def run() -> None:
        wire = _Wire()
        followed = _followed(wire, lambda _: None, lambda: None)
        await followed.open()
        wire.end = 50
        waiting = asyncio.create_task(followed.sync())
        for offset in range(50):  # patience ends in each turn of the loop, and something comes in each
            wire.give([_Message(offset)])
            await asyncio.sleep(0)
        assert await waiting == 50
        wire.end = 51
        with pytest.raises(EventLogError, match="nothing came in time"):
            await followed.sync()

    asyncio.run(run())


def test_what_can_not_be_taken_in_ends_it() -> None:
    async def run() -> None:
        wire = _Wire()

        def take(_: object) -> None:
            raise ZeroDivisionError

        followed = _followed(wire, take, lambda: followed.close(EventLogError("it fell")))
        await followed.open()
        wire.end = 1
        waiting = asyncio.create_task(followed.sync())
        await _turns()
        with pytest.raises(ZeroDivisionError):
            wire.give([_Message(0)])
        with pytest.raises(EventLogError, match="it fell"):
            await waiting
        with pytest.raises(EventLogError, match="it fell"):
            await followed.sync()

    asyncio.run(run())


def test_what_is_much_is_read_beside_until_it_was_read() -> None:
    async def run() -> None:
        wire = _Wire()
        wire.end = 1000
        taken: list[int] = []
        followed = _followed(wire, lambda message: taken.append(message.offset()), lambda: None)
        await followed.begin()
        wire.give([_Message(offset) for offset in range(999)])
        assert wire.followed == [(0, True)]
        wire.give([_Message(999), _Message(1000)])  # and one that came since
        assert wire.followed == [(0, True), None, (1001, False)]
        wire.give([_Message(1000), _Message(1001)])
        assert taken == list(range(1002))

    asyncio.run(run())


# --- threads ------------------------------------------------------------------------------------------------


class _Placed(_Message):
    def __init__(self, topic: str, offset: int, size: int = 0) -> None:
        super().__init__(offset)
        self._topic = topic
        self._size = size

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return 0

    def value(self) -> bytes:
        return bytes(self._size)


class _Given:
    """A client's consumer that gives some messages at once, and says when it is asked for more."""

    def __init__(self, messages: list[_Placed]) -> None:
        self._messages = messages
        self.asked_again = threading.Event()
        self.closed = False

    def poll(self, _: float) -> _Placed | None:
        if self._messages:
            return self._messages.pop(0)
        self.asked_again.set()
        return None

    def consume(self, _: int, __: float) -> list[_Placed]:
        given, self._messages = self._messages, []
        return given

    def list_topics(self, topic: str, timeout: float) -> None:
        """It is there."""

    def incremental_assign(self, _: object) -> None:
        """Nothing is asked for."""

    def close(self) -> None:
        self.closed = True


def test_the_loop_has_turns_while_much_is_handed_over() -> None:
    async def run() -> None:
        large = [_Placed("a", offset, 100_000) for offset in range(20)]
        consumer = _Given([*large, _Placed("b", 0)])
        follower = Follower(cast("Consumer", consumer), asyncio.get_running_loop())
        turns: list[str] = []
        done = asyncio.Event()

        def other() -> None:
            turns.append("other")
            if not done.is_set():
                asyncio.get_running_loop().call_soon(other)

        def take_b(_: object) -> None:
            assert not consumer.asked_again.is_set()  # no more is read before all was taken in
            done.set()

        follower.follow("a", 0, 0, lambda messages: turns.extend("a" for _ in messages))
        follower.follow("b", 0, 0, take_b)
        other()
        follower.start()
        await done.wait()
        await asyncio.to_thread(follower.join)
        assert consumer.closed
        assert turns.count("a") == 20
        assert ["a", "a"] not in [turns[at : at + 2] for at in range(len(turns))]

    asyncio.run(run())


def test_what_one_can_not_take_in_does_not_cost_another_anything() -> None:
    async def run() -> None:
        faults: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))
        consumer = _Given([_Placed("a", 0), _Placed("b", 0), _Placed("b", 1)])
        follower = Follower(cast("Consumer", consumer), loop)
        came: asyncio.Future[list[int]] = loop.create_future()

        def fail(_: object) -> None:
            raise ZeroDivisionError

        follower.follow("a", 0, 0, fail)
        follower.follow(
            "b", 0, 0, lambda messages: came.set_result([message.offset() or 0 for message in messages])
        )
        follower.start()
        assert await came == [0, 1]
        assert list(map(type, faults)) == [ZeroDivisionError]
        await asyncio.to_thread(follower.join)

    asyncio.run(run())
