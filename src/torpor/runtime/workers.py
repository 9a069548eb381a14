"""The threads in which handlers that are not async run, and how one of them is ended.

A thread can't be killed. What can be done is to raise an exception in it: it comes at the next step of
Python code, so it ends a loop, and not a call that is blocked outside Python, such as waiting for a lock. A
job that was interrupted and does not end is the caller's to judge (:class:`torpor.runtime.calls.Calls`
gives the instance up).

The interpreter does not wait for these threads when it ends, as it would for ``concurrent.futures``'.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections import deque
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_THREADS = 64
"""Most threads of a function without ``containerConcurrency``; further calls wait for one, in order."""


class Interrupted(BaseException):
    """Raised in a thread whose call has taken too long."""


class Job:
    """One call of a function in a worker thread. ``done`` is its outcome, on the event loop."""

    __slots__ = ("_context", "_lock", "_loop", "_thread", "done", "ended", "function", "on_end")

    def __init__(self, function: Callable[[], Any]) -> None:
        self._loop = asyncio.get_running_loop()
        self._context: Context = copy_context()
        self._lock = threading.Lock()
        self._thread: int | None = None
        self.function = function
        self.done: asyncio.Future[Any] = self._loop.create_future()
        self.ended = False
        self.on_end: Callable[[], None] | None = None
        """Called on the event loop when the thread has really ended its work."""

    def interrupt(self) -> None:
        """Raise :class:`Interrupted` in the job's thread, if it runs."""
        with self._lock:
            if self._thread is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread), ctypes.py_object(Interrupted)
                )

    def run(self) -> None:
        """Run it in this thread, and tell the event loop how it ended."""
        result: Any = None
        error: BaseException | None = None
        try:
            with self._lock:
                self._thread = threading.get_ident()
            result = self._context.run(self.function)
        except BaseException as raised:  # noqa: BLE001 - it goes to whoever waits for the outcome
            error = raised
        finally:
            self._close(result, error)

    def _close(self, result: Any, error: BaseException | None) -> None:
        try:
            with self._lock:
                self._thread = None
        finally:
            self._tell(result, error)

    def _tell(self, result: Any, error: BaseException | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._ended, result, error)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    def _ended(self, result: Any, error: BaseException | None) -> None:
        self.ended = True
        if not self.done.done():
            if error is None:
                self.done.set_result(result)
            elif isinstance(error, StopIteration):
                self.done.set_exception(RuntimeError("the handler raised StopIteration"))
            else:
                self.done.set_exception(error)
                self.done.exception()  # looked at: a caller that has gone is no reason for a warning
        if self.on_end is not None:
            on_end, self.on_end = self.on_end, None
            on_end()


class Workers:
    """Up to ``size`` threads, started as they are needed."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._idle: list[SimpleQueue[Job | None]] = []
        self._queue: deque[Job] = deque()
        self._threads = 0

    def submit(self, function: Callable[[], Any]) -> Job:
        """Run ``function`` in a thread, with the caller's context variables."""
        job = Job(function)
        if self._idle:
            self._idle.pop().put(job)
        elif self._threads < self._size:
            self._threads += 1
            inbox: SimpleQueue[Job | None] = SimpleQueue()
            inbox.put(job)
            loop = asyncio.get_running_loop()
            threading.Thread(target=self._work, args=(inbox, loop), name="handler", daemon=True).start()
        else:
            self._queue.append(job)
        return job

    def withdraw(self, job: Job) -> bool:
        """Take back a job that no thread has begun; False when one has."""
        try:
            self._queue.remove(job)
        except ValueError:
            return False
        return True

    def replace(self) -> None:
        """One thread is lost for good: another may be started in its place."""
        self._threads -= 1

    def close(self) -> None:
        """Let the idle threads end; those that work end with the process."""
        for inbox in self._idle:
            inbox.put(None)
        self._idle.clear()

    def _work(self, inbox: SimpleQueue[Job | None], loop: asyncio.AbstractEventLoop) -> None:
        """A thread's life. It ends when an interruption came: a second one may still be on its way."""
        try:
            while (job := inbox.get()) is not None:
                job.run()
                loop.call_soon_threadsafe(self._next, inbox)
                del job
        except Interrupted:
            self._lost(loop)
        except RuntimeError:
            return  # the loop is closed

    def _lost(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.call_soon_threadsafe(self._lost_one)
        except RuntimeError:
            return

    def _lost_one(self) -> None:
        self._threads -= 1
        if self._queue:
            job = self._queue.popleft()
            self._threads += 1
            inbox: SimpleQueue[Job | None] = SimpleQueue()
            inbox.put(job)
            loop = asyncio.get_running_loop()
            threading.Thread(target=self._work, args=(inbox, loop), name="handler", daemon=True).start()

    def _next(self, inbox: SimpleQueue[Job | None]) -> None:
        if self._queue:
            inbox.put(self._queue.popleft())
        else:
            self._idle.append(inbox)
