"""Act one: an API behind the gateway, woken from zero, under load, and back to zero, several times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from demo.load import Load, Outcome
from demo.report import ApiReport, latency
from torpor.endpoint import Endpoint
from torpor.transport import Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from demo.watcher import Watcher
    from torpor.clock import Clock

NAME = "greeter"
_CYCLES = 4
_CONCURRENCY = 64
_REQUESTS_PER_CYCLE = 600
_LOAD_SECONDS = 2.0
_WARM_REQUESTS = 50


@dataclass(slots=True)
class ApiAct:
    """Measures the act while it runs; ``say`` is told what goes on."""

    url: str
    watcher: Watcher
    clock: Clock
    say: Callable[[str], None]

    async def run(self) -> ApiReport:
        """Play it."""
        parts = urlsplit(self.url)
        gateway = Endpoint(parts.hostname or "", parts.port or 80)
        client = Client()
        everything = Outcome()
        cold: list[float] = []
        warm: list[float] = []
        cycles = 0
        try:
            load = Load(client, self.clock, gateway, f"/function/{NAME}/?name=Ada")
            for cycle in range(1, _CYCLES + 1):
                await self.watcher.until_zero(NAME)
                self.say(f"round {cycle} of {_CYCLES}: one request wakes {NAME} from zero")
                cold.append(await load.one(everything))
                warm += [await load.one(everything) for _ in range(_WARM_REQUESTS)]
                self.say(
                    f"round {cycle} of {_CYCLES}: woken in {cold[-1] * 1000:.0f} ms; "
                    f"now {_CONCURRENCY} requests at a time"
                )
                await load.many(everything, _REQUESTS_PER_CYCLE, _CONCURRENCY, _LOAD_SECONDS)
                self.say(
                    f"round {cycle} of {_CYCLES}: {everything.requests} requests so far, "
                    f"{everything.failures.total()} failed; back to zero"
                )
                await self.watcher.until_zero(NAME)
                cycles += 1
        finally:
            await client.close()
        return ApiReport(
            requests=everything.requests,
            failed=everything.failures.total(),
            failures=dict(everything.failures),
            cold_start_ms=latency(cold),
            warm_ms=latency(warm),
            cycles_to_zero=cycles,
            max_instances=self.watcher.peak(NAME),
        )
