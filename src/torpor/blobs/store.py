"""The one way to blobs, wherever they are."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from torpor.blobs.base import MAX_TYPE_LENGTH, OpenBlob, is_name
from torpor.blobs.objects import ObjectPlace
from torpor.errors import BlobDamagedError, BlobNotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from torpor.blobs.base import Place


class BlobStore:
    """The blobs whose addresses are below ``url``.

    That is a folder, such as ``file:///var/lib/torpor/blobs``, a place in an object store that ``obstore``
    knows, or ``http://host:port/blobs`` where a platform in a cluster serves them. Who keeps what is served
    there has it at ``place``.
    """

    def __init__(self, url: str, place: Place | None = None) -> None:
        self._url = url.rstrip("/")
        self._place = place or _place(self._url)

    def name_of(self, reference: str) -> str | None:
        """The name of the blob at the address ``reference``; ``None`` where that is none of this store's."""
        base, _, name = reference.rpartition("/")
        return name if base == self._url and is_name(name) else None

    async def put(self, data: bytes, content_type: str | None = None) -> str:
        """Store ``data`` and return its address. Raises :class:`~torpor.errors.BlobError`."""
        name = hashlib.sha256(data).hexdigest()
        await self._place.put(name, data, _cut(content_type))
        return f"{self._url}/{name}"

    async def put_stream(self, chunks: AsyncIterator[bytes], content_type: str | None = None) -> str:
        """Store what ``chunks`` give and return its address; nothing is left behind when they fail.

        Raises :class:`~torpor.errors.BlobError`, and whatever ``chunks`` raise.
        """
        return f"{self._url}/{await self._place.put_stream(chunks, _cut(content_type))}"

    async def get(self, reference: str) -> bytes:
        """The bytes of the blob at the address ``reference``, which must be one of this store's.

        Raises :class:`~torpor.errors.BlobNotFoundError`, and :class:`~torpor.errors.BlobError` when the store
        can't be read or gives other bytes than were stored.
        """
        if (name := self.name_of(reference)) is None:
            raise BlobNotFoundError(f"{reference[:200]!r} is not the address of a blob in this store")
        return _checked(name, await self._place.get(name))

    async def read(self, reference: str, max_bytes: int) -> bytes | None:
        """The bytes of the blob at that address; ``None`` where it has more than ``max_bytes``.

        Raises as :meth:`get` does.
        """
        if (name := self.name_of(reference)) is None:
            raise BlobNotFoundError(f"{reference[:200]!r} is not the address of a blob in this store")
        blob = await self._place.open(name)
        if blob.size_bytes > max_bytes:
            return None
        return _checked(name, b"".join([chunk async for chunk in blob.chunks]))

    async def open(self, name: str) -> OpenBlob:
        """The blob called ``name``, to be read in chunks.

        Raises :class:`~torpor.errors.BlobNotFoundError` or :class:`~torpor.errors.BlobError`.
        """
        if not is_name(name):
            raise BlobNotFoundError(f"there is no blob {name[:100]!r}")
        return await self._place.open(name)


def _checked(name: str, data: bytes) -> bytes:
    if hashlib.sha256(data).hexdigest() != name:
        raise BlobDamagedError(f"blob {name} is damaged: its bytes are not those that were stored")
    return data


def _cut(content_type: str | None) -> str | None:
    return content_type[:MAX_TYPE_LENGTH] if content_type else None


def _place(url: str) -> Place:
    if not url.startswith("http://"):
        return ObjectPlace(url)
    from torpor.blobs.http import HttpPlace  # noqa: PLC0415 - most functions on a laptop never need it

    return HttpPlace(url)
