from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from torpor.endpoint import Endpoint
from torpor.errors import TransportError
from torpor.providers.process.publication import RETRY_SECONDS, Publication
from torpor.testing.clock import MovableClock
from torpor.testing.publisher import MemoryPublisher

if TYPE_CHECKING:
    from collections.abc import Sequence

A, B = Endpoint("127.0.0.1", 1), Endpoint("127.0.0.1", 2)


def test_what_is_wanted_last_is_published_last_and_nothing_in_between() -> None:
    async def scenario() -> None:
        publisher = MemoryPublisher()
        publication = Publication(publisher, MovableClock(), "n/f")
        publisher.open.clear()
        first = publication.want([A])
        await asyncio.sleep(0)
        publication.want([A, B])
        last = publication.want([])
        assert not first.is_set()
        publisher.open.set()
        await last.wait()
        assert first.is_set()
        assert publisher.history == [("n/f", (A,)), ("n/f", ())]

    asyncio.run(scenario())


def test_what_is_published_already_is_not_published_again() -> None:
    async def scenario() -> None:
        publisher = MemoryPublisher()
        publication = Publication(publisher, MovableClock(), "n/f")
        assert publication.want([]).is_set()
        await publication.want([A]).wait()
        assert publication.want([A]).is_set()
        assert publisher.history == [("n/f", (A,))]

    asyncio.run(scenario())


def test_withdrawing_is_not_taken_in_while_the_call_before_is_under_way() -> None:
    async def scenario() -> None:
        publisher = MemoryPublisher()
        publication = Publication(publisher, MovableClock(), "n/f")
        publisher.open.clear()
        publication.want([A])
        await asyncio.sleep(0)
        withdrawn = publication.want([])  # as before the call under way, which will still publish A
        assert not withdrawn.is_set()
        publisher.open.set()
        await withdrawn.wait()
        assert publisher.endpoints["n/f"] == ()
        await publication.close()

    asyncio.run(scenario())


class Failing(MemoryPublisher):
    failures = 2

    async def publish(self, key: str, endpoints: Sequence[Endpoint]) -> None:
        if self.failures:
            self.failures -= 1
            raise TransportError("the data path is away")
        await super().publish(key, endpoints)


def test_a_failed_call_is_made_again() -> None:
    async def scenario() -> None:
        clock, publisher = MovableClock(), Failing()
        taken_in = Publication(publisher, clock, "n/f").want([A])
        for _ in range(2):
            while clock.next_due is None:
                await asyncio.sleep(0)
            assert not taken_in.is_set()
            await clock.advance(RETRY_SECONDS)
        await taken_in.wait()
        assert publisher.history == [("n/f", (A,))]

    asyncio.run(scenario())
