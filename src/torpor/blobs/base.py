"""What every place of blobs has in common."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAX_TYPE_LENGTH = 255
"""Longest content type that is kept."""
MAX_BLOB_BYTES = 256 * 1024 * 1024
"""Largest blob that is taken over HTTP, and that is read as a whole."""
ANSWER_HEADERS = {
    "cache-control": "private, max-age=31536000, immutable",
    # A blob is what anyone put there: no browser may guess its type, or run it as a page of this host.
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'",
}
"""What an answer with a blob says beside its length and type."""
WRONG_TYPE = "header content-type: not printable ASCII, or too long"
_TYPE = re.compile(rf"[ -~]{{1,{MAX_TYPE_LENGTH}}}\Z")
_NAME = re.compile(r"[0-9a-f]{64}\Z")


def is_name(text: str) -> bool:
    """Whether ``text`` can be a blob's name: the SHA-256 of its bytes, in lower-case hexadecimal."""
    return bool(_NAME.match(text))


def is_type(text: str) -> bool:
    """Whether ``text`` is kept as a blob's content type; else the words are :data:`WRONG_TYPE`."""
    return bool(_TYPE.match(text))


@dataclass(frozen=True, slots=True)
class OpenBlob:
    """A blob that is being read; ``chunks`` can be iterated once."""

    size_bytes: int
    content_type: str | None
    chunks: AsyncIterator[bytes]


class Blobs(Protocol):
    """A store of blobs, as far as the API needs one. Raises :class:`~torpor.errors.BlobError`."""

    async def put_stream(self, chunks: AsyncIterator[bytes], content_type: str | None = None) -> str:
        """Store what ``chunks`` give and return its address; nothing is left behind when they fail."""
        ...

    async def open(self, name: str) -> OpenBlob:
        """A blob, to be read in chunks; raises :class:`~torpor.errors.BlobNotFoundError`."""
        ...


class Place(Protocol):
    """Where blobs are, by name. Every method raises :class:`~torpor.errors.BlobError`."""

    async def put(self, name: str, data: bytes, content_type: str | None) -> None:
        """Store ``data``, whose name that is."""
        ...

    async def put_stream(self, chunks: AsyncIterator[bytes], content_type: str | None) -> str:
        """Store what ``chunks`` give and return its name; nothing is left behind when they fail."""
        ...

    async def get(self, name: str) -> bytes:
        """The bytes of a blob; raises :class:`~torpor.errors.BlobNotFoundError`."""
        ...

    async def open(self, name: str) -> OpenBlob:
        """A blob, to be read in chunks; raises :class:`~torpor.errors.BlobNotFoundError`."""
        ...


@dataclass(frozen=True, slots=True)
class Kept:
    """A blob that is kept. ``since`` is when it was stored last, or set aside (seconds since the epoch)."""

    name: str
    since: float
    aside: bool = False


class Keeper(Place, Protocol):
    """A place whose blobs can be listed and removed: in two steps, so that nothing in use is lost.

    A blob that is set aside can be read all the same, and one that is stored again is no longer. So what was
    about to be stored, or named by an event, while it was decided to set it aside is there still, and is seen
    before it is removed. Every method may be called again after it failed. Raises
    :class:`~torpor.errors.BlobError`.
    """

    def list(self) -> AsyncIterator[Kept]:
        """All blobs, those set aside too."""
        ...

    async def set_aside(self, name: str) -> None:
        """Set a blob aside; nothing happens if there is none of that name."""
        ...

    async def bring_back(self, name: str) -> None:
        """Have a blob that was set aside be as any other; nothing happens if there is none."""
        ...

    async def remove(self, name: str) -> None:
        """Remove a blob that was set aside; nothing happens if there is none."""
        ...

    async def tidy(self, before: float) -> None:
        """Remove what uploads left behind whose process was killed before that time."""
        ...

    async def close(self) -> None:
        """Let go of what connects it."""
        ...
