"""What all routes share: whom they ask, and how OpenAPI has what they may answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torpor.api.documents import ProblemDocument
from torpor.api.streams import MEDIA_TYPE

if TYPE_CHECKING:
    from fastapi import Request

    from torpor.api.backend import Backend
    from torpor.api.streams import Streams

PROBLEM: dict[str, Any] = {
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
}
"""How OpenAPI has the body of a problem."""
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {**PROBLEM, "description": "The request cannot be understood"},
    405: {**PROBLEM, "description": "This address does not take this method"},
    413: {**PROBLEM, "description": "What was sent is larger than allowed"},
    421: {**PROBLEM, "description": "This host name is not served here"},
    503: {**PROBLEM, "description": "The platform cannot do this at the moment"},
    "default": {"model": ProblemDocument, "description": "Any other problem"},
}
"""What every route may answer beside its own documents."""
MISSING: dict[int | str, dict[str, Any]] = {404: {**PROBLEM, "description": "There is no such thing"}}
LINES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One JSON document a line; empty lines mean nothing",
        "content": {MEDIA_TYPE: {"schema": {}}},
    }
}


def backend_of(request: Request) -> Backend:
    """The platform that the request is about."""
    backend: Backend = request.app.state.backend
    return backend


def streams_of(request: Request) -> Streams:
    """The open streams of the API."""
    streams: Streams = request.app.state.streams
    return streams
