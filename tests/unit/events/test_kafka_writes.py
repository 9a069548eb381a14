"""What becomes of writes to Kafka whose answer does not come, without a broker."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from torpor.errors import EventLogError
from torpor.events.kafka_codec import dumps
from torpor.events.kafka_registry import Entry, Registry
from torpor.events.log import StreamSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from torpor.events.kafka_wire import Wire

ENTRY = Entry(StreamSpec("s"), 1)


class _Silent:
    """A broker that takes what is sent, and gives it back when it is told to; patience never ends."""

    def __init__(self) -> None:
        self.sent: list[_Sent] = []
        self.take: Callable[[list[Any]], None] = lambda _: None

    async def first(self, topic: str, partition: int) -> int:
        return 0

    async def next(self, topic: str, partition: int) -> int:
        return 0

    def follow(self, topic: str, partition: int, start: int, take: Any, *, beside: bool = False) -> None:
        self.take = take

    def unfollow(self, topic: str, partition: int) -> None:
        """It gives nothing any more."""

    def send(self, topic: str, partition: int, headers: Any, value: bytes, **_: object) -> None:
        self.sent.append(_Sent(len(self.sent), headers, value))

    async def within_patience(self, future: asyncio.Future[Any]) -> Any:
        return await future


class _Sent:
    def __init__(self, offset: int, headers: Any, value: bytes) -> None:
        self._offset = offset
        self._headers = headers
        self._value = value

    def error(self) -> None:
        return None

    def offset(self) -> int:
        return self._offset

    def headers(self) -> Any:
        return self._headers

    def value(self) -> bytes:
        return self._value


def _registry(wire: _Silent) -> Registry:
    return Registry(cast("Wire", wire), "t", lambda _: None)


async def _following(wire: _Silent) -> Registry:
    registry = _registry(wire)
    await registry.open()
    return registry


def test_an_entry_is_written_once_it_was_read_back() -> None:
    async def run() -> None:
        wire = _Silent()
        registry = await _following(wire)
        putting = asyncio.create_task(registry.put(ENTRY))
        await asyncio.sleep(0)
        assert registry.get("s") is None
        wire.take(wire.sent)
        await putting
        assert registry.get("s") == ENTRY

    asyncio.run(run())


def test_a_registry_that_is_closed_leaves_nobody_waiting() -> None:
    async def run() -> None:
        wire = _Silent()
        registry = await _following(wire)
        putting = [asyncio.create_task(work) for work in (registry.put(ENTRY), registry.remove(ENTRY))]
        await asyncio.sleep(0)
        registry.close()
        putting.append(asyncio.create_task(registry.put(ENTRY)))  # which is too late
        for _ in range(5):
            await asyncio.sleep(0)
        assert [task.done() for task in putting] == [True, True, True]
        for task in putting:
            with pytest.raises(EventLogError, match="is closed"):
                await task
        assert len(wire.sent) == 2

    asyncio.run(run())


class _Kept(_Silent):
    """Gives what was sent at once, to all who follow, and before that what others send at that moment."""

    def __init__(self) -> None:
        super().__init__()
        self.takes: list[Any] = []
        self.before: list[Callable[[], None]] = []

    def follow(self, topic: str, partition: int, start: int, take: Any, *, beside: bool = False) -> None:
        self.takes.append(take)
        take(self.sent)

    def send(self, topic: str, partition: int, headers: Any, value: bytes, **more: object) -> None:
        if self.before:
            self.before.pop()()
        super().send(topic, partition, headers, value, **more)
        for take in self.takes:
            take(self.sent[-1:])

    def last(self) -> Registry:
        """Of a process that starts when all but the last message were removed by compaction."""
        registry = _registry(self)
        registry._take(cast("Any", self.sent[-1]))
        return registry


def _wider(entry: Entry) -> Entry:
    return replace(entry, spec=replace(entry.spec, max_bytes=7))


def test_of_two_changes_at_once_none_is_undone() -> None:
    async def run() -> None:
        wire = _Kept()
        one, other = await _following(wire), await _following(wire)
        assert await one.put(ENTRY)
        wire.before.append(lambda: _begin(other.change("s", _wider)))
        await one.change("s", lambda entry: replace(entry, start=9))
        for registry in (one, other, wire.last()):
            known = registry.get("s")
            assert known is not None
            assert (known.spec.max_bytes, known.start) == (7, 9)

    asyncio.run(run())


def test_who_makes_a_stream_too_late_changes_nothing() -> None:
    async def run() -> None:
        wire = _Kept()
        one, other = await _following(wire), await _following(wire)
        assert await one.put(ENTRY)
        await one.change("s", _wider)
        assert not await other.put(ENTRY)
        assert not await other.put(replace(ENTRY, generation=0, removed=True))
        for registry in (one, other, wire.last()):
            known = registry.get("s")
            assert known is not None
            assert known.spec.max_bytes == 7

    asyncio.run(run())


def test_what_counts_is_written_again_where_who_was_beaten_did_not() -> None:
    async def run() -> None:
        wire = _Kept()
        one = await _following(wire)
        assert await one.put(ENTRY)
        await one.change("s", _wider)
        wire.send("t", 0, [], dumps(asdict(replace(ENTRY, start=9))))  # its writer has ended since
        assert wire.last().get("s") != one.get("s")
        await one.repair()
        assert wire.last().get("s") == one.get("s") == replace(_wider(ENTRY), version=2)
        sent = len(wire.sent)
        await one.repair()
        assert len(wire.sent) == sent

    asyncio.run(run())


def test_what_a_newer_version_writes_beside_is_left_out() -> None:
    async def run() -> None:
        wire = _Kept()
        one = await _following(wire)
        wire.send("t", 0, [], dumps({**asdict(ENTRY), "shape": "round"}))
        assert one.get("s") == ENTRY

    asyncio.run(run())


def _begin(work: Coroutine[Any, Any, None]) -> None:
    """Do all of ``work`` that it does without waiting."""
    with contextlib.suppress(StopIteration):
        work.send(None)
        work.throw(AssertionError("it waits"))
