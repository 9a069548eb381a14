"""A client for one function, in this process: its own code, served by the runtime, with no socket between.

Requests go through the whole runtime: validation, limits, time-outs, CloudEvents. An exception that a handler
raises is raised in the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import orjson

from torpor.binding import (
    BATCH,
    STRUCTURED,
    WireEvent,
    decode,
    encode_batch,
    encode_structured,
    from_sdk,
    to_sdk,
)
from torpor.errors import HandlerError
from torpor.runtime.prepare import prepare
from torpor.runtime.replies import data_of
from torpor.settings import RuntimeSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import ModuleType

    from cloudevents.core.v1.event import CloudEvent

    from torpor.runtime.prepare import Prepared

_BASE_URL = "http://function.test"
_START_SECONDS = 30.0


class CallError(AssertionError):
    """A function did not take an event; ``status`` is what it answered, the text says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"the function answered {status}: {text}")
        self.status = status


class Client:
    """Calls one function. ``get``, ``post`` and the like are httpx's; ``send`` sends it an event."""

    def __init__(self, prepared: Prepared, settings: RuntimeSettings) -> None:
        self._prepared = prepared
        self._settings = settings
        self._raised: list[BaseException] = []
        self._runner = asyncio.Runner()
        self._lifespan: _Lifespan | None = None
        self._http: httpx.AsyncClient | None = None

    def __enter__(self) -> Self:
        self._runner.run(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._runner.run(self._close())
        finally:
            self._runner.close()

    async def _open(self) -> None:
        runtime = self._prepared.app.bind(self._settings)
        runtime.ready = True
        runtime.on_failure = self._raised.append
        self._lifespan = _Lifespan(self._prepared.app)
        await self._lifespan.start()
        transport = httpx.ASGITransport(app=self._prepared.app, raise_app_exceptions=True)
        self._http = httpx.AsyncClient(transport=transport, base_url=_BASE_URL)

    async def _close(self) -> None:
        if self._http is not None:
            await self._http.aclose()
        if self._lifespan is not None:
            await self._lifespan.stop()
        self._prepared.app.runtime.workers.close()

    # --- HTTP ---------------------------------------------------------------------------------------------

    def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        """Send a request; ``options`` are those of ``httpx.Client.request``."""
        if self._http is None:
            raise RuntimeError("use the client in a `with` block")
        response = self._runner.run(self._http.request(method, url, **options))
        if self._raised:
            raised = self._raised[:]
            self._raised.clear()
            raise raised[0]
        return response

    def get(self, url: str = "/", **options: Any) -> httpx.Response:
        """GET ``url``."""
        return self.request("GET", url, **options)

    def head(self, url: str = "/", **options: Any) -> httpx.Response:
        """HEAD ``url``."""
        return self.request("HEAD", url, **options)

    def options(self, url: str = "/", **options: Any) -> httpx.Response:
        """OPTIONS ``url``."""
        return self.request("OPTIONS", url, **options)

    def post(self, url: str = "/", **options: Any) -> httpx.Response:
        """POST to ``url``."""
        return self.request("POST", url, **options)

    def put(self, url: str = "/", **options: Any) -> httpx.Response:
        """PUT to ``url``."""
        return self.request("PUT", url, **options)

    def patch(self, url: str = "/", **options: Any) -> httpx.Response:
        """PATCH ``url``."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str = "/", **options: Any) -> httpx.Response:
        """DELETE ``url``."""
        return self.request("DELETE", url, **options)

    # --- events -------------------------------------------------------------------------------------------

    def send(self, type: str, data: Any = None, **attributes: str) -> list[CloudEvent]:  # noqa: A002
        """Send an event of ``type`` with ``data`` and return the events that the function replies with.

        ``data`` may be anything that has a form in JSON, bytes or text. ``attributes`` go into the event; its
        ``id`` and ``source`` are made up unless they are given. Raises what the handler raises, and
        :class:`CallError` when the function refuses the event or can't answer.
        """
        event = _event(type, data, attributes)
        return self._exchange(STRUCTURED, encode_structured(event))

    def send_event(self, event: CloudEvent) -> list[CloudEvent]:
        """Send an event as it is, and return the replies, as :meth:`send` does."""
        return self._exchange(STRUCTURED, encode_structured(from_sdk(event)))

    def send_group(self, type: str, parts: Iterable[Any], **attributes: str) -> list[CloudEvent]:  # noqa: A002
        """Send a joined group, one event of ``type`` for each of ``parts``, and return the replies.

        It is what a trigger with a ``join`` delivers.
        """
        items = list(parts)
        group = attributes.pop("fanoutid", None) or uuid.uuid4().hex
        place = {"fanoutid": group, "fanoutsize": str(len(items))}
        events = [
            _event(type, data, {**attributes, **place, "fanoutindex": str(index)})
            for index, data in enumerate(items)
        ]
        return self._exchange(BATCH, encode_batch(events))

    def _exchange(self, content_type: bytes, body: bytes) -> list[CloudEvent]:
        headers = {"content-type": content_type.decode()}
        response = self.request("POST", "/", content=body, headers=headers)
        if response.is_error:
            raise CallError(response.status_code, _reason(response))
        events = decode([(name.lower(), value) for name, value in response.headers.raw], response.content)
        return [to_sdk(event) for event in events or []]


def _event(kind: str, data: Any, attributes: Mapping[str, str]) -> WireEvent:
    named = {
        "specversion": "1.0",
        "id": uuid.uuid4().hex,
        "source": "/test",
        "type": kind,
        **{name: str(value) for name, value in attributes.items()},
    }
    if data is None:
        return WireEvent(named, None)
    content, content_type = data_of(data)
    named.setdefault("datacontenttype", content_type)
    return WireEvent(named, content)


def _reason(response: httpx.Response) -> str:
    try:
        document = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return response.text[:500]
    if isinstance(document, dict) and "detail" in document:
        return str(document["detail"])
    return response.text[:500]


class _Lifespan:
    """The start and end of the author's app, as a server brings them about."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._inbox: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._outbox: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises what the app raises, or :class:`~torpor.errors.HandlerError` with what it says."""
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        self._task = asyncio.create_task(self._serve(scope))
        await self._say("lifespan.startup")

    async def _serve(self, scope: dict[str, Any]) -> None:
        await self._app(scope, self._inbox.get, self._outbox.put)

    async def stop(self) -> None:
        """The same for the end."""
        if self._task is not None and not self._task.done():
            await self._say("lifespan.shutdown")
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _say(self, kind: str) -> None:
        if self._task is None:
            return
        await self._inbox.put({"type": kind})
        answer = asyncio.create_task(self._outbox.get())
        await asyncio.wait((answer, self._task), timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            if self._task.done() and self._task.exception() is not None:
                return  # an app that knows nothing of lifespans, as servers take it
            if not self._task.done():
                raise HandlerError(f"the app did not answer {kind} within {_START_SECONDS:g} seconds")
            return
        message = answer.result()
        if message["type"].endswith(".failed"):
            raise HandlerError(f"the app failed: {message.get('message', '')}")


# --- which function ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def function_client(
    folder: Path, name: str | None, blobs: Path, set_variable: Any, overrides: Mapping[str, Any] | None = None
) -> Iterator[Client]:
    """A client for the function ``name`` of ``folder``, or for the only one there is.

    ``blobs`` is a folder for its blobs. ``set_variable(name, value)`` sets an environment variable for as
    long as the client is there. Raises :class:`~torpor.errors.HandlerError` or
    :class:`~torpor.errors.DeclarationError`.
    """
    handler, source, settings = _declared(folder, name, set_variable)
    given = {**settings, "blobs_url": blobs.as_uri(), **(overrides or {})}
    with _own_modules(source):
        prepared = prepare(handler, source)
        with Client(prepared, RuntimeSettings(**given)) as client:
            yield client


def _declared(folder: Path, name: str | None, set_variable: Any) -> tuple[str, Path, dict[str, Any]]:
    """Handler, folder of the code, and settings of the function to call."""
    if not any(folder.glob("*.y*ml")):
        if name is not None and name != folder.name:
            return f"main:{name}", folder, {"service": name}
        return "main", folder, {"service": folder.name}
    from torpor.spec.load import load  # noqa: PLC0415 - needs the extra `platform`; a folder without YAML does not

    functions = load([folder], complete=False).functions
    chosen = [f for f in functions.values() if name is None or f.metadata.name == name]
    if len(chosen) != 1:
        names = ", ".join(sorted(f.metadata.name for f in functions.values())) or "none"
        wanted = f"no function {name!r}" if name else f"{len(chosen)} functions"
        raise HandlerError(
            f"there is {wanted} in {folder} (declared: {names}); choose one by"
            " @pytest.mark.torpor_function('NAME') or client_for('NAME')"
        )
    function = chosen[0]
    if function.spec.image_only:
        raise HandlerError(f"{function.key} is an image; spec.source, its code, was expected beside it")
    for variable, value in function.spec.variables.items():
        set_variable(variable, value)
    settings = {
        "service": function.metadata.name,
        "namespace": function.metadata.namespace,
        "container_concurrency": function.spec.container_concurrency,
        "timeout_seconds": function.spec.timeout_seconds,
        "max_body_bytes": function.spec.http.max_body_bytes,
    }
    return function.spec.code.handler, Path(function.spec.code.path), settings


@contextlib.contextmanager
def _own_modules(folder: Path) -> Iterator[None]:
    """Let the modules of ``folder`` be imported though others have the same names, and put those back
    after.
    """
    folder = folder.resolve()
    names = {path.stem for path in folder.glob("*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }
    others = {
        module: sys.modules.pop(module)
        for module in list(sys.modules)
        if module.partition(".")[0] in names and not _within(sys.modules[module], folder)
    }
    before, path = set(sys.modules), sys.path[:]
    try:
        yield
    finally:
        sys.path[:] = path
        for module in set(sys.modules) - before:
            if _within(sys.modules[module], folder):
                del sys.modules[module]
        sys.modules.update(others)


def _within(module: ModuleType | None, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve().is_relative_to(folder)
