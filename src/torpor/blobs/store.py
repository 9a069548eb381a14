"""The one way to blobs, wherever they are."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from torpor.blobs.base import MAX_TYPE_LENGTH, OpenBlob, is_name
from torpor.blobs.objects import ObjectPlace
from torpor.errors import BlobError, BlobNotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from torpor.blobs.base import Place


class BlobStore:
    """The blobs below ``url``.

    That is a folder, such as ``file:///var/lib/torpor/blobs``, a place in an object store that ``obstore``
    knows, or ``http://host:port/blobs`` where a platform in a cluster serves them.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._place = _place(self._url)

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
        base, _, name = reference.rpartition("/")
        if base != self._url or not is_name(name):
            raise BlobNotFoundError(f"{reference[:200]!r} is not the address of a blob in this store")
        data = await self._place.get(name)
        if hashlib.sha256(data).hexdigest() != name:
            raise BlobError(f"blob {name} is damaged: its bytes are not those that were stored")
        return data

    async def open(self, name: str) -> OpenBlob:
        """The blob called ``name``, to be read in chunks.

        Raises :class:`~torpor.errors.BlobNotFoundError` or :class:`~torpor.errors.BlobError`.
        """
        if not is_name(name):
            raise BlobNotFoundError(f"there is no blob {name[:100]!r}")
        return await self._place.open(name)


def _cut(content_type: str | None) -> str | None:
    return content_type[:MAX_TYPE_LENGTH] if content_type else None


def _place(url: str) -> Place:
    if not url.startswith("http://"):
        return ObjectPlace(url)
    from torpor.blobs.http import HttpPlace  # noqa: PLC0415 - most functions on a laptop never need it

    return HttpPlace(url)
