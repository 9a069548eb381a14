"""Calls on the log in memory, with functions and receivers of callbacks that answer as a test has them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torpor.events.call_intake import CallIntake
from torpor.events.call_reader import CallReader
from torpor.events.call_workers import CallWorkers
from torpor.events.callback_urls import REFUSED, Networks
from torpor.events.claims import Claims
from torpor.events.declared import Callee
from torpor.events.ingress import Ingress
from torpor.events.intake import Intake
from torpor.events.memory import MemoryLog
from torpor.events.recorder import Recorder
from torpor.events.stats import CallCounts, Stats
from torpor.testing.clock import MovableClock
from torpor.transport import Response
from torpor.transport.message import decode_fields

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from torpor.binding import Headers
    from torpor.events.log import EventLog
    from torpor.spec.calls import CallStatus

URL = "https://receiver.example/done?token=secret"
OK = Response(200, [(b"content-type", b"text/plain")], b"done")
CALLEES = {"default/f": Callee(timeout_seconds=30, methods=("POST", "PUT"), max_body_bytes=100)}


@dataclass
class Request:
    at: float
    to: str
    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    body: bytes
    timeout_seconds: float


@dataclass
class Far:
    """Functions and receivers of callbacks: ``Forwarder`` and ``Poster`` of ``torpor.events.sender``."""

    clock: MovableClock
    refused: Networks = field(default_factory=lambda: Networks(REFUSED))
    function: Callable[[int], Response | Exception] = lambda _: OK
    receiver: Callable[[int], Response | Exception] = lambda _: OK
    calls: list[Request] = field(default_factory=list)
    callbacks: list[Request] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def forward(
        self,
        function_key: str,
        method: bytes,
        target: bytes,
        fields: bytes,
        body: bytes,
        timeout_seconds: float,
    ) -> Response:
        at = self.clock.monotonic()
        headers = dict(decode_fields(fields))
        self.calls.append(Request(at, function_key, method, target, headers, body, timeout_seconds))
        number = len(self.calls)
        if self.gate is not None:
            await self.gate.wait()
        return _given(self.function(number))

    async def send(self, url: str, headers: Headers, body: bytes, timeout_seconds: float) -> Response:
        at = self.clock.monotonic()
        self.callbacks.append(Request(at, url, b"POST", b"", dict(headers), body, timeout_seconds))
        return _given(self.receiver(len(self.callbacks)))


def _given(answer: Response | Exception) -> Response:
    if isinstance(answer, Exception):
        raise answer
    return answer


class Process:
    """One events process, as far as calls go."""

    def __init__(self, log: EventLog, far: Far, clock: MovableClock, claims: Claims, *, shared: bool) -> None:
        self.stats = Stats()
        recorder = Recorder(log, clock, self.stats, "p")
        self.recorder = recorder
        self.workers = CallWorkers(
            log,
            far,
            clock,
            far,
            claims,
            self.stats,
            recorder,
            shared=shared,
        )
        self.intake = CallIntake(log, self.workers, claims, self.stats, recorder, far.refused)
        self.reader = CallReader(log, self.workers.is_running)
        self.ingress = Ingress(
            Intake(log, clock, self.stats), clock, self.stats, recorder=recorder, calls=self.intake
        )

    async def declare(self, callees: Mapping[str, Callee]) -> None:
        await self.workers.apply(callees)
        self.intake.set_callees(callees)

    @property
    def counts(self) -> CallCounts:
        return self.stats.of_function("default/f")


class CallWorld:
    def __init__(self) -> None:
        self.clock = MovableClock()
        self.memory = MemoryLog(self.clock)
        self.log: Any = self.memory
        self.far = Far(self.clock)
        self.claims = Claims(None)
        self.processes: list[Process] = []

    async def process(self, *, shared: bool = False) -> Process:
        made = Process(self.log, self.far, self.clock, self.claims, shared=shared)
        self.processes.append(made)
        await made.declare(CALLEES)
        return made

    async def post(
        self,
        process: Process,
        path: str = "/async-function/f",
        body: bytes = b"",
        *,
        method: str = "POST",
        **headers: str,
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        sent: list[Any] = []
        path, _, query = path.partition("?")

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }
        await process.ingress(scope, receive, send)
        return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]

    async def call(self, process: Process, path: str = "", body: bytes = b"", **headers: str) -> str:
        status, answered, problem = await self.post(process, f"/async-function/f{path}", body, **headers)
        assert status == 202, problem
        return answered[b"x-call-id"].decode()

    async def status(self, process: Process, call_id: str) -> CallStatus:
        await self.settle()
        found = await process.reader.status(call_id)
        assert found is not None
        return found

    async def settle(self) -> None:
        for _ in range(60):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        await self.settle()
        await self.clock.advance(seconds, self.settle)

    async def end(self, process: Process) -> None:
        """The process dies where it stands."""
        self.processes.remove(process)
        await process.workers.close(0.0)
        await process.recorder.close()


@asynccontextmanager
async def call_world() -> AsyncIterator[CallWorld]:
    made = CallWorld()
    try:
        yield made
    finally:
        for process in list(made.processes):
            await made.end(process)
