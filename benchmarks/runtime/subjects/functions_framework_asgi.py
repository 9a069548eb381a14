"""The same handler for functions-framework's ASGI mode."""

from typing import Any

import functions_framework.aio  # type: ignore[import-not-found]


@functions_framework.aio.cloud_event  # type: ignore[untyped-decorator]
async def handle(event: Any) -> None:
    """Look at the data."""
    assert event.data["name"] == "tile-0042"
