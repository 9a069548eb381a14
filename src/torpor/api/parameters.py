"""What a route takes, by the names that requests give, and that it is given nothing else."""

from __future__ import annotations

from types import UnionType
from typing import Any, Union, get_args, get_origin

from fastapi import Request  # noqa: TC002 - FastAPI reads it at run time
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel


def names(request: Request, part: str) -> set[str]:
    """The fields that the route of ``request`` takes in its ``query`` or ``body``."""
    return set(_taken(request, part))


async def refuse_others(request: Request) -> None:
    """A dependency of every route: what it does not take would have meant something to its sender.

    That goes for a second value, too, where one is taken. Raises
    :class:`fastapi.exceptions.RequestValidationError`.
    """
    taken = _taken(request, "query")
    given = request.query_params
    faults = [_unknown(name, given[name]) for name in given if name not in taken] + [
        _repeated(name, values)
        for name, annotation in taken.items()
        if len(values := given.getlist(name)) > 1 and not _is_list(annotation)
    ]
    if faults:
        raise RequestValidationError(faults)


def _unknown(name: str, value: str) -> dict[str, Any]:
    """As pydantic says it of the field of a model."""
    return {"type": "extra_forbidden", "loc": ("query", name), "msg": "", "input": value}


def _repeated(name: str, values: list[str]) -> dict[str, Any]:
    """As pydantic says it of a value that a validator refuses."""
    expected = {"error": "one value was expected"}
    return {"type": "value_error", "loc": ("query", name), "msg": "", "input": values, "ctx": expected}


def _taken(request: Request, part: str) -> dict[str, Any]:
    """The annotation of each field that is taken."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return {}
    takes = {"query": route.dependant.query_params, "body": route.dependant.body_params}.get(part, [])
    fields: dict[str, Any] = {}
    for one in takes:
        annotation = one.field_info.annotation
        fields |= _fields(annotation) or {one.alias: annotation}
    return fields


def _fields(annotation: Any) -> dict[str, Any]:
    """Those of a model, of which each stands for itself in a request."""
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return {}
    return {field.alias or name: field.annotation for name, field in annotation.model_fields.items()}


def _is_list(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return any(_is_list(each) for each in get_args(annotation))
    return origin in (tuple, list)
