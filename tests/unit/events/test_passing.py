"""An event that does not match is let pass only by who has the newest filters."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from torpor.errors import EventLogError
from torpor.events.passing import Passing


@dataclass
class _Delivery:
    record: Any = None
    attempt: int = 1
    settled: list[str] = field(default_factory=list)

    async def ack(self) -> None:
        self.settled.append("ack")

    async def retry(self, delay_seconds: float) -> None:
        self.settled.append("retry")

    async def extend(self) -> None:
        raise AssertionError


class _Log:
    def __init__(self, *revisions: str) -> None:
        self.revisions = list(revisions)
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def newest(self) -> str:
        self.asked += 1
        revision = self.revisions[min(self.asked, len(self.revisions)) - 1]
        await self.gate.wait()
        if not revision:
            raise EventLogError("the log is out")
        return revision


@pytest.mark.parametrize(("newest", "settled"), [("mine", "ack"), ("newer", "retry")])
def test_an_event_passes_by_who_has_the_newest_filters(newest: str, settled: str) -> None:
    async def run() -> None:
        delivery = _Delivery()
        await Passing("mine", _Log(newest).newest).let_pass(delivery)
        assert delivery.settled == [settled]

    asyncio.run(run())


def test_one_answer_counts_for_all_that_were_there_before_the_question() -> None:
    async def run() -> None:
        log = _Log("mine", "newer")
        log.gate.clear()
        passing = Passing("mine", log.newest)
        early, late = _Delivery(), [_Delivery() for _ in range(5)]
        first = asyncio.create_task(passing.let_pass(early))
        await asyncio.sleep(0)
        others = [asyncio.create_task(passing.let_pass(each)) for each in late]
        await asyncio.sleep(0)
        log.gate.set()
        await asyncio.gather(first, *others)
        assert early.settled == ["ack"]
        assert [each.settled for each in late] == [["retry"]] * 5
        assert log.asked == 2

    asyncio.run(run())


def test_without_an_answer_nothing_is_settled() -> None:
    async def run() -> None:
        log = _Log("", "mine")
        passing, delivery = Passing("mine", log.newest), _Delivery()
        with pytest.raises(EventLogError):
            await passing.let_pass(delivery)
        assert delivery.settled == []
        await passing.let_pass(delivery)
        assert delivery.settled == ["ack"]

    asyncio.run(run())
