"""An API on a real port, served from a thread of its own, for tests whose client blocks."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from fastapi import FastAPI

from torpor import serving as server
from torpor.api.server import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torpor.serving import App

_PATIENCE_SECONDS = 30.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Served:
    """Where it is served, and the loop that serves it."""

    url: str
    loop: asyncio.AbstractEventLoop

    def run(self, function: Callable[[], T]) -> T:
        """Call ``function`` on the serving loop and return what it returns."""

        async def called() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(called(), self.loop).result(_PATIENCE_SECONDS)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when ``condition`` holds, seen from the serving loop.

        Raises :class:`TimeoutError` if it never does.
        """

        async def held() -> None:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while not condition():
                    await _turn()

        asyncio.run_coroutine_threadsafe(held(), self.loop).result()


async def _turn() -> None:
    loop = asyncio.get_running_loop()
    woken = loop.create_future()
    loop.call_later(0.001, woken.set_result, None)
    await woken


@contextlib.contextmanager
def served(app: FastAPI | App) -> Iterator[Served]:
    """Serve ``app``, an API or any other application, on a free loopback port until the block is left."""
    with asyncio.Runner() as runner, socket.create_server(("127.0.0.1", 0)) as listener:
        loop = runner.get_loop()
        end = asyncio.Event()
        thread = threading.Thread(target=runner.run, args=(_serve(app, listener, end),), name="served")
        thread.start()
        try:
            # The socket listens already: whoever connects first waits in its queue.
            yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", loop)
        finally:
            loop.call_soon_threadsafe(end.set)
            thread.join()


async def _serve(app: FastAPI | App, listener: socket.socket, end: asyncio.Event) -> None:
    if isinstance(app, FastAPI):
        async with serving(app, listener):
            await end.wait()
    else:
        async with server.serving(app, listener, grace_seconds=1):
            await end.wait()
