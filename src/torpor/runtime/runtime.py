"""One function in one process: takes a call in, runs it within its limits, and answers.

This is the way of every event, so nothing is looked up here that could be known before, and a call makes no
task, timer or log line of its own. What a call's events are and what follows from them is in
:mod:`torpor.runtime.events`; plain HTTP is in :mod:`torpor.runtime.plain`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from torpor.blobs import BlobStore
from torpor.errors import BlobError, BlobNotFoundError, MalformedEventError, TorporError
from torpor.problems import ProblemType
from torpor.runtime import answers, bodies, metrics
from torpor.runtime.calls import CURRENT, Call, Calls
from torpor.runtime.memory import resident_bytes
from torpor.runtime.places import Places
from torpor.runtime.protocol import write_whole
from torpor.runtime.refusals import InvalidReplyError, RefusalError, RejectError, RetryError
from torpor.runtime.workers import MAX_THREADS, Interrupted, Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from torpor.runtime.answers import Answer
    from torpor.runtime.events import Events
    from torpor.runtime.load import Target
    from torpor.runtime.spans import Spans
    from torpor.settings import RuntimeSettings

_LOG = logging.getLogger("torpor.runtime")


class Runtime:
    """A function, bound to the settings of this process and to its event loop.

    ``on_doom`` is called once when a call can't be ended, so that the instance must be; ``on_failure`` with
    what a handler raised.
    """

    def __init__(self, target: Target, settings: RuntimeSettings) -> None:
        self.target = target
        self.settings = settings
        self.name = settings.service or target.name
        self.source = f"/{settings.namespace}/{self.name}"
        self.doomed: str | None = None
        self.draining = False
        self.ready = False
        self.on_doom: Callable[[], None] | None = None
        self.on_failure: Callable[[BaseException], None] | None = None
        self.places = Places(settings.container_concurrency)
        self.calls = Calls(settings.timeout_seconds, self._give_up)
        self.workers = Workers(settings.container_concurrency or MAX_THREADS)
        self.metrics = metrics.Metrics(
            {
                "in_flight": lambda: self.places.taken,
                "queued": lambda: self.places.waiting,
                "memory_bytes": resident_bytes,
                "draining": lambda: float(self.draining),
            },
            {"function": self.name, "namespace": settings.namespace, "revision": settings.revision},
        )
        self.blobs = BlobStore(settings.blobs_url) if settings.blobs_url else None
        self.spans: Spans | None = None
        """Where traces are exported; :mod:`torpor.runtime.server` sets it."""
        self.events: Events | None = None
        """The handler, if there is one; :class:`torpor.runtime.app.Application` sets it."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rescues: set[asyncio.Task[None]] = set()

    def begin(self, scope: Any, headers: dict[bytes, bytes], send: Any) -> Call:
        """A new call, which is under way from now on."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        call = Call(scope, headers, send, asyncio.current_task(self._loop))
        CURRENT.set(call)
        self.calls.begin(call)
        return call

    async def enter(self, call: Call, receive: Any = None) -> None:
        """Take a place, waiting for it if need be; a caller that leaves while it waits is not served."""
        if self.spans is not None:
            self.spans.begin(call)
        if self.places.try_take():
            call.has_place = True
            self.metrics.queue_wait.observe_none()
            return
        waits = time.monotonic()
        if receive is None:
            await self.places.take()
        else:
            await self._wait(receive)
        call.has_place = True
        self.metrics.queue_wait.observe(time.monotonic() - waits)

    async def _wait(self, receive: Any) -> None:
        """Wait for a place, or raise :class:`~torpor.runtime.bodies.GoneError` when the caller leaves."""
        turn = asyncio.ensure_future(self.places.take())
        gone = asyncio.ensure_future(receive())
        try:
            await asyncio.wait((turn, gone), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._turn_down(turn)
            raise
        finally:
            gone.cancel()
        if not turn.done():
            self._turn_down(turn)
            raise bodies.GoneError

    def _turn_down(self, turn: asyncio.Future[None]) -> None:
        """Wait for a place no more; one that came at the same moment goes to the next."""
        if turn.done() and not turn.cancelled():
            self.places.free()
        turn.cancel()

    async def run(self, call: Call, work: Coroutine[Any, Any, Answer | None]) -> None:
        """Do ``work`` for ``call`` and send the answer that comes of it, or of what went wrong.

        Work that gives no answer has sent one itself.
        """
        try:
            answer = await work
        except BaseException as error:  # noqa: BLE001 - whatever an author's code raises must not end the instance
            answer = self._answer_to(error, call)
        self.leave(call)
        if call.timed_out:
            if call.abandoned:
                return  # the caller has its 504 already
            answer = self._timed_out(call)
        if answer is None:
            if self.spans is not None:
                self.spans.end(call, "", call.status)
            return
        if self.spans is not None:
            self.spans.end(call, answer.outcome, answer.start["status"])
        self.metrics.outcomes[answer.outcome] += 1
        if call.started_response:
            return  # too late for another: the server ends the connection, so that the caller sees it broken
        self.metrics.duration.observe(time.monotonic() - call.started)
        call.started_response = True
        send = call.send
        if not write_whole(send, answer.start, answer.body["body"]):
            await send(answer.start)
            await send(answer.body)

    def leave(self, call: Call) -> None:
        """The call's task is done with it; its place is freed as soon as its work has really ended."""
        call.task = None  # no cycle is left for the garbage collector
        job = call.job
        if job is not None and not job.ended:
            job.on_end = lambda: self._end(call)
        else:
            self._end(call)

    def _end(self, call: Call) -> None:
        self.calls.end(call)
        if call.has_place:
            call.has_place = False
            self.places.free()

    # --- what goes wrong ----------------------------------------------------------------------------------

    def _answer_to(self, error: BaseException, call: Call) -> Answer | None:
        """The answer to a call in which ``error`` was raised; raises it again if it is nobody's answer."""
        if isinstance(error, asyncio.CancelledError):
            return self._answer_to_cancelled(error, call)
        if isinstance(error, Interrupted):
            call.timed_out = True  # by the watchdog: the handler had blocked the event loop
            self.calls.end_blocked(call)
            return None
        if isinstance(error, bodies.GoneError):
            self.metrics.outcomes[metrics.GONE] += 1
            return None
        if isinstance(error, RefusalError | MalformedEventError):
            if isinstance(error, RejectError | RetryError):
                self._note_declined(error)
            return _refused(error, call)
        if isinstance(error, InvalidReplyError):
            _LOG.error("the handler's reply can't be sent: %s", error)
            detail = f"What the handler of '{self.name}' gave back can't be sent; its log says why."
            return answers.problem(ProblemType.INVALID_REPLY, detail, call.request_id, metrics.INVALID_REPLY)
        self._note_failed(error)
        detail = f"The handler of '{self.name}' raised an error; its log has the rest."
        return answers.problem(ProblemType.HANDLER_FAILED, detail, call.request_id, metrics.FAILED)

    def note(self, error: Exception) -> None:
        """A handler raised ``error``, which is not the answer to the whole call."""
        if isinstance(error, RejectError | RetryError):
            self._note_declined(error)
        elif isinstance(error, RefusalError | MalformedEventError | InvalidReplyError):
            _LOG.warning("an event of a batch could not be handled: %s", error)
        else:
            self._note_failed(error)

    def _note_failed(self, error: BaseException) -> None:
        if self.on_failure is not None:
            self.on_failure(error)
        _LOG.error("the handler failed: %s", _said(error), exc_info=error)

    def _note_declined(self, error: RejectError | RetryError) -> None:
        if self.on_failure is not None:
            self.on_failure(error)
        _LOG.warning("the handler declined: %s", error)

    def _answer_to_cancelled(self, error: asyncio.CancelledError, call: Call) -> Answer | None:
        if not (call.timed_out or self.draining):
            self.leave(call)
            raise error
        if call.task is not None:
            call.task.uncancel()
        if call.timed_out:
            return None
        detail = "The instance had to end before the function answered."
        return answers.problem(ProblemType.DRAINING, detail, call.request_id, metrics.CUT)

    def _timed_out(self, call: Call) -> Answer:
        _LOG.warning("a call took longer than %g seconds and was ended", self.calls.timeout_seconds)
        detail = f"The function did not answer within {self.calls.timeout_seconds:g} seconds."
        return answers.problem(ProblemType.TIMED_OUT, detail, call.request_id, metrics.TIMED_OUT)

    def _give_up(self, call: Call) -> None:
        """A call was told to end and did not: answer its caller, and let the instance be replaced."""
        first = self.doomed is None
        self.doomed = "a call does not end though its time is up"
        _LOG.error("a call does not end though its time is up: this instance ends and has to be replaced")
        if call.has_place:  # others may go on while the instance ends
            call.has_place = False
            self.places.free()
        if call.task is not None:
            self._rescue(call)
        if first and self.on_doom is not None:
            self.on_doom()

    def _rescue(self, call: Call) -> None:
        """Send 504 from outside the task that should have."""
        if call.abandoned or call.started_response:
            return
        call.abandoned = True
        answer = self._timed_out(call)
        self.metrics.outcomes[answer.outcome] += 1

        async def send() -> None:
            await call.send(answer.start)
            await call.send(answer.body)

        task = asyncio.get_running_loop().create_task(send())
        self._rescues.add(task)
        task.add_done_callback(self._rescues.discard)

    # --- blobs --------------------------------------------------------------------------------------------

    async def fetch(self, reference: str) -> bytes:
        """The data that was checked in at ``reference``. Raises :class:`RefusalError`."""
        if self.blobs is None:
            raise RefusalError(
                ProblemType.INVALID_DATA, "The event's data is a blob, and there is no blob store here."
            )
        try:
            return await self.blobs.get(reference)
        except BlobNotFoundError as error:
            raise RefusalError(
                ProblemType.INVALID_DATA, f"The event's data is not there: {error}."
            ) from error
        except BlobError as error:
            _LOG.error("a blob could not be read: %s", error)
            detail = "The event's data can't be read at the moment."
            raise RefusalError(ProblemType.UNAVAILABLE, detail) from error


def _refused(error: TorporError, call: Call) -> Answer:
    """The answer to a request that can't be served as it is."""
    if isinstance(error, RefusalError):
        return answers.problem(
            error.problem_type, error.detail, call.request_id, metrics.REFUSED, error.extras, error.headers
        )
    text = str(error)
    detail = f"{text[:1].upper()}{text[1:]}."
    return answers.problem(ProblemType.MALFORMED_EVENT, detail, call.request_id, metrics.REFUSED)


def _said(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - an author's exception may fail to say what it is
        return type(error).__name__
