"""Order by key on a real NATS: two dispatchers hand over in order, late, and by one's end, under failures."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from tests.integration.events.process import until
from tests.unit.events.test_ordered import Judge, keyed, kill
from tests.unit.events.world import BROKER, linear, trigger
from torpor.clock import SystemClock
from torpor.events import names
from torpor.events.declared import Declared
from torpor.events.dispatcher import Dispatcher
from torpor.events.intake import append_events
from torpor.events.jetstream import JetStreamLog
from torpor.events.log import ConsumerSpec
from torpor.events.subscription import WINDOW

if TYPE_CHECKING:
    from torpor.events.nats_server import NatsServer

KEYS, CHUNK = 5, 100


@pytest.mark.parametrize("change", ["in order", "late", "killed"])
def test_order_holds_over_a_change_of_worker(nats: NatsServer, change: str) -> None:
    async def run() -> None:
        clock, chance = SystemClock(), random.Random(change)
        judge = Judge(clock, chance, (0.0, 0.001, 0.01))
        logs = [await JetStreamLog.connect(nats.url, token=nats.token) for _ in range(2)]
        one, two = (Dispatcher(log, judge, clock, shared=True) for log in logs)
        name = f"ordered-{change.replace(' ', '-')}"
        declared = Declared(
            [
                trigger(
                    name,
                    name,
                    ordering="key",
                    parallelism=4,
                    delivery=linear(retry=20, backoff_delay_seconds=0.01),
                )
            ],
            [BROKER],
        )
        await one.apply(declared)
        await two.apply(declared)
        await one.lead(True)
        published = 0

        async def more() -> None:
            nonlocal published
            events = [keyed(f"{n % KEYS}-{n}", str(n % KEYS)) for n in range(published, published + CHUNK)]
            published += CHUNK
            for each in events:
                each.attributes.update({"type": name, "source": f"/{name}"})  # no duplicates of other trials
            await append_events(logs[1], BROKER, events)

        async def worked(count: int) -> None:
            async def reached() -> bool:
                return sum(len(set(numbers)) for numbers in judge.began.values()) >= count

            await until(reached)

        await more()
        await worked(CHUNK // 2)
        if change == "in order":
            await one.lead(False)
        elif change == "killed":
            await kill(one)
            await logs[0].close()  # else the server would go on to send to it
        await two.lead(True)
        await more()
        if change == "late":
            await one.lead(False)
        await more()
        await worked(published)
        reading = await logs[1].consumer(
            ConsumerSpec(names.broker_stream(BROKER), names.trigger_consumer(f"default/{name}")), keep=True
        )

        async def quiet() -> bool:
            return await reading.pending() == 0

        await until(quiet)
        assert judge.faults == []
        dead = {
            s.event.id async for s in logs[1].read(names.dead_stream(BROKER), ">") if s.event.type == name
        }
        assert judge.done | dead == {f"{n % KEYS}-{n}" for n in range(published)}
        await reading.close()
        if change != "killed":
            await one.close()
        await two.close()
        for log in logs[change == "killed" :]:
            await log.close()

    asyncio.run(run())


def test_a_backlog_over_a_window_goes_without_a_stop(
    nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        clock, judge = SystemClock(), Judge(SystemClock(), random.Random(1), (0.0,))
        log = await JetStreamLog.connect(nats.url, token=nats.token)
        dispatcher = Dispatcher(log, judge, clock)
        declared = Declared(
            [trigger("much", "much", ordering="key", delivery=linear(backoff_delay_seconds=0.01))], [BROKER]
        )
        await dispatcher.apply(declared)
        total = WINDOW * 3 // 2
        events = [keyed(f"{n % 200}-{n}", str(n % 200)) for n in range(total)]
        for each in events:
            each.attributes.update({"type": "much", "source": "/much"})
        await append_events(log, BROKER, events)

        async def quiet() -> bool:
            return (await dispatcher.states())["default/much"].pending == 0

        await until(quiet)
        assert judge.faults == []
        assert sum(len(set(numbers)) for numbers in judge.began.values()) == total
        assert "wait for earlier ones" not in caplog.text
        await dispatcher.close()
        await log.close()

    asyncio.run(run())
