"""What every request to the API passes first: its id, its host name, and the size of its body.

A callback is refused: whoever may call a function would act through the platform's own hands.

Raw ASGI, so that streams pass through untouched and a client's going away is still seen.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

from torpor.api.hosts import is_allowed
from torpor.errors import BodyTooLargeError
from torpor.events.calls import CALL_ID_HEADER, NO_CALLBACKS
from torpor.problems import Problem, ProblemType

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID = "request_id"
_KEEPABLE_ID = re.compile(rb"[!-~]{1,128}\Z")
_DIGITS = re.compile(rb"[0-9]{1,18}\Z")


class Edge:
    """Middleware that answers 421, 413 and 400 itself and gives every answer an ``x-request-id``.

    ``limit_bytes`` says how large the body of a request to a path may be.
    """

    def __init__(
        self, app: ASGIApp, allowed_hosts: Collection[str], limit_bytes: Callable[[str], int]
    ) -> None:
        self._app = app
        self._allowed_hosts = allowed_hosts
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})[REQUEST_ID] = request_id
        refusal = self._refusal(scope, request_id)
        if refusal is not None:
            await _send(refusal, send)
            return
        limited = _limited(receive, self._limit_bytes(scope["path"]))
        await self._app(scope, limited, _identified(send, request_id))

    def _refusal(self, scope: Scope, request_id: str) -> Problem | None:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or not is_allowed(hosts[0], self._allowed_hosts):
            named = "no host or several" if len(hosts) != 1 else f"the host {hosts[0][:200]!r}"
            detail = (
                f"The request names {named}; use localhost or a name that the platform was told to serve."
            )
            return Problem(ProblemType.MISDIRECTED, detail, request_id)
        if any(name == CALL_ID_HEADER for name, _ in scope["headers"]):
            return Problem(ProblemType.MALFORMED_REQUEST, NO_CALLBACKS, request_id)
        limit_bytes = self._limit_bytes(scope["path"])
        for name, value in scope["headers"]:
            if name == b"content-length" and (not _DIGITS.match(value) or int(value) > limit_bytes):
                return Problem(ProblemType.TOO_LARGE, _too_large(limit_bytes), request_id)
        return None


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _KEEPABLE_ID.match(value):
            return str(value.decode("ascii"))
    return str(uuid.uuid4())


def _too_large(limit_bytes: int) -> str:
    return f"The body is larger than the {limit_bytes} bytes that are taken here."


def _limited(receive: Receive, limit_bytes: int) -> Receive:
    taken_bytes = 0

    async def counted() -> Message:
        nonlocal taken_bytes
        message = await receive()
        if message["type"] == "http.request":
            taken_bytes += len(message.get("body", b""))
            if taken_bytes > limit_bytes:
                raise BodyTooLargeError(_too_large(limit_bytes))
        return message

    return counted


def _identified(send: Send, request_id: str) -> Callable[[Message], Awaitable[None]]:
    header = (b"x-request-id", request_id.encode("ascii"))

    async def identified(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [pair for pair in message.get("headers", ()) if pair[0] != b"x-request-id"]
            message = {**message, "headers": [*headers, header]}
        await send(message)

    return identified


async def _send(problem: Problem, send: Send) -> None:
    # The connection is closed because the body, if any, is left unread.
    body = problem.body()
    headers = [*problem.headers(body), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
