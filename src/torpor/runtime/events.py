"""What a handler for events makes of a call: arguments of the request, and replies of the result."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from torpor.binding import BATCH, STRUCTURED, WireEvent, decode_batch, decode_binary, decode_structured
from torpor.runtime import answers, bodies, metrics, partial, replies
from torpor.runtime.inputs import loader
from torpor.runtime.invoke import invoker

if TYPE_CHECKING:
    from torpor.binding import Headers
    from torpor.runtime.answers import Answer
    from torpor.runtime.calls import Call
    from torpor.runtime.plan import Plan
    from torpor.runtime.runtime import Runtime

_NOTHING = answers.nothing(metrics.OK)


class Events:
    """The handler of ``plan``, in one process."""

    def __init__(self, runtime: Runtime, plan: Plan) -> None:
        self.plan = plan
        self.maker = replies.Maker(runtime.source, plan.emits or f"{runtime.name}.replied")
        self.invoke = invoker(plan, runtime.workers, logging.getLogger(runtime.name), runtime.blobs)
        self._runtime = runtime
        self._load = loader(plan)
        self._many = plan.many
        self._max_body_bytes = runtime.settings.max_body_bytes

    async def serve(self, call: Call, receive: Any, mode: bytes) -> Answer:
        """Serve a request that says it is one or more events; ``mode`` is its media type."""
        runtime = self._runtime
        message = await receive()
        body = message.get("body")
        if body is None or message.get("more_body") or len(body) > self._max_body_bytes:
            body = await bodies.rest(message, receive, self._max_body_bytes)
        if mode == BATCH:
            return await self._serve_batch(call, receive, body)
        event = decode_structured(body) if mode == STRUCTURED else decode_binary(call.scope["headers"], body)
        call.events = [event]
        if runtime.spans is None and runtime.places.try_take():
            call.has_place = True
            runtime.metrics.queue_wait.observe_none()
        else:
            await runtime.enter(call, receive)
        if event.data is None and "dataref" in event.attributes:
            event = await self.fetched(event)
        argument = self._load(event)
        result = await self.invoke([argument] if self._many else argument, call)
        if result is None:
            return _NOTHING
        if self._many:
            values, positions = partial.split(result if self.plan.yields else [result])
            partial.header(positions, [event], understood=False)
            if not values:
                return _NOTHING
            result = values if self.plan.yields else values[0]
        return self._reply(result, replies.cause_of(event, self.maker, call.trace.attributes()))

    async def _serve_batch(self, call: Call, receive: Any, body: bytes) -> Answer:
        events = replies.in_order(decode_batch(body))
        if not events:
            return _NOTHING
        call.events = events
        await self._runtime.enter(call, receive)
        partly = call.headers.get(partial.ASKS) == partial.PARTIAL
        if not self._many:
            followed, failed = await self._each(call, partly=partly)
            return answers.batch(followed, metrics.OK, partial.header(failed, events, understood=partly))
        cause = replies.cause_of_batch(events, self.maker, call.trace.attributes())
        result = await self.invoke([await self.argument(event) for event in events], call)
        if result is None:
            return _NOTHING
        values, positions = partial.split(result if self.plan.yields else [result])
        named = partial.header(positions, events, understood=partly)
        if not values:
            return answers.nothing(metrics.OK, named)
        return self._reply(values if self.plan.yields else values[0], cause, named)

    async def _each(self, call: Call, *, partly: bool) -> tuple[list[WireEvent], list[int]]:
        """Replies to a batch of a handler for one event, which is called for each in turn.

        With ``partly``, the positions of events that it failed with come beside them; else a failure is one
        of all.
        """
        followed: list[WireEvent] = []
        failed: list[int] = []
        for index, event in enumerate(call.events):
            try:
                followed += await self._replies_to(event, call)
            except Exception as error:  # whatever an author's code raises is of this event alone
                if not partly:
                    raise
                self._runtime.note(error)
                failed.append(index)
        return followed, failed

    async def _replies_to(self, event: WireEvent, call: Call) -> list[WireEvent]:
        result = await self.invoke(await self.argument(event), call)
        if result is None:
            return []
        cause = replies.cause_of(event, self.maker, call.trace.attributes())
        if self.plan.yields:
            return replies.many(result, cause, self.maker, replies.now())
        return [replies.single(result, cause, self.maker, replies.now())]

    def _reply(self, result: Any, cause: replies.Cause, headers: Headers | None = None) -> Answer:
        if self.plan.yields:
            events = replies.many(result, cause, self.maker, replies.now())
            return answers.batch(events, metrics.OK, headers or [])
        reply = replies.single(result, cause, self.maker, replies.now())
        return answers.event(reply, metrics.OK, headers or [])

    async def argument(self, event: WireEvent) -> Any:
        """What the handler gets for ``event``, with its data fetched if it was checked in as a blob."""
        if event.data is None and "dataref" in event.attributes:
            event = await self.fetched(event)
        return self._load(event)

    async def fetched(self, event: WireEvent) -> WireEvent:
        """``event`` with the data that its ``dataref`` leads to."""
        data = await self._runtime.fetch(event.attributes["dataref"])
        return WireEvent({name: value for name, value in event.attributes.items() if name != "dataref"}, data)
