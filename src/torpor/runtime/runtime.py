"""One function in one process: takes a call in, runs it within its limits, and answers.

This is the way of every event, so nothing is looked up here that could be known before, and a call makes no task,
timer or log line of its own. Plain HTTP is in :mod:`torpor.runtime.plain`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from torpor.binding import BATCH, STRUCTURED, WireEvent, decode_batch, decode_binary, decode_structured
from torpor.blobs import BlobStore
from torpor.errors import BlobError, BlobNotFoundError, MalformedEventError
from torpor.problems import ProblemType
from torpor.runtime import answers, bodies, metrics, replies
from torpor.runtime.calls import CURRENT, Call, Calls
from torpor.runtime.inputs import loader
from torpor.runtime.invoke import invoker
from torpor.runtime.memory import resident_bytes
from torpor.runtime.places import Places
from torpor.runtime.plan import Plan
from torpor.runtime.refusals import InvalidReplyError, RefusalError
from torpor.runtime.workers import MAX_THREADS, Interrupted, Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.runtime.answers import Answer
    from torpor.runtime.load import Target
    from torpor.settings import RuntimeSettings

_LOG = logging.getLogger("torpor.runtime")


class Runtime:
    """A function, bound to the settings of this process and to its event loop.

    ``on_doom`` is called once when a call can't be ended, so that the instance must be; ``on_failure`` with what
    a handler raised.
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
        self.default_headers: list[tuple[bytes, bytes]] = []
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
        self._rescues: set[asyncio.Task[None]] = set()
        self.plan = target.plan
        if target.plan is not None:
            self._prepare(target.plan)

    def _prepare(self, plan: Plan) -> None:
        self.maker = replies.Maker(self.source, plan.emits or f"{self.name}.replied")
        self.load = loader(plan)
        self.invoke = invoker(plan, self.workers, logging.getLogger(self.name), self.blobs)

    # --- events -------------------------------------------------------------------------------------------

    async def serve_event(
        self, scope: Any, receive: Any, send: Any, headers: dict[bytes, bytes], mode: bytes
    ) -> None:
        """Serve a request that says it is one or more events; ``mode`` is its media type."""
        call = self.begin(scope, headers, send)

        async def work() -> Answer:
            bodies.check_length(headers, self.settings.max_body_bytes)
            body = await bodies.read(receive, self.settings.max_body_bytes)
            batched = mode == BATCH
            if batched:
                call.events = decode_batch(body)
            elif mode == STRUCTURED:
                call.events = [decode_structured(body)]
            else:
                call.events = [decode_binary(scope["headers"], body)]
            if not call.events:
                return answers.nothing(metrics.OK)
            await self.enter(call, receive)
            return await self._answer_events(call, batched=batched)

        await self.run(call, work)

    async def _answer_events(self, call: Call, *, batched: bool) -> Answer:
        assert self.plan is not None
        if self.plan.many:
            return await self._answer_many(call, batched=batched)
        if not batched:
            event = call.events[0]
            result = await self.invoke(await self.argument(event), call)
            if result is None:
                return answers.nothing(metrics.OK)
            cause = replies.cause_of(event, call.trace.attributes())
            return self._reply(result, cause)
        return answers.batch(await self._each(call), metrics.OK)

    async def _answer_many(self, call: Call, *, batched: bool) -> Answer:
        trace = call.trace.attributes()
        if batched:
            events = call.events = replies.in_order(call.events)
            cause = replies.cause_of_batch(events, trace)
        else:
            events = call.events
            cause = replies.cause_of(events[0], trace)
        result = await self.invoke([await self.argument(event) for event in events], call)
        return answers.nothing(metrics.OK) if result is None else self._reply(result, cause)

    async def _each(self, call: Call) -> list[WireEvent]:
        """Replies of a handler for one event to a batch: it is called for each in turn; all of them or none."""
        assert self.plan is not None
        followed: list[WireEvent] = []
        for event in call.events:
            result = await self.invoke(await self.argument(event), call)
            if result is None:
                continue
            cause = replies.cause_of(event, call.trace.attributes())
            if self.plan.yields:
                followed += replies.many(result, cause, self.maker, replies.now())
            else:
                followed.append(replies.single(result, cause, self.maker, replies.now()))
        return followed

    def _reply(self, result: Any, cause: replies.Cause) -> Answer:
        assert self.plan is not None
        if self.plan.yields:
            return answers.batch(replies.many(result, cause, self.maker, replies.now()), metrics.OK)
        return answers.event(replies.single(result, cause, self.maker, replies.now()), metrics.OK)

    async def argument(self, event: WireEvent) -> Any:
        """What the handler gets for ``event``, with its data fetched if it was checked in as a blob."""
        if event.data is None and "dataref" in event.attributes:
            event = await self._fetched(event)
        return self.load(event)

    async def _fetched(self, event: WireEvent) -> WireEvent:
        reference = event.attributes["dataref"]
        try:
            if self.blobs is None:
                raise BlobNotFoundError("there is no blob store here")
            data = await self.blobs.get(reference)
        except BlobNotFoundError as error:
            raise RefusalError(
                ProblemType.INVALID_DATA, f"The event's data can't be had: {error}."
            ) from error
        except BlobError as error:
            _LOG.exception("a blob could not be read")
            raise RefusalError(
                ProblemType.UNAVAILABLE, "The event's data can't be read at the moment."
            ) from error
        attributes = {name: value for name, value in event.attributes.items() if name != "dataref"}
        return WireEvent(attributes, data)

    # --- one call -----------------------------------------------------------------------------------------

    def begin(self, scope: Any, headers: dict[bytes, bytes], send: Any) -> Call:
        """A new call, which is under way from now on."""
        started = time.monotonic()
        call = Call(scope, headers, send, started + self.calls.timeout_seconds, started)
        call.task = asyncio.current_task()
        CURRENT.set(call)
        self.calls.begin(call)
        return call

    async def enter(self, call: Call, receive: Any = None) -> None:
        """Take a place, waiting for it if need be; a caller that leaves while it waits is not served."""
        if self.places.try_take():
            self.metrics.queue_wait.observe(0.0)
        else:
            await self._wait(receive)
            self.metrics.queue_wait.observe(time.monotonic() - call.started)
        call.has_place = True

    async def _wait(self, receive: Any) -> None:
        if receive is None:
            await self.places.take()
            return
        turn = asyncio.ensure_future(self.places.take())
        gone = asyncio.ensure_future(receive())
        try:
            await asyncio.wait((turn, gone), return_when=asyncio.FIRST_COMPLETED)
            if not turn.done():
                raise bodies.GoneError
        finally:
            gone.cancel()
            if turn.done() and not turn.cancelled():
                turn.result()
            else:
                turn.cancel()

    async def run(self, call: Call, work: Callable[[], Any]) -> None:
        """Do ``work`` for ``call`` and send the answer that comes of it, or of what went wrong."""
        try:
            answer: Answer | None = await work()
            if answer is None and not call.timed_out:
                return  # it was sent already
        except (RefusalError, MalformedEventError) as error:
            answer = refused(error, call)
        except asyncio.CancelledError:
            if not call.timed_out:
                raise
            if call.task is not None:
                call.task.uncancel()
            answer = None
        except Interrupted:
            call.timed_out = True  # by the watchdog: the handler had blocked the event loop
            answer = None
        except bodies.GoneError:
            self.metrics.outcomes[metrics.GONE] += 1
            return
        except InvalidReplyError as error:
            answer = self._invalid_reply(error, call)
        except BaseException as error:  # noqa: BLE001 - whatever an author's code raises must not end the instance
            answer = self._failed(error, call)
        finally:
            self.left(call)
        if call.abandoned:
            return  # the caller has its 504 already
        if call.timed_out or answer is None:
            answer = self._timed_out(call)
        if call.started_response:
            self.metrics.outcomes[answer.outcome] += 1
            return  # too late for another: the server ends the connection, so that the caller sees it broken
        self.metrics.outcomes[answer.outcome] += 1
        self.metrics.duration.observe(time.monotonic() - call.started)
        call.started_response = True
        await call.send(answer.start)
        await call.send(answer.body)

    def left(self, call: Call) -> None:
        """Free the call's place, as soon as its work has really ended."""
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

    def _timed_out(self, call: Call) -> Answer:
        _LOG.warning("a call took longer than %g seconds and was ended", self.calls.timeout_seconds)
        detail = f"The function did not answer within {self.calls.timeout_seconds:g} seconds."
        return answers.problem(ProblemType.TIMED_OUT, detail, call.request_id, metrics.TIMED_OUT)

    def _failed(self, error: BaseException, call: Call) -> Answer:
        if self.on_failure is not None:
            self.on_failure(error)
        _LOG.error("the handler failed: %s", error, exc_info=error)
        detail = f"The handler of '{self.name}' raised an error; its log has the rest."
        return answers.problem(ProblemType.HANDLER_FAILED, detail, call.request_id, metrics.FAILED)

    def _invalid_reply(self, error: InvalidReplyError, call: Call) -> Answer:
        _LOG.error("the handler's reply can't be sent: %s", error)
        detail = f"What the handler of '{self.name}' gave back can't be sent; its log says why."
        return answers.problem(ProblemType.INVALID_REPLY, detail, call.request_id, metrics.INVALID_REPLY)

    # --- calls that do not end ----------------------------------------------------------------------------

    def _give_up(self, call: Call) -> None:
        """A call was told to end and did not: answer its caller, and let the instance be replaced."""
        self.doomed = "a call does not end though its time is up"
        _LOG.error("a call does not end though its time is up: this instance ends and has to be replaced")
        if call.has_place:  # others may go on while the instance ends
            call.has_place = False
            self.places.free()
        job = call.job
        if job is None or call.task is None or not call.task.done():
            self._rescue(call)
        if self.on_doom is not None:
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


def refused(error: RefusalError | MalformedEventError, call: Call) -> Answer:
    """The answer to a request that can't be served as it is."""
    if isinstance(error, MalformedEventError):
        text = str(error)
        return answers.problem(
            ProblemType.MALFORMED_EVENT, f"{text[:1].upper()}{text[1:]}.", call.request_id, metrics.REFUSED
        )
    return answers.problem(
        error.problem_type, error.detail, call.request_id, metrics.REFUSED, error.extras, error.headers
    )
