"""The floor: an ASGI app that looks at nothing and answers nothing."""

from typing import Any

START = {"type": "http.response.start", "status": 204, "headers": []}
BODY = {"type": "http.response.body", "body": b""}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer."""
    await send(START)
    await send(BODY)
