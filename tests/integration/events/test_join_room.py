"""A joining trigger whose groups hold as much as they may, on a real NATS: parts wait, and none is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from tests.integration.events.process import until
from tests.unit.events.world import BROKER, answer, part, trigger
from torpor.binding import WireEvent, decode
from torpor.clock import SystemClock
from torpor.events import names
from torpor.events.declared import Declared
from torpor.events.dispatcher import Dispatcher, Retention
from torpor.events.intake import append_events
from torpor.events.jetstream import JetStreamLog
from torpor.spec.models import Join
from torpor.transport.message import decode_fields

if TYPE_CHECKING:
    from torpor.events.nats_server import NatsServer
    from torpor.transport import Response

MOST_BYTES = 4_000_000
PART_BYTES = 100_000
GROUPS = [f"g{number}" for number in range(36)]
JOIN = trigger("j", "part", join=Join(timeout_seconds=600.0))
STREAM = names.groups_stream("default/j")


class _Functions:
    def __init__(self) -> None:
        self.joined: Counter[tuple[str, ...]] = Counter()

    async def send(self, function_key: str, fields: bytes, body: bytes, timeout_seconds: float) -> Response:
        self.joined[tuple(each.id for each in decode(decode_fields(fields), body) or [])] += 1
        return answer()


def _first(group: str) -> WireEvent:
    return WireEvent(part(group, 0, 2).attributes, b"x" * PART_BYTES)


def test_parts_wait_until_groups_end_and_none_is_lost(nats: NatsServer) -> None:
    async def run() -> None:
        log = await JetStreamLog.connect(nats.url, token=nats.token)
        functions, retention = _Functions(), Retention(max_bytes=MOST_BYTES)
        declared = Declared([JOIN], [BROKER])
        dispatcher = Dispatcher(log, functions, SystemClock(), retention=retention)
        await dispatcher.apply(declared)
        await append_events(log, BROKER, [_first(group) for group in GROUPS])

        async def problem() -> str:
            return (await dispatcher.states())["default/j"].problem

        async def short() -> bool:
            return "parts wait in the broker" in await problem()

        async def held() -> int:
            return len([each.key async for each in log.read(STREAM, "part.>")])

        async def filled() -> bool:
            return await short() and await held() >= 28  # of 100,000 bytes and some, in 3,000,000

        await until(filled)
        assert await held() < 30
        # Another process takes over: what waits there waits here.
        await dispatcher.close()
        dispatcher = Dispatcher(log, functions, SystemClock(), retention=retention)
        await dispatcher.apply(declared)
        await until(short)
        assert await log.size_bytes(STREAM) <= MOST_BYTES
        await append_events(log, BROKER, [part(group, 1, 2) for group in GROUPS])

        async def done() -> bool:
            return len(functions.joined) == len(GROUPS)

        await until(done)
        assert set(functions.joined) == {(f"{group}/0", f"{group}/1") for group in GROUPS}

        async def quiet() -> bool:
            return (await dispatcher.states())["default/j"].pending == 0 and not await problem()

        await until(quiet)
        assert await held() == 0
        assert [each async for each in log.read(names.dead_stream(BROKER), ">")] == []
        await dispatcher.apply(Declared([], [BROKER]))
        await dispatcher.close()
        await log.close()

    asyncio.run(run())
