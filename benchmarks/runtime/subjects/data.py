"""A handler that takes validated data, as it would be written for Torpor."""

from pydantic import BaseModel

from torpor import function


class Tile(BaseModel):
    """What the data must be."""

    name: str
    x: int
    y: int
    width: int
    height: int


@function
async def handle(tile: Tile) -> None:
    """Look at the data."""
    assert tile.name == "tile-0042"
