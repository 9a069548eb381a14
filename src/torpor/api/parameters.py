"""What a route takes, by the names that requests give, and that it is given nothing else."""

from __future__ import annotations

from typing import Any

from fastapi import Request  # noqa: TC002 - FastAPI reads it at run time
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel


def names(request: Request, part: str) -> set[str]:
    """The fields that the route of ``request`` takes in its ``query`` or ``body``."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return set()
    takes = {"query": route.dependant.query_params, "body": route.dependant.body_params}.get(part, [])
    return {name for one in takes for name in _fields(one.field_info.annotation) or [one.alias]}


async def refuse_others(request: Request) -> None:
    """A dependency of every route: what it does not take would have meant something to its sender.

    Raises :class:`fastapi.exceptions.RequestValidationError`.
    """
    others = [name for name in dict.fromkeys(request.query_params) if name not in names(request, "query")]
    if others:
        raise RequestValidationError([_unknown(name, request.query_params[name]) for name in others])


def _unknown(name: str, value: str) -> dict[str, Any]:
    """As pydantic says it of the field of a model."""
    return {"type": "extra_forbidden", "loc": ("query", name), "msg": "", "input": value}


def _fields(annotation: Any) -> list[str]:
    """Those of a model, of which each stands for itself in a request."""
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return []
    return [field.alias or name for name, field in annotation.model_fields.items()]
