"""``/api/v1``: the REST API of a running platform.

:func:`create` puts together what every request passes (:mod:`torpor.api.edge`), how errors look
(:mod:`torpor.api.refusals`), and the routes. The API shows and streams; it decides nothing, and changes
nothing but blobs and dead letters: what runs is declared in files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse

from torpor.api import answers, call_routes, history_routes, letter_routes, reference, refusals, routes
from torpor.api.edge import Edge
from torpor.api.parameters import refuse_others
from torpor.api.streams import Streams
from torpor.blobs import MAX_BLOB_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection

    from fastapi.routing import APIRoute

    from torpor.api.backend import Backend


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """How an API is served, beside what it serves.

    ``allowed_hosts`` are host names and addresses beside those of the loopback interface, ``*.example.com``
    for all below one and ``*`` for any; ``max_body_bytes`` holds for every path but blobs.
    """

    allowed_hosts: Collection[str] = field(default_factory=frozenset)
    max_body_bytes: int = 64 * 1024
    max_blob_bytes: int = MAX_BLOB_BYTES
    max_streams: int = 64
    quiet_seconds: float = 15.0


class _Api(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The document that FastAPI makes, with problems in the media type that they have."""
        document = super().openapi()
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"]["default"] |= answers.PROBLEM
        return document


def create(backend: Backend, options: ApiOptions | None = None) -> FastAPI:
    """The API of the platform that ``backend`` stands for."""
    chosen = options or ApiOptions()
    app = _Api(
        title="Torpor",
        version="1",
        summary="What runs on this platform, its logs, its events and its blobs.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
    )
    app.state.backend = backend
    app.state.streams = Streams(chosen.max_streams, chosen.quiet_seconds)
    for router in (routes.router, call_routes.router, history_routes.router, letter_routes.router):
        app.include_router(
            router, prefix="/api/v1", responses=answers.PROBLEMS, dependencies=[Depends(refuse_others)]
        )
    app.add_api_route("/api/v1/docs", _docs, include_in_schema=False)
    refusals.install(app)

    def limit_bytes(path: str) -> int:
        return chosen.max_blob_bytes if path == "/api/v1/blobs" else chosen.max_body_bytes

    app.add_middleware(Edge, allowed_hosts=chosen.allowed_hosts, limit_bytes=limit_bytes)
    return app


async def _docs(request: Request) -> HTMLResponse:
    return HTMLResponse(reference.page(request.app.openapi()), headers=reference.HEADERS)


def _operation_id(route: APIRoute) -> str:
    first, *others = route.name.split("_")
    return first + "".join(word.capitalize() for word in others)
