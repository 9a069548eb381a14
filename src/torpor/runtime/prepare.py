"""Everything about a function that can be done before its process is forked.

After :func:`prepare` there is no event loop, lock, thread or socket that the author's module did not open
itself: a copy of the process can serve at once. What belongs to one process is made in
:mod:`torpor.runtime.server`.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uvicorn import Config

from torpor.runtime.app import LIVE, Application
from torpor.runtime.load import Target, load
from torpor.runtime.protocol import Protocol

if TYPE_CHECKING:
    from pathlib import Path

BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class Prepared:
    """A function that is ready to be served."""

    target: Target
    app: Application
    config: Config
    seconds: dict[str, float]
    """How long the phases took."""

    def describe(self) -> str:
        """What is served, in one line for a person."""
        parts = []
        plan, app = self.target.plan, self.target.app
        if plan is not None:
            taken = f"a list of {plan.takes.value}" if plan.many else plan.takes.value
            parts.append(f"{plan.name} ({plan.where}), {plan.style.value} that takes {taken}")
        if app is not None:
            parts.append(f"an ASGI app ({type(app).__name__})")
        return " and ".join(parts)


def prepare(handler: str, folder: Path | None) -> Prepared:
    """Import ``handler`` (``module`` or ``module:name``) from ``folder`` and make all ready to serve it.

    Raises :class:`~torpor.errors.HandlerError`, whose text is for the function's author.
    """
    began = time.perf_counter()
    target = load(handler, folder)
    imported = time.perf_counter()
    app = Application(target)
    build = getattr(target.app, "build_middleware_stack", None)
    if build is not None and getattr(target.app, "middleware_stack", True) is None:
        target.app.middleware_stack = build()
    config = _server_config(app)
    _warm(app)
    done = time.perf_counter()
    return Prepared(target, app, config, {"import": imported - began, "build": done - imported})


def _server_config(app: Application) -> Config:
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = Config(
        app,
        loop="uvloop",
        http=Protocol,
        ws="websockets-sansio",
        interface="asgi3",
        lifespan="auto",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
    )
    config.load()
    config.get_loop_factory()
    return config


def _warm(app: Application) -> None:
    """Serve one request to the runtime's own address, without an event loop: nothing on its way waits."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": LIVE,
        "raw_path": LIVE.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0),
        "state": {},
    }

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start" and message["status"] != 200:
            raise RuntimeError(f"the runtime's own address answered {message['status']}")

    serving = app(scope, receive, send).__await__()
    for _ in serving:
        break
    else:
        return
    raise RuntimeError("the runtime's own address waited for something")
