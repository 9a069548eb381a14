"""How long producers are asked to wait: until a backlog has room, and while nothing can be stored."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from tests.unit.events.world import BROKER, event, trigger, world
from torpor.binding import encode_batch
from torpor.errors import EventLogError
from torpor.events.admission import Admission
from torpor.events.backlog import Level
from torpor.events.ingress import Ingress
from torpor.events.intake import Intake
from torpor.events.retry_after import Drain, Outages
from torpor.events.stats import Stats
from torpor.spec.models import Backlog
from torpor.testing.clock import MovableClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.unit.events.world import World


@pytest.mark.parametrize(
    ("counts", "below", "seconds"),
    [
        # (when, how many wait, how many were let in until then)
        ([], 99, 1),
        ([(0, 100, 0)], 99, 1),  # nothing is known of its pace
        ([(0, 100, 0), (0.9, 50, 0)], 99, 1),
        ([(0, 200, 0), (10, 150, 0)], 99, 11),  # 5 a second, 51 too many: 10.2 s
        ([(0, 200, 0), (10, 199, 0)], 99, 60),  # 1,000 s
        ([(0, 200, 0), (10, 200, 0)], 99, 60),  # not at all
        ([(0, 100, 0), (10, 200, 0)], 99, 60),
        ([(0, 100, 0), (10, 100, 500)], 99, 1),  # full all the time, and 50 a second are worked off
        ([(0, 100, 0), (10, 100, 2)], 99, 5),  # one in five seconds
        ([(0, 100, 7), (10, 110, 17)], 99, 60),
        ([(0, 100, 0), (10, 110, 20)], 99, 11),  # 1 a second, 11 too many
        ([(0, 100, 0), (10, 50, 0)], 99, 1),  # there is room
        # What was half a minute ago counts no more: 10 a second then, 1 a second now, 31 too many.
        ([(0, 500, 0), (30, 160, 0), (45, 145, 0), (60, 130, 0)], 99, 31),
        # The last count before counts, however it is, since who was asked to wait does not ask in between
        ([(0, 130, 0), (60, 130, 0)], 99, 60),
        ([(0, 250, 0), (60, 130, 0)], 99, 16),  # 2 a second
        # unless that is too long ago.
        ([(0, 10, 0), (121, 130, 0)], 99, 1),
    ],
)
def test_how_long_it_is_until_there_is_room(
    counts: Sequence[tuple[float, int, int]], below: int, seconds: int
) -> None:
    drain = Drain()
    for at, waiting, taken in counts:
        drain.see(1000.0 + at, waiting, taken)
    assert drain.seconds_until(below) == seconds


def test_counts_that_come_quickly_are_not_all_kept() -> None:
    drain = Drain()
    for number in range(100_000):  # one each hundredth of a second, while 3 are worked off
        drain.see(number / 100, 1_000_000 - 3 * number, 0)
    assert len(drain._seen) <= 32
    assert drain.seconds_until(1_000_000 - 3 * 99_999 - 2990) == 10  # 2,990 at 300 a second


def test_a_level_knows_when_there_is_room_by_what_it_let_in_and_its_counts() -> None:
    level = Level(4)
    level.begin()
    level.counted(0, 0.0)
    for at in (0.0, 2.0, 4.0):
        level.take(4)
        level.done(4)
        level.begin()
        level.counted(4, at + 2.0)  # those of two seconds ago are done, and four others wait
    assert level.full
    # Of 12 that were let in 4 wait: 8 were worked off in 6 s, and one has to be.
    assert level.room_in_seconds == 1
    for at in (8.0, 60.0):
        level.begin()
        level.counted(4, at)
    assert level.room_in_seconds == 60


@pytest.mark.parametrize(
    ("happens", "seconds"),
    [
        ([("failed", 0)], 1),
        ([("failed", 0), ("failed", 0.5)], 1),
        ([("failed", 0), ("failed", 3.2)], 4),
        ([("failed", 0), ("failed", 11), ("failed", 22.5)], 23),
        ([("failed", 0), ("failed", 50), ("failed", 100)], 30),
        ([("failed", 0), ("failed", 20), ("stored", 21), ("failed", 22)], 1),
        ([("failed", 0), ("elsewhere", 20), ("failed", 22)], 22),
        ([("failed", 0), ("failed", 61)], 1),  # nobody asked for more than a minute
    ],
)
def test_who_can_not_store_waits_as_long_as_that_lasts(
    happens: Sequence[tuple[str, float]], seconds: int
) -> None:
    outages, said = Outages(), 0
    for what, at in happens:
        if what == "failed":
            said = outages.failed("n/b", 100.0 + at)
        else:
            outages.stored("n/b" if what == "stored" else "n/other")
    assert said == seconds


class _Away:
    """A log that is away until it is told that it is there."""

    def __init__(self) -> None:
        self.away = True

    async def append(self, stream: str, records: Sequence[object]) -> list[bool]:
        if self.away:
            raise EventLogError("away")
        return [True] * len(records)

    async def size_bytes(self, stream: str) -> int:
        return 0


async def _post(ingress: Ingress, number: int) -> tuple[int, str | None]:
    """The answer's status and its ``Retry-After``."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": encode_batch([event(f"{number}", "a")]), "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/cloudevents-batch+json")]
    scope: Any = {"type": "http", "method": "POST", "path": f"/events/{BROKER}", "headers": headers}
    await ingress(scope, receive, send)
    after = dict(sent[0]["headers"]).get(b"retry-after")
    assert sent[0]["status"] == 202 or orjson.loads(sent[1]["body"])["detail"]
    return sent[0]["status"], after and after.decode()


def test_producers_back_off_while_the_broker_is_away() -> None:
    async def run() -> None:
        clock, log, stats = MovableClock(), _Away(), Stats()
        ingress = Ingress(Intake(log, clock, stats), clock, stats)  # type: ignore[arg-type]
        ingress.set_brokers([BROKER])
        said = []
        for _ in range(4):
            said.append(await _post(ingress, 1))
            await clock.advance(10.0)
        assert said == [(503, "1"), (503, "10"), (503, "20"), (503, "30")]
        log.away = False
        assert await _post(ingress, 1) == (202, None)
        log.away = True
        assert await _post(ingress, 2) == (503, "1")

    asyncio.run(run())


def test_producers_are_told_when_there_is_room() -> None:
    async def run() -> None:
        async with world() as it:
            it.functions.gate = asyncio.Event()
            await it.declare(trigger("slow", "a", parallelism=1, backlog=Backlog(limit=4)))
            ingress = _door(it)
            for number in range(4):
                assert await _post(ingress, number) == (202, None)
            assert await _post(ingress, 4) == (429, "1")
            await it.advance(5.0)
            assert await _post(ingress, 4) == (429, "60")  # none was delivered
            it.functions.gate.set()
            await it.advance(1.0)
            assert await _post(ingress, 4) == (202, None)

    asyncio.run(run())


def _door(it: World) -> Ingress:
    admission = Admission(it.clock, it.dispatcher.stats, it.dispatcher.pending)
    admission.set_routes(it.dispatcher.all_routes())
    ingress = Ingress(it.dispatcher.intake, it.clock, it.dispatcher.stats, admission=admission)
    ingress.set_brokers([BROKER])
    return ingress
