"""What a route takes, by the names that requests give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.routing import APIRoute
from pydantic import BaseModel

if TYPE_CHECKING:
    from fastapi import Request


def names(request: Request, part: str) -> set[str]:
    """The fields that the route of ``request`` takes in its ``query`` or ``body``."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return set()
    takes = {"query": route.dependant.query_params, "body": route.dependant.body_params}.get(part, [])
    return {name for one in takes for name in _fields(one.field_info.annotation) or [one.alias]}


def _fields(annotation: Any) -> list[str]:
    """Those of a model, of which each stands for itself in a request."""
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return []
    return [field.alias or name for name, field in annotation.model_fields.items()]
