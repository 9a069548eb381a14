"""The route of calls that nobody waits for: ``/api/v1/calls/ID``."""

from __future__ import annotations

from fastapi import APIRouter, Request

from torpor.api.answers import MISSING, backend_of
from torpor.api.refusals import RefusalError
from torpor.problems import ProblemType
from torpor.spec.calls import CallStatus  # noqa: TC001 - FastAPI reads it at run time

router = APIRouter(tags=["functions"])


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
