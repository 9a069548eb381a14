"""Does with events what their data says, and answers with what it saw."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from torpor import Failed, function

if TYPE_CHECKING:
    from collections.abc import Iterator

app = FastAPI()


class Answer(BaseModel):
    """How one attempt is answered: with a reply where the status is 200."""

    status: int = 200
    headers: dict[str, str] = {}
    seconds: float = 0.0


class Wanted(BaseModel):
    """The answers to the first attempts; all that follow are answered at once and well."""

    answers: list[Answer] = []


@app.post("/")
async def probe(wanted: Wanted, request: Request) -> Response:
    """Answer the attempt as wanted, with an event of its headers; a dead letter at once and well."""
    seen = dict(request.headers)
    attempt = int(seen["torpor-attempt"])
    scripted = attempt <= len(wanted.answers) and "ce-torporerror" not in seen
    answer = wanted.answers[attempt - 1] if scripted else Answer()
    await asyncio.sleep(answer.seconds)
    if answer.status != 200:
        return Response(status_code=answer.status, headers=answer.headers)
    reply = {
        "ce-specversion": "1.0",
        "ce-id": f"{seen['ce-id']}.seen",
        "ce-source": "/probe",
        "ce-type": f"{seen['ce-type']}.seen",
        "ce-subject": seen["ce-id"],
    }
    return JSONResponse(seen, headers=reply)


class Part(BaseModel):
    """One of several."""

    number: int
    failed: bool = False
    text: str = ""


@function(emits="gathered")
def gather(parts: list[Part]) -> Iterator[dict[str, Any] | Failed]:
    """Say what came together, and fail with those that are to."""
    well = [part for part in parts if not part.failed]
    yield {"numbers": [part.number for part in well], "letters": sum(len(part.text) for part in well)}
    yield Failed(position for position, part in enumerate(parts) if part.failed)
