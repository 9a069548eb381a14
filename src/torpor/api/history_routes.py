"""The routes that look back: ``/api/v1/explanation``, and events that are delivered again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Request

from torpor.api.answers import MISSING, backend_of
from torpor.api.refusals import RefusalError, unknown, unknown_broker
from torpor.problems import ProblemType
from torpor.spec import selectors
from torpor.spec.history import Answer, Question  # noqa: TC001 - FastAPI reads them at run time
from torpor.spec.replays import Replay, ReplayPage  # noqa: TC001

if TYPE_CHECKING:
    from torpor.api.backend import Backend

router = APIRouter(tags=["events"])


@router.get("/explanation")
async def explain_event(request: Request, question: Annotated[Question, Query()]) -> Answer:
    """What happened to the events of an id: accepted, filtered, delivered, joined, answered, or given up.

    Events of one id have different sources, or are in different brokers. No items: nothing is known.
    """
    return await backend_of(request).explain(question)


@router.post("/brokers/{namespace}/{name}/replay", responses=MISSING)
async def replay_events(request: Request, namespace: str, name: str, replay: Replay) -> ReplayPage:
    """Deliver events again that the broker still has, to the triggers that match them now or to a function.

    It is done page by page: the next request has the `since` and `after` that this one answers. To repeat a
    request is safe.
    """
    try:
        selectors.parse(replay.filters)
    except ValueError as error:
        raise RefusalError(ProblemType.MALFORMED_REQUEST, str(error)) from None
    backend = backend_of(request)
    if replay.target is not None:
        await _check_function(backend, namespace, *replay.target)
    known = [f"{broker.namespace}/{broker.name}" for broker in await backend.brokers()]
    key = f"{namespace}/{name}"
    if key not in known:
        raise unknown_broker(key, known)
    return await backend.replay_events(key, replay)


async def _check_function(backend: Backend, namespace: str, key: str, revision: str | None) -> None:
    """Check that a broker's events can go there. Raises :class:`RefusalError`."""
    every = {f"{each.namespace}/{each.name}": each for each in await backend.functions()}
    function = every.get(key)
    if function is None:
        raise unknown(ProblemType.UNKNOWN_FUNCTION, "function", key, every)
    if function.namespace != namespace:
        detail = f"Function {key!r} is not in the broker's namespace, {namespace!r}."
        raise RefusalError(ProblemType.UNKNOWN_FUNCTION, detail)
    if revision not in (None, function.revision):
        serves = f"{function.revision!r}, which serves," if function.revision else "none, as none serves yet,"
        detail = f"{serves} was expected, not {revision!r}: requests reach the revision alone that serves"
        raise RefusalError(ProblemType.UNKNOWN_FUNCTION, detail)
