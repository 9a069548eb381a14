"""The same handler for func-python, Knative's middleware."""

from typing import Any

from func_python.cloudevent import serve  # type: ignore[import-not-found]


async def handle(scope: Any, receive: Any, send: Any) -> None:
    """Look at the data."""
    assert scope["event"].data["name"] == "tile-0042"
    await send.http({"type": "http.response.start", "status": 204, "headers": []})
    await send.http({"type": "http.response.body", "body": b""})


serve(handle)
