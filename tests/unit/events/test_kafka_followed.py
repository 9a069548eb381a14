"""One partition as a process reads it, without a broker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from torpor.errors import EventLogError
from torpor.events.kafka_partition import Followed

if TYPE_CHECKING:
    from collections.abc import Callable

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

    async def first(self, topic: str, partition: int) -> int:
        return 0

    async def next(self, topic: str, partition: int) -> int:
        self.asked += 1
        end = self.end
        await self.gate.wait()
        return end

    def follow(self, topic: str, partition: int, start: int, take: Callable[[list[Any]], None]) -> None:
        self.give = take

    def unfollow(self, topic: str, partition: int) -> None:
        pass

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
