"""Blobs kept in the object store of NATS, in one bucket.

A blob is an object of its name, and of ``aside/NAME`` while it is set aside; both are entries of the same
chunks.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torpor.blobs import Kept, OpenBlob, is_name
from torpor.clock import cancel
from torpor.errors import BlobError, BlobNotFoundError, EventLogError
from torpor.events.jetstream_api import PATIENCE_SECONDS, Api
from torpor.events.object_store import CHUNK_BYTES, ObjectStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from torpor.clock import Clock
    from torpor.events.object_store import Entry

_LOG = logging.getLogger("torpor.blobs")
BUCKET = "torpor-blobs"
_ASIDE = "aside/"
_FIRST_PATIENCE_SECONDS = 3.0
_AGAIN_SECONDS = 1.0


class NatsPlace:
    """Keeps :class:`torpor.blobs.Keeper` in a bucket of the NATS at ``url``, on ``copies`` servers.

    It connects when it is first used, and then keeps the connection up for ever.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        token: str = "",
        bucket: str = BUCKET,
        copies: int = 1,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._url = url
        self._clock = clock
        self._token = token
        self._bucket = bucket
        self._copies = copies
        self._patience_seconds = patience_seconds
        self._connecting: asyncio.Task[ObjectStore] | None = None
        self._api: Api | None = None
        self._objects: ObjectStore | None = None

    async def close(self) -> None:
        """Let go of the connection."""
        if self._connecting is not None:
            await cancel(self._connecting)
        if self._api is not None:
            await self._api.close()

    # --- blobs ----------------------------------------------------------------------------------------------

    async def put(self, name: str, data: bytes, content_type: str | None) -> None:
        """Store ``data``."""
        with _mapped(f"store {name}"):
            objects = await self._ready()
            if (entry := await objects.find(name)) is not None and await objects.renew(entry):
                return

        async def chunks() -> AsyncIterator[bytes]:
            yield data

        await self.put_stream(chunks(), content_type)

    async def put_stream(self, chunks: AsyncIterator[bytes], content_type: str | None) -> str:
        """Store what ``chunks`` give."""
        with _mapped("store a blob"):
            objects = await self._ready()
        digest = hashlib.sha256()
        writer = objects.writer()
        waiting = bytearray()
        try:
            async for chunk in chunks:
                digest.update(chunk)
                waiting += chunk
                while len(waiting) > CHUNK_BYTES:
                    with _mapped("store a blob"):
                        await writer.write(bytes(waiting[:CHUNK_BYTES]))
                    del waiting[:CHUNK_BYTES]
            name = digest.hexdigest()
            with _mapped(f"store {name}"):
                if (entry := await objects.find(name)) is not None and await objects.renew(entry):
                    await writer.give_up()
                else:
                    if waiting:
                        await writer.write(bytes(waiting))
                    await writer.finish(name, digest.digest(), content_type)
        except BaseException:
            try:
                await writer.give_up()
            except EventLogError as error:
                _LOG.debug("what was uploaded of a blob is left to be swept: %s", error)
            raise
        return name

    async def get(self, name: str) -> bytes:
        """The bytes of a blob."""
        blob = await self.open(name)
        return b"".join([chunk async for chunk in blob.chunks])

    async def open(self, name: str) -> OpenBlob:
        """A blob, to be read in chunks."""
        with _mapped(f"read {name}"):
            objects = await self._ready()
            entry = await _find(objects, name)
        if entry is None:
            raise BlobNotFoundError(f"can't read {name}: there is no such blob")

        async def chunks() -> AsyncIterator[bytes]:
            with _mapped(f"read {name}"):
                async for chunk in objects.read(entry):
                    yield chunk

        return OpenBlob(entry.size_bytes, entry.content_type, chunks())

    # --- what is kept ---------------------------------------------------------------------------------------

    async def list(self) -> AsyncIterator[Kept]:
        """All blobs."""
        with _mapped("list blobs"):
            objects = await self._ready()
            async for entry in objects.entries():
                name = entry.name.removeprefix(_ASIDE)
                if is_name(name):
                    yield Kept(name, entry.since, aside=name != entry.name)

    async def set_aside(self, name: str) -> None:
        """Set a blob aside."""
        with _mapped(f"set {name} aside"):
            await (await self._ready()).rename(name, _ASIDE + name)

    async def bring_back(self, name: str) -> None:
        """Have a blob be as any other."""
        with _mapped(f"bring {name} back"):
            await (await self._ready()).rename(_ASIDE + name, name)

    async def remove(self, name: str) -> None:
        """Remove a blob that was set aside."""
        with _mapped(f"remove {name}"):
            await (await self._ready()).remove(_ASIDE + name, twin=name)

    async def tidy(self, before: float) -> None:
        """Remove what uploads left behind."""
        with _mapped("remove what uploads left behind"):
            swept = await (await self._ready()).sweep(before)
        if swept:
            _LOG.info("%d uploads that broke off were swept", swept)

    async def _ready(self) -> ObjectStore:
        """The bucket. Raises :class:`~torpor.errors.EventLogError` while NATS has not answered yet."""
        if self._objects is None:
            if self._connecting is None:
                self._connecting = asyncio.create_task(self._connect())
            try:
                async with asyncio.timeout(_FIRST_PATIENCE_SECONDS):
                    self._objects = await asyncio.shield(self._connecting)
            except TimeoutError:
                raise EventLogError("blobs can't be reached: NATS does not answer yet") from None
        return self._objects

    async def _connect(self) -> ObjectStore:
        """Connect and have the bucket, however long that takes."""
        while True:
            try:
                if self._api is None:
                    self._api = await Api.connect(
                        self._url,
                        token=self._token or None,
                        name="torpor-blobs",
                        clock=self._clock,
                        patience_seconds=self._patience_seconds,
                    )
                objects = ObjectStore(self._api, self._bucket, self._copies)
                await objects.ensure()
            except EventLogError as error:
                _LOG.warning("blobs wait for NATS: %s", error)
                await self._clock.sleep(_AGAIN_SECONDS)
            else:
                return objects


async def _find(objects: ObjectStore, name: str) -> Entry | None:
    for each in (name, _ASIDE + name, name):  # at last again: it may have been brought back in the meantime
        if (entry := await objects.find(each)) is not None:
            return entry
    return None


@contextmanager
def _mapped(what: str) -> Iterator[None]:
    try:
        yield
    except EventLogError as error:
        raise BlobError(f"can't {what}: {error}") from error
