"""Events whose data was put into the blob store go every way that others go."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.unit.events.world import BROKER, World, answer, event, trigger
from torpor.errors import BlobError, BlobNotFoundError
from torpor.events.archive import Archive
from torpor.events.claims import Claims
from torpor.events.dispatcher import Dispatcher
from torpor.events.explain import Explainer
from torpor.events.records import taken_in
from torpor.spec.history import Question
from torpor.spec.models import Batch, Filter, Join, Trigger
from torpor.spec.replays import Replay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from torpor.binding import WireEvent

LIMIT = 64
BIG = Filter(exact={"data.country": "de"})


class Store:
    """Keeps :class:`torpor.events.claims.BlobStore` in memory; ``gate`` holds up who reads."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.broken = False
        self.reads = 0
        self.gate: asyncio.Event | None = None

    async def put(self, data: bytes, content_type: str | None = None) -> str:
        reference = f"store:{hashlib.sha256(data).hexdigest()}"
        self.blobs[reference] = data
        return reference

    async def get(self, reference: str) -> bytes:
        return self.blobs[reference]

    async def read(self, reference: str, max_bytes: int) -> bytes | None:
        self.reads += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.broken:
            raise BlobError("the store is away")
        if reference not in self.blobs:
            raise BlobNotFoundError(reference)
        data = self.blobs[reference]
        return data if len(data) <= max_bytes else None


class Claiming(World):
    def __init__(self) -> None:
        self.store = Store()
        self.claims = Claims(self.store, LIMIT)
        super().__init__()

    def _dispatcher(self) -> Dispatcher:
        return Dispatcher(self.log, self.functions, self.clock, claims=self.claims)

    async def send(self, *events: WireEvent) -> None:
        """What the ingress does."""
        checked = [await self.claims.check_in(each) for each in events]
        await self.dispatcher.intake.publish(BROKER, checked)
        await self.settle()

    def ids(self) -> list[str]:
        return [one for call in self.functions.calls for one in call[2]]


@asynccontextmanager
async def world() -> AsyncIterator[Claiming]:
    made = Claiming()
    try:
        yield made
    finally:
        await made.dispatcher.close(0.0)


def order(event_id: str, country: str, size: int = 100, **attributes: str) -> WireEvent:
    data = orjson.dumps({"country": country, "rest": "x" * size})
    return event(event_id, "order", data, datacontenttype="application/json", **attributes)


def looking(**changes: object) -> Trigger:
    made = trigger(**changes)  # type: ignore[arg-type]
    return made.model_copy(update={"spec": made.spec.model_copy(update={"filters": (BIG,)})})


@pytest.mark.parametrize(
    "changes",
    [{}, {"ordering": "key"}, {"batch": Batch(size=2, wait_seconds=1)}, {"parallelism": 1}],
    ids=lambda changes: next(iter(changes), "plain"),
)
def test_filters_look_into_data_that_was_checked_in(changes: dict[str, object]) -> None:
    """As into any other: whether an event matches does not depend on where its data is."""

    async def run() -> None:
        async with world() as it:
            await it.declare(looking(**changes))
            await it.send(order("1", "de"), order("2", "fr"), order("3", "de", 1), order("4", "fr", 1))
            await it.advance(1.0)
            assert sorted(it.ids()) == ["1", "3"]
            assert it.store.reads == 2  # of 1 and 2
            assert await it.pending() == 0

    asyncio.run(run())


def test_parts_of_a_group_are_looked_into() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(looking(join=Join()))
            group = [
                order(str(index), "de", fanoutid="g", fanoutindex=str(index), fanoutsize="2")
                for index in range(2)
            ]
            await it.send(*group, order("x", "fr", fanoutid="g", fanoutindex="0", fanoutsize="2"))
            assert it.ids() == ["0", "1"]

    asyncio.run(run())


def test_without_filters_of_data_nothing_is_fetched() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("t", "order"))
            await it.send(order("1", "de"))
            assert (it.ids(), it.store.reads) == (["1"], 0)

    asyncio.run(run())


