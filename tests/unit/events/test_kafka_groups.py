"""Appends of single records at the same time: by themselves while they are few, then in groups."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.unit.events.kafka_world import appended
from tests.unit.events.world import event
from torpor.errors import EventLogError
from torpor.events.kafka_groups import SINGLY, Groups
from torpor.events.kafka_index import Verdict
from torpor.events.log import Guard, Record
from torpor.testing.contracts.rig import record

if TYPE_CHECKING:
    from torpor.events.kafka_codec import Appended


class _Messages:
    """What was written, and is answered when the test says so."""

    def __init__(self) -> None:
        self.groups = Groups(self._write)
        self.sent: list[list[str]] = []
        self.under_way: list[tuple[asyncio.Future[list[Verdict]], list[str]]] = []

    def _write(self, given: Appended) -> asyncio.Future[list[Verdict]]:
        assert len(given.heads) == len(given.all())
        writing: asyncio.Future[list[Verdict]] = asyncio.get_running_loop().create_future()
        self.sent.append([each.event.id for each in given.all()])
        self.under_way.append((writing, self.sent[-1]))
        return writing

    def append(self, start: int, count: int, data: bytes = b"") -> list[asyncio.Future[list[Verdict]]]:
        records = [Record("k", each, event(each, data=data)) for each in _ids(start, count)]
        return [self.groups.append(appended(each)) for each in records]

    async def answer(self) -> None:
        """Answer all that is under way: every third record is a duplicate."""
        written, self.under_way = self.under_way, []
        for writing, ids in written:
            writing.set_result([_verdict(each) for each in ids])
        await _settle()


def _verdict(identity: str) -> Verdict:
    return Verdict.DUPLICATE if int(identity) % 3 == 0 else Verdict.NEW


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def _ids(start: int, count: int) -> list[str]:
    return [str(each) for each in range(start, start + count)]


def test_few_are_written_by_themselves_at_once() -> None:
    async def run() -> None:
        it = _Messages()
        written = it.append(0, SINGLY)
        assert it.sent == [[each] for each in _ids(0, SINGLY)]
        await it.answer()
        assert [each.result() for each in written] == [[_verdict(each)] for each in _ids(0, SINGLY)]
        it.append(100, 1)
        assert it.sent[-1] == ["100"]

    asyncio.run(run())


def test_more_are_joined_and_each_has_its_own_outcome() -> None:
    async def run() -> None:
        it = _Messages()
        it.append(0, SINGLY)
        await it.answer()
        it.append(0, SINGLY)
        it.sent.clear()
        first = it.append(100, 20)
        await _settle()
        second = it.append(200, 30)
        await _settle()
        third = it.append(300, 40) + it.append(400, 50)
        await _settle()
        assert it.sent == [_ids(100, 20), _ids(200, 30)], "two groups at a time"
        await it.answer()
        assert it.sent[-1] == _ids(300, 40) + _ids(400, 50)
        await it.answer()
        for ids, written in ((_ids(100, 20), first), (_ids(200, 30), second), (it.sent[-1], third)):
            assert [each.result() for each in written] == [[_verdict(each)] for each in ids]

        await it.answer()
        it.append(500, 1)
        assert it.sent[-1] == ["500"], "none waits any more"

    asyncio.run(run())


def test_while_a_group_is_under_way_others_wait_for_each_other() -> None:
    async def run() -> None:
        it = _Messages()
        it.append(0, SINGLY + 1)
        await _settle()
        for writing, _ in it.under_way[:SINGLY]:
            writing.set_result([Verdict.NEW])
        await _settle()
        it.append(100, 1)
        it.append(200, 1)
        assert it.sent[-1] == [str(SINGLY)]
        await _settle()
        assert it.sent[-1] == ["100", "200"]

    asyncio.run(run())


def test_a_group_fits_into_a_message() -> None:
    async def run() -> None:
        it = _Messages()
        it.append(0, SINGLY)
        it.append(1000, 2500)
        await _settle()
        assert [len(each) for each in it.sent[SINGLY:]] == [1000, 1000]
        await it.answer()
        assert [len(each) for each in it.sent[SINGLY:]] == [1000, 1000, 500]

        large = _Messages()
        large.append(0, SINGLY)
        large.append(1000, 5, bytes(1536 * 1024))
        await _settle()
        assert large.sent[SINGLY:] == [["1000"], ["1001"]]

    asyncio.run(run())


def test_what_is_more_than_a_record_or_has_a_guard_goes_by_itself() -> None:
    async def run() -> None:
        it = _Messages()
        it.append(0, SINGLY)
        it.sent.clear()
        it.append(100, 1)
        it.groups.append(appended(record("200"), record("201")))
        it.groups.append(appended(record("300"), guard=Guard("k", 0)))
        await _settle()
        assert it.sent == [["200", "201"], ["300"], ["100"]]

    asyncio.run(run())


def test_what_fails_fails_for_all_of_its_group_and_others_go_on() -> None:
    async def run() -> None:
        it = _Messages()
        it.append(0, SINGLY)
        first = it.append(100, 2)
        await _settle()
        second = it.append(200, 2)
        await _settle()
        third = it.append(300, 2)
        await _settle()
        it.under_way[SINGLY][0].set_exception(EventLogError("away"))
        await _settle()
        for each in first:
            with pytest.raises(EventLogError, match="away"):
                await each
        assert not any(each.done() for each in second)
        assert it.sent[-1] == ["300", "301"]
        assert not any(each.done() for each in third)

    asyncio.run(run())


def test_who_goes_away_before_takes_back_what_was_not_sent() -> None:
    async def run() -> None:
        it = _Messages()
        it.append(0, SINGLY)
        it.sent.clear()
        written = it.append(100, 3)
        written[1].cancel()
        await _settle()
        assert it.sent == [["100", "102"]]
        written[0].cancel()  # too late: it is written, and nobody is told
        it.under_way[-1][0].set_result([Verdict.NEW, Verdict.DUPLICATE])
        await _settle()
        assert written[2].result() == [Verdict.DUPLICATE]

    asyncio.run(run())


def test_what_nobody_waits_for_any_more_is_not_kept_and_too_much_is_refused() -> None:
    async def run() -> None:
        it = _Messages()
        it.append(0, SINGLY)
        for start in (100, 200):  # two groups, which Kafka does not answer
            it.append(start, 1)
            await _settle()
        for _ in range(3):
            written = it.append(1000, 60, bytes(1024 * 1024))
            for each in written:
                each.cancel()
            await _settle()
        it.append(1000, 64, bytes(1024 * 1024))
        with pytest.raises(EventLogError, match="too much waits"):
            it.append(2000, 1)

    asyncio.run(run())


def test_a_group_that_cannot_be_written_fails_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        it = _Messages()
        it.append(0, SINGLY)

        def refuse(_: Appended) -> asyncio.Future[list[Verdict]]:
            raise TypeError("no text")

        monkeypatch.setattr(it.groups, "_write", refuse)
        for start in (100, 200, 300):
            [written] = it.append(start, 1)
            await _settle()
            with pytest.raises(EventLogError, match="no text"):
                await written
        monkeypatch.setattr(it.groups, "_write", it._write)
        [written] = it.append(400, 1)
        await _settle()
        await it.answer()
        assert written.result() == [_verdict("400")]

    asyncio.run(run())
