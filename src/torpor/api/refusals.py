"""How everything that goes wrong in the API becomes a problem document, and never a stack trace.

``install`` covers what routes raise on purpose, what FastAPI finds wrong with a request, what Starlette
answers by itself (404, 405), and what nobody expected (500, with the cause in the log under the request's
id).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response

from torpor.api.edge import REQUEST_ID
from torpor.api.parameters import names
from torpor.errors import BlobNotFoundError, BodyTooLargeError, TorporError
from torpor.problems import Problem, ProblemType, there_are
from torpor.spec.faults import did_you_mean, distinct, field_name, in_words
from torpor.spec.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastapi import FastAPI, Request
    from pydantic_core import ErrorDetails

_LOG = logging.getLogger("torpor.api")
_RETRY_AFTER_SECONDS = 1


class RefusalError(Exception):
    """A route's answer is this problem."""

    def __init__(self, problem_type: ProblemType, detail: str) -> None:
        super().__init__(detail)
        self.problem_type = problem_type
        self.detail = detail


def unknown(problem_type: ProblemType, what: str, name: str, known: Iterable[str]) -> RefusalError:
    """The refusal for a ``name`` that no ``what`` has, with the nearest one that there is."""
    near = _nearest(name, known)
    hint = f" Did you mean {near!r}?" if near else ""
    return RefusalError(problem_type, f"There is no {what} {name[:300]!r}.{hint}")


def unknown_broker(name: str, known: Iterable[str]) -> RefusalError:
    """The same for a broker; where none is near, all are named, as there are few."""
    brokers = sorted(known)
    if _nearest(name, brokers) is not None:
        return unknown(ProblemType.UNKNOWN_BROKER, "broker", name, brokers)
    detail = f"There is no broker {name[:300]!r}; there are: {there_are(brokers)}."
    return RefusalError(ProblemType.UNKNOWN_BROKER, detail)


def _nearest(key: str, known: Iterable[str]) -> str | None:
    """A key that is like ``key``: namespaces that are the same are no likeness, so names are compared."""
    namespace, _, name = key.partition("/")
    of_names: dict[str, dict[str, str]] = {}
    for each in known:
        its_namespace, _, its_name = each.partition("/")
        of_names.setdefault(its_namespace, {})[its_name] = each
    here = of_names.get(namespace, {})
    if (near := did_you_mean(name, here)) is not None:
        return here[near]
    having = [its_namespace for its_namespace, its_names in of_names.items() if name in its_names]
    elsewhere = did_you_mean(namespace, having) or next(iter(sorted(having)), None)
    return None if elsewhere is None else of_names[elsewhere][name]


def install(app: FastAPI) -> None:
    """Make ``app`` answer every error with a problem document."""
    app.exception_handler(RefusalError)(_refused)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_http)
    app.exception_handler(TorporError)(_failed)
    app.exception_handler(Exception)(_unexpected)


def _refused(request: Request, error: RefusalError) -> Response:
    return _response(request, error.problem_type, error.detail)


def _invalid(request: Request, error: RequestValidationError) -> Response:
    faults = [_fault(request, each) for each in distinct(error.errors())]
    detail = "; ".join(f"{fault['where']}: {fault['problem']}" for fault in faults)
    return _response(request, ProblemType.MALFORMED_REQUEST, detail, faults=faults)


def _fault(request: Request, error: ErrorDetails) -> dict[str, str]:
    """Where in the request something is wrong, and what, in the words that declarations have."""
    part, *path = error["loc"]
    kind = error["type"]
    if kind == "json_invalid":  # its path is a number of characters
        return {"where": str(part), "problem": f"is not JSON: {error['ctx']['error']} at character {path[0]}"}
    if kind == "model_attributes_type" and not path and isinstance(error["input"], bytes):
        sent_as = request.headers.get("content-type", "")
        problem = f"is sent with content type {shown(sent_as)}, 'application/json' was expected"
        return {"where": str(part), "problem": problem}
    known = names(request, str(part))
    return {"where": field_name(error["loc"]), "problem": in_words(error, known)}


def _http(request: Request, error: HTTPException) -> Response:
    path = request.url.path[:300]
    if error.status_code == 404:
        return _response(request, ProblemType.NOT_FOUND, f"There is nothing at {path!r}; see /api/v1/docs.")
    if error.status_code == 405:
        allow = Headers(error.headers).get("allow", "")
        detail = f"{path!r} takes {allow}, not {request.method[:20]}."
        response = _response(request, ProblemType.METHOD_NOT_ALLOWED, detail)
        response.headers["allow"] = allow
        return response
    return _response(request, ProblemType.MALFORMED_REQUEST, str(error.detail))


def _failed(request: Request, error: Exception) -> Response:
    if isinstance(error, BlobNotFoundError):
        return _response(request, ProblemType.NOT_FOUND, str(error))
    if isinstance(error, BodyTooLargeError):
        response = _response(request, ProblemType.TOO_LARGE, str(error))
        response.headers["connection"] = "close"  # the rest of the body is left unread
        return response
    _LOG.warning("could not answer", extra={"request_id": _request_id(request), "cause": str(error)})
    response = _response(request, ProblemType.UNAVAILABLE, str(error))
    response.headers["retry-after"] = str(_RETRY_AFTER_SECONDS)
    return response


def _unexpected(request: Request, error: Exception) -> Response:
    _LOG.error("unexpected error", extra={"request_id": _request_id(request)}, exc_info=error)
    return _response(
        request, ProblemType.INTERNAL, "The cause is in the platform's log, under the id of this request."
    )


def _request_id(request: Request) -> str | None:
    value: str | None = getattr(request.state, REQUEST_ID, None)
    return value


def _response(request: Request, problem_type: ProblemType, detail: str, **extras: Any) -> Response:
    problem = Problem(problem_type, detail, _request_id(request), extras=extras or None)
    body = problem.body()
    response = Response(body, problem.status)
    response.raw_headers = problem.headers(body)
    return response
