"""The same handler for functions-framework."""

from typing import Any

import functions_framework  # type: ignore[import-not-found]


@functions_framework.cloud_event  # type: ignore[untyped-decorator]
def handle(event: Any) -> None:
    """Look at the data."""
    assert event.data["name"] == "tile-0042"
