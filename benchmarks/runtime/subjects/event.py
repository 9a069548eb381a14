"""A handler that takes an event, as it would be written for Torpor."""

from torpor import CloudEvent, function


@function
async def handle(event: CloudEvent) -> None:
    """Look at the data."""
    data = event.get_data()
    assert isinstance(data, dict)
    assert data["name"] == "tile-0042"
