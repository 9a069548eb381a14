"""The route of ``/api/v1/explanation``: what happened to an event."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from torpor.api.answers import backend_of
from torpor.spec.history import Answer, Question  # noqa: TC001 - FastAPI reads them at run time

router = APIRouter(tags=["events"])


@router.get("/explanation")
async def explain_event(request: Request, question: Annotated[Question, Query()]) -> Answer:
    """What happened to the events of an id: accepted, filtered, delivered, joined, answered, or given up.

    Events of one id have different sources, or are in different brokers. No items: nothing is known.
    """
    return await backend_of(request).explain(question)
