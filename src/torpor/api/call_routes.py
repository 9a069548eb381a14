"""The routes of calls that nobody waits for: ``/api/v1/calls`` and ``/api/v1/calls/ID``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from torpor.api.answers import MISSING, backend_of
from torpor.api.refusals import RefusalError
from torpor.problems import ProblemType
from torpor.spec.calls import CallPage, CallSelection, CallStatus  # noqa: TC001 - FastAPI reads them

router = APIRouter(tags=["functions"])


@router.get("/calls")
async def list_calls(request: Request, selection: Annotated[CallSelection, Query()]) -> CallPage:
    """Calls that were made at `/async-function`, the newest first, a page of them.

    Those that are open, or were accepted within an hour or so, come first and by when they were accepted;
    those that ended come after them, or alone where only such states are asked for, by when they ended.
    Where there may be more, `next` is the `after` of the next page. One that ends between two pages may be
    on both.
    """
    return await backend_of(request).calls(selection)


@router.get("/calls/{call_id}", responses=MISSING)
async def get_call(request: Request, call_id: str) -> CallStatus:
    """How far a call is that was made at `/async-function`, and what came of it.

    It is known for a day after it has succeeded or failed.
    """
    found = await backend_of(request).call(call_id)
    if found is None:
        raise RefusalError(
            ProblemType.NOT_FOUND,
            f"There is no call {call_id[:300]!r}; a call is forgotten a day after its end.",
        )
    return found
