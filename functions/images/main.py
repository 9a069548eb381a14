"""Resizes a picture in parts, at the same time: split it into tiles, resize each, stitch them together.

The pixels are in the blob store; the events say where, and where they belong.
"""

import asyncio
import io
import os
import uuid
from collections.abc import AsyncIterator

from PIL import Image
from pydantic import BaseModel
from tiles import Cut, cuts, fit, shrink, side_of_tiles

from torpor import CloudEvent, Context, function

LONGEST_SIDE = int(os.environ.get("LONGEST_SIDE", "2048"))
TILE_SIDE, FEWEST_TILES = 256, 16
PNG = "image/png"


class Tile(BaseModel):
    """A part of a picture."""

    pixels: str
    """Reference of the blob with its pixels, a PNG."""
    cut: Cut
    """Where it was cut out, and where the outcome belongs."""


@function(emits="image.tile")
async def split(content: bytes, ctx: Context) -> AsyncIterator[Tile]:
    """Cut the uploaded picture into tiles; what is yielded is one group."""
    picture = await asyncio.to_thread(decode, content)
    whole = fit(picture.size, LONGEST_SIDE)
    for cut in cuts(picture.size, whole, side_of_tiles(whole, TILE_SIDE, FEWEST_TILES)):
        yield Tile(pixels=await store(picture.crop(cut.crop), ctx), cut=cut)


@function(emits="image.tile.resized")
async def resize(tile: Tile, ctx: Context) -> Tile:
    """Resize one tile; the outcome stays in the tile's group."""
    pixels = await load(tile.pixels, ctx)
    return Tile(pixels=await store(await asyncio.to_thread(shrink, pixels, tile.cut), ctx), cut=tile.cut)


@function
async def stitch(tiles: list[Tile], ctx: Context) -> CloudEvent:
    """Put the tiles of a group together: it is called once, when all of them are there."""
    picture = Image.new("RGB", tiles[0].cut.whole)
    for tile in tiles:
        picture.paste(await load(tile.pixels, ctx), tile.cut.target)
    attributes = {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "/images/stitch",
        "type": "image.resized",
        "datacontenttype": PNG,
        "dataref": await store(picture, ctx),
    }
    return CloudEvent(attributes, None)


async def load(reference: str, ctx: Context) -> Image.Image:
    """The picture in a blob."""
    return await asyncio.to_thread(decode, await ctx.blobs.get(reference))


async def store(picture: Image.Image, ctx: Context) -> str:
    """A new blob with the picture; the same picture always has the same reference."""
    return await ctx.blobs.put(await asyncio.to_thread(encode, picture), PNG)


def decode(content: bytes) -> Image.Image:
    """The picture that the bytes are, in colours without transparency."""
    return Image.open(io.BytesIO(content)).convert("RGB")


def encode(picture: Image.Image) -> bytes:
    """The picture as a PNG, which loses nothing."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
