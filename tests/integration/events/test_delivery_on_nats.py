"""What a trigger asks of delivery, on a real NATS: batches, sinks, a rate limit, over an end and a start."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from tests.integration.events.process import until
from tests.unit.events.world import BROKER, answer, event, linear, trigger
from torpor.binding import decode
from torpor.clock import SystemClock
from torpor.events import names
from torpor.events.declared import Declared
from torpor.events.dispatcher import Dispatcher
from torpor.events.intake import append_events
from torpor.events.jetstream import JetStreamLog
from torpor.spec.models import Batch, DeadLetterSink, RateLimit
from torpor.transport.message import decode_fields

if TYPE_CHECKING:
    from torpor.events.nats_server import NatsServer
    from torpor.transport import Response

EVENTS = 60


class _Functions:
    """Names each third event of a batch as failed, and for good each sixth; the rest takes everything."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.taken: Counter[tuple[str, str]] = Counter()
        self.largest = 0

    async def send(self, function_key: str, fields: bytes, body: bytes, timeout_seconds: float) -> Response:
        headers = decode_fields(fields)
        events = decode(headers, body) or []
        self.calls[function_key] += 1
        failed = []
        if function_key == "default/f":
            self.largest = max(self.largest, len(events))
            attempt = int(dict(headers)[b"torpor-attempt"])
            failed = [
                each.id
                for each in events
                if int(each.id) % 6 == 0 or (int(each.id) % 3 == 0 and attempt == 1)
            ]
        self.taken.update((function_key, each.id) for each in events if each.id not in failed)
        return answer(204, torpor_failed_ids=",".join(failed)) if failed else answer()


def test_batches_and_sinks_end_every_event_once(nats: NatsServer) -> None:
    async def run() -> None:
        log = await JetStreamLog.connect(nats.url, token=nats.token)
        functions = _Functions()
        retries = {"retry": 2, "backoff_delay_seconds": 0.05}
        batch = Batch(size=10, wait_seconds=0.05)
        to_function = linear(dead_letter_sink=DeadLetterSink(function="undertaker"), **retries)
        to_broker = linear(dead_letter_sink=DeadLetterSink(broker="morgue"), **retries)
        declared = Declared(
            [
                trigger("one", "a", batch=batch, delivery=to_function),
                trigger("two", "a", batch=batch, delivery=to_broker, rate_limit=RateLimit(events=200)),
                trigger("reader", broker="morgue", function="reader"),
            ],
            [BROKER],
        )
        dispatcher = Dispatcher(log, functions, SystemClock())
        await dispatcher.apply(declared)
        await append_events(log, BROKER, [event(str(number)) for number in range(EVENTS)])
        poison = [str(number) for number in range(0, EVENTS, 6)]

        async def ended() -> bool:
            undertaken = sum(("default/undertaker", each) in functions.taken for each in poison)
            read = sum(("default/reader", each) in functions.taken for each in poison)
            return undertaken == read == len(poison)

        # In the middle of it one dispatcher ends in order, and another takes over.
        async def begun() -> bool:
            return functions.calls["default/f"] >= 3

        await until(begun)
        await dispatcher.close()
        dispatcher = Dispatcher(log, functions, SystemClock())
        await dispatcher.apply(declared)
        await until(ended)

        async def quiet() -> bool:
            return all(state.pending == 0 for state in (await dispatcher.states()).values())

        await until(quiet)
        fine = {str(number) for number in range(EVENTS)} - set(poison)
        assert {each for key, each in functions.taken if key == "default/f"} == fine
        assert functions.largest <= 10
        for sink in ("default/undertaker", "default/reader"):
            assert {each for key, each in functions.taken if key == sink} == set(poison)
        letters = [stored.event async for stored in log.read(names.dead_stream(BROKER), ">")]
        assert Counter(each.attributes["torportrigger"] for each in letters) == {
            "default/one": len(poison),
            "default/two": len(poison),
        }
        await dispatcher.apply(Declared([], [BROKER]))
        assert await log.consumers(names.dead_stream(BROKER)) == []
        await dispatcher.close()
        await log.close()

    asyncio.run(run())
