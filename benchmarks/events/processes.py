"""Work in processes of its own, each with its own event loop; they are told when to begin."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
from typing import TYPE_CHECKING, Any

import uvloop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from multiprocessing.connection import Connection


class Gate:
    """Where a process waits to be let through, each time with what it says and what it is told."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    async def wait(self, said: object = None) -> Any:
        """Say something, and wait for the answer."""
        self._pipe.send(said)
        return await asyncio.to_thread(self._pipe.recv)


class Worker:
    """The other end."""

    def __init__(self, work: Callable[..., Coroutine[Any, Any, Any]], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(theirs, work, arguments), daemon=True)
        self._process.start()
        theirs.close()

    async def hear(self) -> Any:
        """What it says next: at a gate, or as its result. Raises ``EOFError`` when it ended by a fault."""
        return await asyncio.to_thread(self._pipe.recv)

    def tell(self, said: object = None) -> None:
        """Let it through the gate."""
        self._pipe.send(said)

    def end(self) -> None:
        """End it, if it has not ended by itself."""
        self._process.terminate()
        self._process.join()
        self._pipe.close()


def _run(pipe: Connection, work: Callable[..., Coroutine[Any, Any, Any]], arguments: tuple[Any, ...]) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        pipe.send(uvloop.run(work(Gate(pipe), *arguments)))


@contextlib.asynccontextmanager
async def working(work: Callable[..., Coroutine[Any, Any, Any]], *arguments: object) -> AsyncIterator[Worker]:
    """A worker, which ends with the block."""
    worker = Worker(work, *arguments)
    try:
        yield worker
    finally:
        worker.end()
