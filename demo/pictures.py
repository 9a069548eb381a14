"""The picture before and after: what one resize of the whole gives, and how far another is from it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image, ImageChops, ImageStat

from demo.errors import DemoError

if TYPE_CHECKING:
    from pathlib import Path

MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "TIFF": "image/tiff"}


def media_type(path: Path) -> str:
    """The media type of the picture at ``path``; raises :class:`DemoError` when it is not a picture."""
    try:
        with Image.open(path) as picture:
            kind = picture.format or ""
    except (OSError, Image.DecompressionBombError) as error:
        raise DemoError(f"{path}: not a picture that can be read: {error}") from None
    if kind not in MEDIA_TYPES:
        raise DemoError(f"{path}: is {kind}, one of {', '.join(MEDIA_TYPES)} was expected")
    return MEDIA_TYPES[kind]


def one_shot(path: Path, size: tuple[int, int]) -> Image.Image:
    """The whole picture at ``path``, resized at once to ``size`` with Lanczos."""
    with Image.open(path) as picture:
        return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def largest_difference(one: Image.Image, other: Image.Image) -> int:
    """The largest difference between two pictures of one size, in grey levels, over all channels."""
    if one.size != other.size:
        raise DemoError(f"the pictures have sizes {one.size} and {other.size}")
    difference = ImageChops.difference(one.convert("RGB"), other.convert("RGB"))
    return max(high for _, high in ImageStat.Stat(difference).extrema)


def load(content: bytes) -> Image.Image:
    """The picture in ``content``."""
    picture = Image.open(io.BytesIO(content))
    picture.load()
    return picture
