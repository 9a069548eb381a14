"""The floor: an ASGI app that looks at nothing and answers nothing."""

from typing import Any

START = {"type": "http.response.start", "status": 204, "headers": []}
BODY = {"type": "http.response.body", "body": b""}


async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 - that is the point
    """Answer."""
    await send(START)
    await send(BODY)