def test_while_the_store_is_away_an_event_waits() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(looking())
            it.store.broken = True
            await it.send(order("1", "de"))
            assert (it.ids(), await it.pending()) == ([], 1)
            it.store.broken = False
            await it.advance(60.0)
            assert (it.ids(), await it.pending()) == (["1"], 0)

    asyncio.run(run())


def test_what_is_not_in_the_store_matches_as_without_data() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(looking(), trigger("all", "order", function="g"))
            await it.publish(event("1", "order", dataref="store:gone"))
            assert [(function, ids) for _, function, ids, _ in it.functions.calls] == [("default/g", ["1"])]
            assert await it.pending() == 0

    asyncio.run(run())


def test_order_is_kept_while_data_is_fetched() -> None:
    """What comes later has its data at hand, and does not overtake."""

    async def run() -> None:
        async with world() as it:
            await it.declare(looking(ordering="key"))
            it.store.gate = asyncio.Event()
            await it.send(
                order("1", "de", partitionkey="k"),
                order("2", "de", 1, partitionkey="k"),
                order("3", "fr", partitionkey="k"),
                order("4", "de", 1, partitionkey="k"),
                order("other", "de", 1, partitionkey="o"),
            )
            await it.advance(1.0)
            assert it.ids() == ["other"]
            it.store.gate.set()
            await it.advance(1.0)
            assert it.ids() == ["other", "1", "2", "4"]
            assert await it.pending() == 0

    asyncio.run(run())


def test_large_replies_are_checked_in_and_match_all_the_same() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(trigger("first", "start", function="f"), looking(name="next", function="g"))
            replies = [order("r/0", "de"), order("r/1", "fr")]
            it.functions.behave = lambda events, _: answer(
                events=replies if events[0].type == "start" else []
            )
            await it.send(event("s", "start"))
            assert [(function, ids) for _, function, ids, _ in it.functions.calls] == [
                ("default/f", ["s"]),
                ("default/g", ["r/0"]),
            ]
            stored = await it.events("order")
            assert [(each.data, "dataref" in each.attributes) for each in stored] == [(None, True)] * 2

    asyncio.run(run())


def test_a_dead_letter_names_its_data() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(looking())
            it.functions.behave = lambda *_: answer(422)
            await it.send(order("1", "de"))
            [letter] = await it.dead()
            assert letter.data is None
            assert letter.attributes["dataref"] in it.store.blobs

    asyncio.run(run())


def test_a_replay_and_an_explanation_look_into_it_too() -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(looking())
            await it.send(order("1", "de"), order("2", "fr"))
            it.functions.calls.clear()
            dispatcher = it.dispatcher
            archive = Archive(
                it.log, dispatcher.intake, dispatcher.recorder, dispatcher.routes, dispatcher.route, it.claims
            )
            await it.advance(1.0)
            until = datetime.fromtimestamp(it.clock.now(), UTC)
            page = await archive.replay(
                BROKER, Replay(since=datetime.fromtimestamp(1, UTC), until=until, run="a" * 32)
            )
            await it.settle()
            assert [each.id for each in page.items] == it.ids() == ["1"]

    asyncio.run(run())


@pytest.mark.parametrize("broken", [False, True])
def test_an_explanation_says_what_the_data_decided(broken: bool) -> None:
    async def run() -> None:
        async with world() as it:
            await it.declare(looking())
            checked = await it.claims.check_in(order("2", "fr"))
            await it.publish(checked)
            recorder = it.dispatcher.recorder
            recorder.add(BROKER, taken_in([checked], [True], at=it.clock.now(), by="x", how="sent"))
            await recorder.flush(BROKER)
            it.store.broken = broken
            explainer = Explainer(it.log, it.clock, it.dispatcher.routes, it.claims)
            [item] = (await explainer.explain(Question(id="2"))).items
            [standing] = item.triggers
            assert standing.matches is False
            where = "is not looked for: the data is elsewhere (dataref)" if broken else "is 'fr'"
            assert f"data.country {where}" in standing.reason

    asyncio.run(run())
