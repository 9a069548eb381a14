"""Claim checks: large data goes to the blob store, and the event carries its address (``dataref``) instead.

Source: the CloudEvents extension "Dataref (Claim Check Pattern)". A blob's address is made from its content,
so that storing the same data again changes nothing.
"""

from __future__ import annotations

from typing import Protocol

from torpor.binding import WireEvent
from torpor.errors import BlobNotFoundError

MAX_INLINE_BYTES = 256 * 1024
"""Largest data that stays in the event."""


class BlobStore(Protocol):
    """Where large data is kept."""

    async def put(self, data: bytes, content_type: str | None = None) -> str:
        """Store ``data`` and return its address. Raises :class:`~torpor.errors.BlobError`."""
        ...

    async def get(self, reference: str) -> bytes:
        """The data at an address. Raises :class:`~torpor.errors.BlobError`."""
        ...


class Claims:
    """Checks in data of more than ``max_inline_bytes``; without a store, events stay as they are."""

    def __init__(self, store: BlobStore | None, max_inline_bytes: int = MAX_INLINE_BYTES) -> None:
        self._store = store
        self._max_inline_bytes = max_inline_bytes

    async def check_in(self, event: WireEvent, max_inline_bytes: int | None = None) -> WireEvent:
        """``event`` with small data, or with the address of its data.

        ``max_inline_bytes`` stands in for the usual limit. Raises :class:`~torpor.errors.BlobError`.
        """
        limit = self._max_inline_bytes if max_inline_bytes is None else max_inline_bytes
        if self._store is None or event.data is None or len(event.data) <= limit:
            return event
        reference = await self._store.put(event.data, event.attributes.get("datacontenttype"))
        return WireEvent({**event.attributes, "dataref": reference}, None)

    async def check_out(self, event: WireEvent) -> bytes:
        """The data of ``event``, wherever it is. Raises :class:`~torpor.errors.BlobError`."""
        reference = event.attributes.get("dataref")
        if event.data is not None or reference is None:
            return event.data or b""
        if self._store is None:
            raise BlobNotFoundError("the data is in a blob store, and there is none")
        return await self._store.get(reference)
