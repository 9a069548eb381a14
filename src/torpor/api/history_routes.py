"""The routes that look back: ``/api/v1/explanation``, and events that are delivered again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from torpor.api.answers import MISSING, backend_of
from torpor.api.refusals import RefusalError, unknown
from torpor.problems import ProblemType
from torpor.spec import selectors
from torpor.spec.history import Answer, Question  # noqa: TC001 - FastAPI reads them at run time
from torpor.spec.replays import Replay, ReplayPage  # noqa: TC001

router = APIRouter(tags=["events"])


@router.get("/explanation")
async def explain_event(request: Request, question: Annotated[Question, Query()]) -> Answer:
    """What happened to the events of an id: accepted, filtered, delivered, joined, answered, or given up.

    Events of one id have different sources, or are in different brokers. No items: nothing is known.
    """
    return await backend_of(request).explain(question)


@router.post("/brokers/{namespace}/{name}/replay", responses=MISSING)
async def replay_events(request: Request, namespace: str, name: str, replay: Replay) -> ReplayPage:
    """Deliver events again that the broker still has, each to the triggers that match it now.

    It is done page by page: the next request has the `since` and `after` that this one answers. To repeat a
    request is safe.
    """
    try:
        selectors.parse(replay.filters)
    except ValueError as error:
        raise RefusalError(ProblemType.MALFORMED_REQUEST, str(error)) from None
    backend = backend_of(request)
    known = [f"{broker.namespace}/{broker.name}" for broker in await backend.brokers()]
    key = f"{namespace}/{name}"
    if key not in known:
        raise unknown(ProblemType.UNKNOWN_BROKER, "broker", key, known)
    return await backend.replay_events(key, replay)
