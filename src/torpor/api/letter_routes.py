"""The routes of ``/api/v1/dead-letters``: look at dead letters, replay them, drop them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import StreamingResponse

from torpor.api.answers import LINES, MISSING, backend_of, streams_of
from torpor.api.documents import LetterOutcomes
from torpor.api.refusals import RefusalError
from torpor.problems import ProblemType
from torpor.spec import selectors
from torpor.spec.letters import (  # FastAPI reads them at run time
    DeadLetter,  # noqa: TC001
    LetterAction,  # noqa: TC001
    LetterSelection,  # noqa: TC001
)

router = APIRouter(tags=["dead letters"])


@router.get("/dead-letters", response_class=StreamingResponse, responses=LINES)
async def list_dead_letters(
    request: Request, selection: Annotated[LetterSelection, Query()]
) -> StreamingResponse:
    """Dead letters, broker by broker and the oldest first: one `DeadLetter` document a line."""
    try:
        selectors.parse(selection.filters)
    except ValueError as error:
        raise RefusalError(ProblemType.MALFORMED_REQUEST, str(error)) from None
    found = await backend_of(request).dead_letters(selection)
    return streams_of(request).respond(found, lambda letter: letter.model_dump_json().encode())


@router.get("/dead-letters/{id}", responses=MISSING)
async def get_dead_letter(request: Request, id: str) -> DeadLetter:  # noqa: A002 - the name in the address
    """One dead letter, with its event."""
    found = await backend_of(request).dead_letter(id)
    if found is None:
        raise RefusalError(ProblemType.NOT_FOUND, f"There is no dead letter {id[:300]!r}.")
    return found


@router.post("/dead-letters:replay")
async def replay_dead_letters(request: Request, action: LetterAction) -> LetterOutcomes:
    """Deliver dead letters again, each to the trigger that had failed with it.

    A dead letter is removed when its replay is durable. Asking again is safe.
    """
    return LetterOutcomes(items=list(await backend_of(request).replay(action)))


@router.post("/dead-letters:drop")
async def drop_dead_letters(request: Request, action: LetterAction) -> LetterOutcomes:
    """Remove dead letters for good."""
    return LetterOutcomes(items=list(await backend_of(request).drop(action)))
