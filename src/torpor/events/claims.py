"""Claim checks: large data goes to the blob store, and the event carries its address (``dataref``) instead.

Source: the CloudEvents extension "Dataref (Claim Check Pattern)". A blob's address is made from its content,
so that storing the same data again changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torpor.binding import WireEvent, is_json
from torpor.errors import BlobLostError, BlobNotFoundError
from torpor.events.facts import MAX_DATA_BYTES

if TYPE_CHECKING:
    from torpor.blobs import Keeper
    from torpor.errors import RecordTooLargeError

MAX_INLINE_BYTES = 256 * 1024
"""Largest data that stays in the event, unless a setting says otherwise."""
DEFAULT_TTL_SECONDS = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class BlobOptions:
    """Blobs of a platform: ``keeper`` has them, and ``url`` is where functions find them."""

    url: str
    keeper: Keeper
    ttl_seconds: float = DEFAULT_TTL_SECONDS
    """How long one that nothing names is kept; 0: for ever."""
    max_inline_bytes: int = MAX_INLINE_BYTES


class BlobStore(Protocol):
    """Where large data is kept. Raises :class:`~torpor.errors.BlobError`."""

    async def put(self, data: bytes, content_type: str | None = None) -> str:
        """Store ``data`` and return its address."""
        ...

    async def read(self, reference: str, max_bytes: int) -> bytes | None:
        """The bytes at that address, which is one of this store's; ``None`` where they are more."""
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

    def too_large(self, what: RecordTooLargeError | str) -> str:
        """What to say of an event that the log does not take, or of more than can be sent."""
        if self._store is not None:
            return str(what)
        return f"{what}; this platform has no place for blobs, where larger data would go"

    async def looked_into(self, event: WireEvent) -> WireEvent:
        """``event`` as filters that look into data see it: with the data that was checked in, if they would.

        Raises :class:`~torpor.errors.BlobError` while the store can't be read.
        """
        reference = event.attributes.get("dataref")
        if self._store is None or event.data is not None or reference is None:
            return event
        if not is_json(event.attributes.get("datacontenttype")):
            return event
        try:
            data = await self._store.read(reference, MAX_DATA_BYTES)
        except BlobLostError:
            return event
        return event if data is None else WireEvent(event.attributes, data)

    async def check_out(self, event: WireEvent) -> bytes:
        """The data of ``event``, wherever it is. Raises :class:`~torpor.errors.BlobError`."""
        reference = event.attributes.get("dataref")
        if event.data is not None or reference is None:
            return event.data or b""
        if self._store is None:
            raise BlobNotFoundError("the data is in a blob store, and there is none")
        return await self._store.get(reference)
