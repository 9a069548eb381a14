"""The routes of ``/api/v1``: each asks the backend, and answers with a document, a stream or a problem."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, TypeVar

from fastapi import APIRouter, Query, Request, Response
from pydantic import WithJsonSchema
from starlette.responses import StreamingResponse

from torpor.api.answers import LINES, MISSING, backend_of, streams_of
from torpor.api.documents import BrokerList, FunctionList, Health, ScheduleList, StoredBlob, TriggerList
from torpor.api.refusals import RefusalError, unknown, unknown_broker
from torpor.binding import WireEvent, encode_structured
from torpor.blobs.base import ANSWER_HEADERS, WRONG_TYPE, is_type
from torpor.problems import ProblemType
from torpor.spec import selectors
from torpor.spec.status import (
    BrokerStatus,
    FunctionStatus,
    LogLine,
    PlatformStatus,
    ScheduleStatus,
    TriggerStatus,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from torpor.api.backend import Backend

MAX_TAILLINES = 10_000
_BLOB_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")

router = APIRouter()
_FilterText = Annotated[
    str, WithJsonSchema({"type": "string", "pattern": selectors.FORM, "maxLength": selectors.MAX_LENGTH})
]
R = TypeVar("R", FunctionStatus, TriggerStatus, ScheduleStatus, BrokerStatus)


def _key(resource: FunctionStatus | TriggerStatus | ScheduleStatus | BrokerStatus) -> str:
    return f"{resource.namespace}/{resource.name}"


def _sorted(resources: Iterable[R]) -> list[R]:
    return sorted(resources, key=lambda resource: (resource.namespace, resource.name))


async def _function(backend: Backend, namespace: str, name: str) -> FunctionStatus:
    key = f"{namespace}/{name}"
    found = await backend.function(key)
    if found is None:
        known = [_key(function) for function in await backend.functions()]
        raise unknown(ProblemType.UNKNOWN_FUNCTION, "function", key, known)
    return found


@router.get("/functions", tags=["functions"])
async def list_functions(request: Request) -> FunctionList:
    """Every declared function, with its instances."""
    return FunctionList(items=_sorted(await backend_of(request).functions()))


@router.get("/functions/{namespace}/{name}", tags=["functions"], responses=MISSING)
async def get_function(request: Request, namespace: str, name: str) -> FunctionStatus:
    """One function."""
    return await _function(backend_of(request), namespace, name)


@router.get(
    "/functions/{namespace}/{name}/logs",
    tags=["functions"],
    response_class=StreamingResponse,
    responses={**MISSING, **LINES},
)
async def get_function_logs(
    request: Request,
    namespace: str,
    name: str,
    *,
    tail: Annotated[
        int, Query(ge=0, le=MAX_TAILLINES, description="How many of the last lines come first.")
    ] = 100,
    follow: Annotated[bool, Query(description="Go on with each new line.")] = False,
) -> StreamingResponse:
    """What the function's instances wrote to stdout and stderr: one `LogLine` document a line."""
    backend = backend_of(request)
    function = await _function(backend, namespace, name)
    return streams_of(request).respond(backend.logs(_key(function), tail=tail, follow=follow), _log_line)


def _log_line(line: LogLine) -> bytes:
    return line.model_dump_json(by_alias=True).encode()


@router.get("/triggers", tags=["events"])
async def list_triggers(request: Request) -> TriggerList:
    """Every declared trigger, with its counters."""
    return TriggerList(items=_sorted(await backend_of(request).triggers()))


@router.get("/schedules", tags=["events"])
async def list_schedules(request: Request) -> ScheduleList:
    """Every declared schedule, with its counters and its last and next firing."""
    return ScheduleList(items=_sorted(await backend_of(request).schedules()))


@router.get("/brokers", tags=["events"])
async def list_brokers(request: Request) -> BrokerList:
    """Every broker, with its counters."""
    return BrokerList(items=_sorted(await backend_of(request).brokers()))


@router.get(
    "/brokers/{namespace}/{name}/tail",
    tags=["events"],
    response_class=StreamingResponse,
    responses={**MISSING, **LINES},
)
async def tail_broker(
    request: Request,
    namespace: str,
    name: str,
    conditions: Annotated[
        list[_FilterText] | None,
        Query(
            alias="filter",
            max_length=selectors.MAX_FILTERS,
            description="Show only events with this, such as `type=image.*`; all must match.",
        ),
    ] = None,
) -> StreamingResponse:
    """Each event that the broker takes in from now on: one structured CloudEvent a line."""
    try:
        wanted = selectors.parse(conditions or ())
    except ValueError as error:
        raise RefusalError(ProblemType.MALFORMED_REQUEST, str(error)) from None
    backend = backend_of(request)
    known = [_key(broker) for broker in await backend.brokers()]
    key = f"{namespace}/{name}"
    if key not in known:
        raise unknown_broker(key, known)
    events = await backend.tail(key)
    return streams_of(request).respond(events, encode_structured, only=lambda event: _meets(event, wanted))


def _meets(event: WireEvent, wanted: tuple[selectors.AttributeFilter, ...]) -> bool:
    return all(condition.matches(event.attributes) for condition in wanted)


@router.get("/status", tags=["platform"])
async def get_status(request: Request) -> PlatformStatus:
    """The platform itself: addresses, processes, versions, and what was wrong with the last reload."""
    return await backend_of(request).status()


@router.get("/health", tags=["platform"])
async def get_health(request: Request) -> Health:
    """Whether every part of the platform does its work."""
    parts = list((await backend_of(request).status()).parts)
    return Health(healthy=all(part.healthy for part in parts), parts=parts)


@router.put(
    "/blobs",
    tags=["blobs"],
    status_code=201,
    openapi_extra={
        "requestBody": {
            "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def put_blob(request: Request, response: Response) -> StoredBlob:
    """Store the body as a blob.

    Its name comes of its bytes, so sending them again gives the same blob.
    """
    content_type = request.headers.get("content-type")
    if content_type is not None and not is_type(content_type):
        raise RefusalError(ProblemType.MALFORMED_REQUEST, WRONG_TYPE)
    dataref = await backend_of(request).put_blob(_chunks(request), content_type)
    name = dataref.rpartition("/")[2]
    response.headers["location"] = f"/api/v1/blobs/{name}"
    return StoredBlob(name=name, dataref=dataref)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        if chunk:
            yield chunk


@router.get(
    "/blobs/{name}",
    tags=["blobs"],
    response_class=StreamingResponse,
    responses={
        **MISSING,
        200: {
            "description": "The bytes of the blob",
            "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
        },
    },
)
async def get_blob(request: Request, name: str) -> StreamingResponse:
    """The bytes of a blob."""
    if not _BLOB_NAME.match(name) or name in (".", ".."):
        raise RefusalError(ProblemType.NOT_FOUND, f"There is no blob {name[:300]!r}.")
    blob = await backend_of(request).get_blob(name)
    headers = {
        "content-length": str(blob.size_bytes),
        "content-type": blob.content_type or "application/octet-stream",
        **ANSWER_HEADERS,
    }
    return StreamingResponse(blob.chunks, headers=headers)
