"""A whole platform in the test's own process: the functions, triggers and schedules of a folder, with a clock
to move.

Functions are the author's code on the real runtime, events go through the real ingress, filters, dispatcher
and joins; only the broker is in memory and time stands still. So retries and time-outs pass in milliseconds,
and a call returns when all has happened that needs no time to pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx
import pytest

from torpor.binding import STRUCTURED, encode_structured, to_sdk
from torpor.blobs import BlobStore
from torpor.errors import ConnectError, HandlerError
from torpor.events import names
from torpor.events.admission import Admission
from torpor.events.claims import Claims
from torpor.events.declared import Callee, Declared
from torpor.events.dispatcher import Dispatcher
from torpor.events.ingress import Ingress
from torpor.events.memory import MemoryLog
from torpor.events.names import DEFAULT_BROKER
from torpor.events.scheduler import Scheduler
from torpor.runtime.prepare import prepare
from torpor.settings import RuntimeSettings
from torpor.spec.load import load
from torpor.testing.client import CallError, _event, _Lifespan, _own_modules, _reason
from torpor.testing.clock import MovableClock
from torpor.transport import Response
from torpor.transport.message import decode_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, MutableMapping

    from cloudevents.core.v1.event import CloudEvent

    from torpor.runtime.app import Application
    from torpor.spec.models import Function

_T = TypeVar("_T")
_PATIENCE_SECONDS = 120.0
_IDLE_TURNS = 20  # of the loop, in which nothing happens any more; the longest chain of wakes takes fewer


class Platform:
    """The functions and triggers that ``folder`` declares, at work for as long as the block lasts.

    ``broker`` is the key of the broker that :meth:`send` and :meth:`events` mean: the one that the triggers
    read and the schedules fill. ``failures`` has what handlers raised, in order.
    """

    def __init__(self, folder: Path) -> None:
        declared = load([folder])
        for key, function in declared.functions.items():
            if function.spec.image_only:
                raise HandlerError(f"{key} is an image; spec.source, its code, was expected beside it")
        self._functions = declared.functions
        self._triggers = tuple(declared.triggers.values())
        self._schedules = tuple(declared.schedules.values())
        brokers = sorted(
            {
                *(trigger.broker_key for trigger in self._triggers),
                *(schedule.broker_key for schedule in self._schedules),
            }
        )
        self.broker = brokers[0] if len(brokers) == 1 else DEFAULT_BROKER
        self.failures: list[BaseException] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            blobs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="torpor-blobs-")))
            self._blobs = BlobStore(blobs.as_uri())
            self._set_variables(stack.enter_context(pytest.MonkeyPatch.context()))
            self._runner = stack.enter_context(asyncio.Runner())
            apps = self._prepare(stack)
            self.clock = MovableClock()
            self._log = MemoryLog(self.clock)
            self._sender = _AppSender(apps)
            claims = Claims(self._blobs)
            self._dispatcher = Dispatcher(self._log, self._sender, self.clock, claims=claims)
            self._scheduler = Scheduler(
                self._log, self.clock, self._dispatcher.stats, self._dispatcher.intake
            )
            self._admission = Admission(self.clock, self._dispatcher.stats, self._dispatcher.pending)
            self._ingress = Ingress(
                self._dispatcher.intake,
                self.clock,
                self._dispatcher.stats,
                claims=claims,
                admission=self._admission,
            )
            stack.callback(self._run, self._stop)
            self._run(lambda: self._start(blobs.as_uri()))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # --- what tests use -------------------------------------------------------------------------------------

    def send(self, type: str, data: Any = None, **attributes: str) -> CloudEvent:  # noqa: A002
        """Send an event to the broker, and return when all is done that follows from it without time.

        ``data`` may be anything that has a form in JSON, bytes or text. ``attributes`` go into the event,
        which is returned; its ``id`` and ``source`` are made up unless they are given. Raises
        :class:`~torpor.testing.client.CallError` when it is refused.
        """
        event = _event(type, data, attributes)
        self._run(lambda: self._send(encode_structured(event)))
        return to_sdk(event)

    def events(self, type: str | None = None) -> list[CloudEvent]:  # noqa: A002
        """The events that the broker has taken in, of one type or of all, in order."""
        return self._run(lambda: self._read(names.broker_stream(self.broker), type))

    def dead_letters(self) -> list[CloudEvent]:
        """The events that became dead letters; ``torporerror`` says why."""
        return self._run(lambda: self._read(names.dead_stream(self.broker), None))

    def advance(self, seconds: float) -> None:
        """Let time pass, with all that happens meanwhile."""
        self._run(lambda: self.clock.advance(seconds, self._settle))

    def put_blob(self, data: bytes, content_type: str | None = None) -> str:
        """Store a blob and return its reference, fit to be an event's ``dataref``."""
        return self._run(lambda: self._blobs.put(data, content_type))

    def get_blob(self, reference: str) -> bytes:
        """The blob that ``reference`` names."""
        return self._run(lambda: self._blobs.get(reference))

    # --- at work --------------------------------------------------------------------------------------------

    def _run(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        return self._runner.run(work())

    def _prepare(self, stack: contextlib.ExitStack) -> dict[str, tuple[Function, Application]]:
        apps: dict[str, tuple[Function, Application]] = {}
        sources: set[Path] = set()
        for function in sorted(self._functions.values(), key=lambda each: str(each.spec.code.path)):
            source = Path(function.spec.code.path)
            if source not in sources:
                sources.add(source)
                stack.enter_context(_own_modules(source))
            apps[function.key] = (function, prepare(function.spec.code.handler, source).app)
        return apps

    def _set_variables(self, patch: pytest.MonkeyPatch) -> None:
        given: dict[str, tuple[str, str]] = {}
        for key, function in self._functions.items():
            for variable, wanted in function.spec.variables.items():
                other, value = given.setdefault(variable, (key, wanted))
                if value != wanted:
                    raise HandlerError(
                        f"{key} and {other} want different values of {variable}, and here they run in"
                        " one process: test them apart"
                    )
                patch.setenv(variable, wanted)

    async def _start(self, blobs_url: str) -> None:
        await self._sender.start(blobs_url, self.failures)
        functions = {key: Callee.of(function) for key, function in self._functions.items()}
        brokers = {self.broker, *(schedule.broker_key for schedule in self._schedules)}
        declared = Declared(self._triggers, sorted(brokers), functions)
        await self._dispatcher.apply(declared)
        await self._scheduler.apply(self._schedules)
        self._admission.set_routes(self._dispatcher.all_routes())
        self._ingress.set_brokers(declared.all_brokers())

    async def _stop(self) -> None:
        await self._scheduler.close()
        await self._dispatcher.close()
        await self._ingress.close()
        await self._sender.stop()

    async def _send(self, body: bytes) -> None:
        status, _, answer = await _call(
            self._ingress, f"/events/{self.broker}", [(b"content-type", STRUCTURED)], body
        )
        if status != 202:
            raise CallError(status, _reason(httpx.Response(status, content=answer)))
        await self._settle()

    async def _read(self, stream: str, kind: str | None) -> list[CloudEvent]:
        key = ">" if kind is None else names.token(kind)
        return [to_sdk(stored.event) async for stored in self._log.read(stream, key)]

    async def _settle(self) -> None:
        """Return when nothing happens any more without time."""
        idle = 0
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while idle < _IDLE_TURNS:
                    if self._sender.under_way:
                        await self._sender.changed()
                    else:
                        await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop, no time
                    idle = 0 if self._busy() else idle + 1
        except TimeoutError:
            calls = ", ".join(sorted(set(self._sender.under_way))) or "no function is being called"
            raise AssertionError(f"the platform is busy for {_PATIENCE_SECONDS:g} s: {calls}") from None

    def _busy(self) -> bool:
        return bool(self._sender.under_way or self._dispatcher.busy)


class _AppSender:
    """Calls the functions' apps: a :class:`torpor.events.sender.Sender`."""

    def __init__(self, apps: dict[str, tuple[Function, Application]]) -> None:
        self._apps = apps
        self._lifespans: list[_Lifespan] = []
        self._news = asyncio.Event()
        self.under_way: list[str] = []

    async def start(self, blobs_url: str, failures: list[BaseException]) -> None:
        for function, app in self._apps.values():
            runtime = app.bind(
                RuntimeSettings(
                    service=function.metadata.name,
                    namespace=function.metadata.namespace,
                    container_concurrency=function.spec.container_concurrency,
                    timeout_seconds=function.spec.timeout_seconds,
                    max_body_bytes=function.spec.http.max_body_bytes,
                    blobs_url=blobs_url,
                )
            )
            runtime.ready = True
            runtime.on_failure = failures.append
            lifespan = _Lifespan(app)
            await lifespan.start()
            self._lifespans.append(lifespan)

    async def stop(self) -> None:
        for lifespan in reversed(self._lifespans):
            await lifespan.stop()
        for _, app in self._apps.values():
            app.runtime.workers.close()

    async def changed(self) -> None:
        """Return when a call has begun or ended."""
        self._news.clear()
        await self._news.wait()

    async def send(
        self,
        function_key: str,
        fields: bytes,
        body: bytes,
        timeout_seconds: float,  # noqa: ARG002 - the runtime's own time-out holds, in real time
    ) -> Response:
        if function_key not in self._apps:
            raise ConnectError(f"there is no function {function_key}")
        self.under_way.append(function_key)
        try:
            status, answered, content = await _call(
                self._apps[function_key][1], "/", decode_fields(fields), body
            )
        finally:
            self.under_way.remove(function_key)
            self._news.set()
        return Response(status, answered, content)


async def _call(app: Any, path: str, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> Any:
    """POST to an ASGI application; status, headers and body of its answer."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [*headers, (b"content-length", b"%d" % len(body))],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0),
        "state": {},
    }
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    ended = asyncio.get_running_loop().create_future()
    answer: list[MutableMapping[str, Any]] = []

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await asyncio.shield(ended)
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        answer.append(message)

    try:
        await app(scope, receive, send)
    finally:
        ended.set_result(None)
    start = answer[0]
    content = b"".join(message.get("body", b"") for message in answer[1:])
    return start["status"], [(name.lower(), value) for name, value in start["headers"]], content
