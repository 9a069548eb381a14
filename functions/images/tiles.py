"""Cutting a picture into tiles that can be resized apart and still fit together without a seam.

A resampling filter looks at neighbours. So a tile carries, beside what it will show, as many pixels around it
as the filter reaches; the resize is then told which part of the tile to map onto the output (Pillow's
``box``). Each output pixel is computed from the same input pixels, with the same weights, as in one resize of
the whole picture.
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


def fit(size: Size, longest_side: int) -> Size:
    """``size`` scaled so that its longer side has ``longest_side`` pixels; no side gets shorter than one."""
    scale = longest_side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def cuts(size: Size, whole: Size, tile_side: int) -> Iterator[Cut]:
    """The tiles of at most ``tile_side`` output pixels a side that together make the picture of size
    ``whole``.
    """
    columns = list(_spans(size[0], whole[0], tile_side))
    rows = list(_spans(size[1], whole[1], tile_side))
    for top, bottom, crop_top, crop_bottom, box_top, box_bottom in rows:
        for left, right, crop_left, crop_right, box_left, box_right in columns:
            yield Cut(
                crop=(crop_left, crop_top, crop_right, crop_bottom),
                box=(box_left, box_top, box_right, box_bottom),
                target=(left, top, right, bottom),
                whole=whole,
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
    return tile.resize((right - left, bottom - top), FILTER, box=cut.box)
