"""Cutting a picture into tiles that can be resized apart and still fit together without a seam.

A resampling filter looks at neighbours. So a tile carries, beside what it will show, as many pixels around it
as the filter reaches; the resize is then told which part of the tile to map onto the output (Pillow's
``box``). Pillow resizes one direction after the other and rounds in between, so it shows which comes first:
tiles take the order that the whole picture would. Each output pixel is then computed from the same input
pixels, with the same weights and rounding, as in one resize of the whole.
"""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING

from PIL import Image
from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterator

FILTER = Image.Resampling.LANCZOS
_REACH = 3.0  # Lanczos: a window of three pixels to each side, of the coarser of the two pictures

Size = tuple[int, int]
Box = tuple[int, int, int, int]  # left, top, right, bottom


class Cut(BaseModel):
    """One tile: what to take from the picture, which part of it to resize, and where the outcome goes."""

    crop: Box
    """The part of the picture that the tile carries, in its pixels."""
    box: tuple[float, float, float, float]
    """The part of the tile that is mapped onto the output, in the tile's pixels."""
    target: Box
    """The place of the outcome in the resized picture, in pixels of that."""
    whole: Size
    """Width and height of the whole resized picture."""
    upright_first: bool
    """Whether its height is resized before its width."""


def fit(size: Size, longest_side: int) -> Size:
    """``size`` scaled so that its longer side has ``longest_side`` pixels; no side gets shorter than one."""
    scale = longest_side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def upright_first(size: Size, whole: Size) -> bool:
    """Whether Pillow (13) begins with the height: it does for tall pictures that are made smaller."""
    return size[1] > 2 * size[0] and whole[1] < size[1]


def side_of_tiles(whole: Size, longest: int, fewest: int) -> int:
    """The side of tiles that gives at least ``fewest``: ``longest``, or less for a narrow picture."""
    side = longest
    while side > 1 and ceil(whole[0] / side) * ceil(whole[1] / side) < fewest:
        side //= 2
    return side


def cuts(size: Size, whole: Size, tile_side: int) -> Iterator[Cut]:
    """The tiles of at most ``tile_side`` output pixels a side that together make the picture of size
    ``whole``.
    """
    order = upright_first(size, whole)
    columns = list(_spans(size[0], whole[0], tile_side))
    rows = list(_spans(size[1], whole[1], tile_side))
    for top, bottom, crop_top, crop_bottom, box_top, box_bottom in rows:
        for left, right, crop_left, crop_right, box_left, box_right in columns:
            yield Cut(
                crop=(crop_left, crop_top, crop_right, crop_bottom),
                box=(box_left, box_top, box_right, box_bottom),
                target=(left, top, right, bottom),
                whole=whole,
                upright_first=order,
            )


def _spans(length: int, target: int, step: int) -> Iterator[tuple[int, int, int, int, float, float]]:
    """Along one side: where each tile starts and ends in the output, in the picture, and within the tile."""
    scale = length / target
    margin = _REACH * max(scale, 1.0) + 1.0
    for start in range(0, target, step):
        end = min(start + step, target)
        first, last = start * scale, min(end * scale, length)
        crop_start, crop_end = max(0, floor(first - margin)), min(length, ceil(last + margin))
        yield start, end, crop_start, crop_end, first - crop_start, last - crop_start


def shrink(tile: Image.Image, cut: Cut) -> Image.Image:
    """The part of the resized picture that ``tile`` was cut for."""
    left, top, right, bottom = cut.target
    width, height = right - left, bottom - top
    box_left, box_top, box_right, box_bottom = cut.box
    if cut.upright_first:
        tile = tile.resize((tile.width, height), FILTER, box=(0, box_top, tile.width, box_bottom))
        return tile.resize((width, height), FILTER, box=(box_left, 0, box_right, height))
    tile = tile.resize((width, tile.height), FILTER, box=(box_left, 0, box_right, tile.height))
    return tile.resize((width, height), FILTER, box=(0, box_top, width, box_bottom))
