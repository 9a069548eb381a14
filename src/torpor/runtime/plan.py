"""What a handler's signature says of it: looked at once, when it is loaded, and never again.

It decides nothing about a single call; :mod:`torpor.runtime.inputs` makes arguments by the plan.
"""

from __future__ import annotations

import inspect
import typing
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from cloudevents.core.v1.event import CloudEvent
from pydantic import PydanticUserError, TypeAdapter

from torpor.errors import HandlerError
from torpor.runtime.context import Context

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.runtime.declare import Mark

_EXPECTED = "CloudEvent, a pydantic model, a dataclass, dict, bytes, str, a list of one of these, or Request"


class Takes(Enum):
    """What a handler's first parameter is given."""

    NOTHING = "nothing"
    EVENT = "a CloudEvent"
    DATA = "validated data"
    BYTES = "bytes"
    TEXT = "text"
    REQUEST = "an HTTP request"


class Style(Enum):
    """How a handler is called, and whether it gives one result or many."""

    CALL = "a function"
    COROUTINE = "an async function"
    GENERATOR = "a generator"
    ASYNC_GENERATOR = "an async generator"


@dataclass(frozen=True, slots=True)
class Plan:
    """A handler, and all there is to know of it before it is called.

    ``many`` says that it takes a list of what it ``takes``. ``adapter`` validates one item of data.
    ``context`` is where it takes the context: the name of a parameter, and whether it is the second one.
    ``where`` is its place in the author's file.
    """

    name: str
    function: Callable[..., Any]
    takes: Takes
    many: bool
    style: Style
    emits: str | None
    where: str
    adapter: TypeAdapter[Any] | None = None
    context: str | None = None

    @property
    def is_sync(self) -> bool:
        """Whether it runs in a worker thread."""
        return self.style in (Style.CALL, Style.GENERATOR)

    @property
    def yields(self) -> bool:
        """Whether it gives many results."""
        return self.style in (Style.GENERATOR, Style.ASYNC_GENERATOR)


def plan(handler: Callable[..., Any], mark: Mark) -> Plan:
    """The plan of ``handler``. Raises :class:`~torpor.errors.HandlerError` that says what is wrong."""
    name = getattr(handler, "__name__", type(handler).__name__)
    where = place(handler)
    try:
        signature = inspect.signature(handler)
        hints = _hints(handler)
    except (NameError, TypeError, ValueError, AttributeError) as error:
        raise HandlerError(f"{where}: the annotations of {name} can't be read: {error}") from error
    first, context = _parameters(signature, hints, f"{where}: {name}")
    takes, many, adapter = Takes.NOTHING, False, None
    if first is not None:
        takes, many, adapter = _takes(first, hints.get(first, inspect.Parameter.empty), f"{where}: {name}")
    return Plan(name, handler, takes, many, _style(handler), mark.emits, where, adapter, context)


def place(value: object) -> str:
    """``file:line`` of where ``value`` is written, as far as that is known."""
    try:
        target: Any = inspect.unwrap(value) if callable(value) else value
        code = getattr(target, "__code__", None)
        if code is not None:
            return f"{Path(code.co_filename).name}:{code.co_firstlineno}"
        return Path(inspect.getfile(target)).name
    except (TypeError, OSError):
        return getattr(value, "__module__", None) or "?"


def _hints(handler: Callable[..., Any]) -> dict[str, Any]:
    """The types of the parameters; what a function returns may be known to type checkers alone."""
    annotated: Any = inspect.unwrap(handler if inspect.isroutine(handler) else type(handler).__call__)
    given = {name: hint for name, hint in annotated.__annotations__.items() if name != "return"}
    names = getattr(inspect.unwrap(annotated), "__globals__", {})
    return typing.get_type_hints(SimpleNamespace(__annotations__=given), names, include_extras=True)


def _parameters(
    signature: inspect.Signature, hints: dict[str, Any], who: str
) -> tuple[str | None, str | None]:
    """Names of the parameter for the input and of the one for the context."""
    first = context = None
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if hints.get(parameter.name) is Context or (parameter.name == "ctx" and parameter.name not in hints):
            if parameter.kind is parameter.POSITIONAL_ONLY:
                raise HandlerError(f"{who}: '{parameter.name}' can't be positional-only")
            context = context or parameter.name
        elif first is None and context is None and parameter.kind is not parameter.KEYWORD_ONLY:
            first = parameter.name
        elif parameter.default is parameter.empty:
            raise HandlerError(
                f"{who} has a parameter '{parameter.name}' that nothing is given for; one for the input and"
                " one 'ctx: Context' were expected"
            )
    return first, context


def _takes(name: str, annotation: Any, who: str) -> tuple[Takes, bool, TypeAdapter[Any] | None]:
    if annotation is inspect.Parameter.empty:
        raise HandlerError(f"{who} does not say what '{name}' is; annotate it with {_EXPECTED}")
    many = annotation is list or typing.get_origin(annotation) is list
    if many:
        arguments = typing.get_args(annotation)
        annotation = arguments[0] if arguments else Any
    if annotation is CloudEvent:
        return Takes.EVENT, many, None
    if annotation is bytes:
        return Takes.BYTES, many, None
    if annotation is str:
        return Takes.TEXT, many, None
    if _is_request(annotation):
        if many:
            raise HandlerError(f"{who} takes a list of requests; one Request was expected")
        return Takes.REQUEST, False, None
    try:
        return Takes.DATA, many, TypeAdapter(annotation)
    except PydanticUserError as error:
        reason = str(error).partition("\n")[0]
        raise HandlerError(
            f"{who} takes '{name}: {annotation!r}', which can't be validated ({reason}); {_EXPECTED} was"
            " expected"
        ) from error


def _is_request(annotation: Any) -> bool:
    """Whether it is Starlette's ``Request`` or a class made from it, without importing Starlette for it."""
    return inspect.isclass(annotation) and any(
        base.__module__ == "starlette.requests" and base.__name__ == "Request" for base in annotation.__mro__
    )


def _style(handler: Callable[..., Any]) -> Style:
    called = handler if inspect.isroutine(handler) else type(handler).__call__
    if inspect.isasyncgenfunction(called):
        return Style.ASYNC_GENERATOR
    if inspect.iscoroutinefunction(called):
        return Style.COROUTINE
    if inspect.isgeneratorfunction(called):
        return Style.GENERATOR
    return Style.CALL
