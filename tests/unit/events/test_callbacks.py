"""Callbacks hold up nothing but themselves, and an outcome that can't be written costs no call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.events.call_world import OK, URL, CallWorld, call_world
from torpor.errors import EventLogError
from torpor.events import call_workers, names
from torpor.transport import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from torpor.events.log import Record

BUSY = Response(503, [], b"")
MOST_BYTES = 50_000


def run(test: Callable[[CallWorld], Awaitable[None]]) -> None:
    async def in_world() -> None:
        async with call_world() as it:
            await test(it)

    asyncio.run(in_world())


class Away:
    """A log that takes nothing in one stream while ``gate`` is closed: it refuses, or lets wait."""

    def __init__(self, log: Any, stream: str, *, refuses: bool) -> None:
        self._log = log
        self._stream = stream
        self._refuses = refuses
        self.gate = asyncio.Event()
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append(self, stream: str, records: Sequence[Record], **more: Any) -> list[bool]:
        if stream == self._stream and not self.gate.is_set():
            self.asked += 1
            if self._refuses:
                raise EventLogError("no room")
            await self.gate.wait()
        return list(await self._log.append(stream, records, **more))


def test_a_callback_that_waits_keeps_no_outcome_from_being_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_workers, "OUTCOMES_BYTES", MOST_BYTES)

    async def test(it: CallWorld) -> None:
        one = await it.process()
        it.far.receiver = lambda _: BUSY
        it.far.function = lambda number: OK if number == 1 else Response(200, [], b"x" * 1000)
        first = await it.call(one, x_callback_url=URL)
        ids = []
        for _ in range(200):
            ids.append(await it.call(one))
            await it.advance(1.0)
        assert len(it.far.calls) == 201
        assert (await it.status(one, ids[-1])).state == "succeeded"
        assert await it.memory.size_bytes(names.OUTCOMES) <= MOST_BYTES
        kept = [stored.key async for stored in it.memory.read(names.OUTCOMES, ">")]
        assert first not in kept
        assert ids[0] not in kept
        it.far.receiver = lambda _: OK
        await it.advance(4000.0)
        assert it.far.callbacks[-1].body == b"done"
        assert one.counts.callbacks_delivered == 1

    run(test)


@pytest.mark.parametrize(("stream", "most"), [(names.OUTCOMES, 100), (names.CALLBACKS, 700)])
def test_while_an_outcome_can_not_be_written_its_call_is_not_made_again(stream: str, most: int) -> None:
    async def test(it: CallWorld) -> None:
        away = it.log = Away(it.memory, stream, refuses=True)
        one = await it.process()
        call_id = await it.call(one, x_callback_url=URL)
        await it.advance(600.0)
        assert (len(it.far.calls), it.far.callbacks) == (1, [])
        assert 10 < away.asked < most
        away.gate.set()
        await it.advance(10.0)
        assert (len(it.far.calls), len(it.far.callbacks)) == (1, 1)
        status = await it.status(one, call_id)
        assert (status.state, status.attempts) == ("succeeded", 1)
        assert one.counts.succeeded == 1

    run(test)


def test_a_process_that_dies_between_outcome_and_callback_loses_neither() -> None:
    async def test(it: CallWorld) -> None:
        away = it.log = Away(it.memory, names.CALLBACKS, refuses=False)
        one = await it.process(shared=True)
        call_id = await it.call(one, x_callback_url=URL)
        await it.settle()
        assert away.asked == 1
        await it.end(one)
        it.log = it.memory
        two = await it.process(shared=True)
        await it.advance(30.0)
        assert (len(it.far.calls), len(it.far.callbacks)) == (1, 1)
        status = await it.status(two, call_id)
        assert status.callback is not None
        assert (status.state, status.callback.state) == ("succeeded", "delivered")

    run(test)


def test_of_two_that_made_the_same_call_the_outcome_that_is_kept_is_told() -> None:
    async def test(it: CallWorld) -> None:
        it.far.function = lambda number: Response(200, [], b"first" if number == 1 else b"second")
        logs = [Away(it.memory, names.OUTCOMES, refuses=True) for _ in range(2)]
        for log in logs:
            it.log = log
            await it.process(shared=True)
        call_id = await it.call(it.processes[0], x_callback_url=URL)
        await it.settle()
        for process in it.processes:  # both are cut off, and can't say that they work on it
            for worker in process.workers._workers.values():
                worker._calls._tasks[1].cancel()
        await it.advance(11.0)
        assert len(it.far.calls) == 2
        for log in logs:
            log.gate.set()
        await it.advance(30.0)
        [kept] = [stored.event.data async for stored in it.memory.read(names.OUTCOMES, call_id)]
        assert {each.body for each in it.far.callbacks} == {kept}

    run(test)


def test_what_was_called_back_is_removed_after_a_while() -> None:
    async def test(it: CallWorld) -> None:
        one = await it.process()
        await it.call(one, x_callback_url=URL)
        await it.call(one)
        await it.advance(30.0)
        kept = [stored async for stored in it.memory.read(names.CALLBACKS, ">")]
        assert len(kept) == 1
        await it.advance(3700.0)
        assert [stored async for stored in it.memory.read(names.CALLBACKS, ">")] == []

    run(test)
