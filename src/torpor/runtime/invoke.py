"""Runs a handler: on the event loop or in a thread, for one result or for many.

What is made here, once a process, is a function of the argument and the call; how the handler wants to be
called is decided then, not at each call.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from torpor.runtime import groups
from torpor.runtime.context import Context
from torpor.runtime.plan import Style, Takes
from torpor.runtime.refusals import InvalidReplyError

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable

    from torpor.blobs import BlobStore
    from torpor.runtime.calls import Call
    from torpor.runtime.plan import Plan
    from torpor.runtime.workers import Workers

    Invoke = Callable[[Any, Call], Awaitable[Any]]


def invoker(plan: Plan, workers: Workers, logger: logging.Logger, blobs: BlobStore | None) -> Invoke:
    """How the handler of ``plan`` is run. The outcome of one that yields is the list of what it yielded."""
    bind = _binder(plan, logger, blobs)
    if plan.style is Style.COROUTINE:
        return _coroutine(plan, bind)
    if plan.style is Style.ASYNC_GENERATOR:
        return _async_generator(bind)
    return _threaded(bind, workers, collects=plan.style is Style.GENERATOR)


def _binder(plan: Plan, logger: logging.Logger, blobs: BlobStore | None) -> Callable[[Any, Call], Any]:
    """Calls the handler with as many arguments as it takes."""
    function, name = plan.function, plan.context
    if plan.takes is Takes.NOTHING:
        if name is None:
            return lambda _argument, _call: function()
        return lambda _argument, call: function(**{name: Context(call, logger, blobs)})
    if name is None:
        return lambda argument, _call: function(argument)
    return lambda argument, call: function(argument, **{name: Context(call, logger, blobs)})


def _coroutine(plan: Plan, bind: Callable[[Any, Call], Any]) -> Invoke:
    if plan.context is None and plan.takes is not Takes.NOTHING:
        function = plan.function
        return lambda argument, _call: function(argument)
    return bind


def _async_generator(bind: Callable[[Any, Call], Any]) -> Invoke:
    async def run(argument: Any, call: Call) -> list[Any]:
        generator = bind(argument, call)
        values: list[Any] = []
        try:
            async for value in generator:
                _add(values, value)
        finally:
            await generator.aclose()
        return values

    return run


def _threaded(bind: Callable[[Any, Call], Any], workers: Workers, *, collects: bool) -> Invoke:
    async def run(argument: Any, call: Call) -> Any:
        job = workers.submit(
            partial(_collect, bind, argument, call) if collects else partial(bind, argument, call)
        )
        call.job = job
        try:
            return await job.done
        except asyncio.CancelledError:
            if workers.withdraw(job):
                call.job = None
            raise

    return run


def _collect(bind: Callable[[Any, Call], Any], argument: Any, call: Call) -> list[Any]:
    values: list[Any] = []
    for value in bind(argument, call):
        _add(values, value)
    return values


def _add(values: list[Any], value: Any) -> None:
    if len(values) >= groups.MAX_PARTS:
        raise InvalidReplyError(
            f"the handler yielded more than {groups.MAX_PARTS} replies, the most of one group"
        )
    values.append(value)
