"""Blobs of a store that may not be there yet: what needs none of them is served all the same."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from torpor.cluster.blobs import NatsBlobs
from torpor.errors import BlobError, EventLogError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from torpor.blobs import OpenBlob
    from torpor.clock import Clock

_LOG = logging.getLogger("torpor.blobs")
_AGAIN_SECONDS = 1.0


class LateBlobs:
    """The blobs in the NATS at ``nats_url``, from the moment on that it answers; ``url`` leads to them."""

    def __init__(self, nats_url: str, token: str, url: str, clock: Clock, copies: int = 1) -> None:
        self._nats_url = nats_url
        self._token = token
        self._copies = copies
        self._url = url
        self._clock = clock
        self._blobs: NatsBlobs | None = None

    async def run(self) -> None:
        """Connect, however long that takes, and then keep house, for as long as it is let."""
        if not self._nats_url:
            return
        while self._blobs is None:
            try:
                self._blobs = await NatsBlobs.connect(
                    self._nats_url, self._clock, self._url, token=self._token or None, copies=self._copies
                )
            except EventLogError as error:
                _LOG.warning("blobs wait for NATS: %s", error)
                await self._clock.sleep(_AGAIN_SECONDS)
        try:
            await self._blobs.keep_house()
        finally:
            await self._blobs.close()

    async def put_stream(self, chunks: AsyncIterator[bytes], content_type: str | None = None) -> str:
        """See :meth:`torpor.blobs.BlobStore.put_stream`."""
        return await self._now().put_stream(chunks, content_type)

    async def open(self, name: str) -> OpenBlob:
        """See :meth:`torpor.blobs.BlobStore.open`."""
        return await self._now().open(name)

    def _now(self) -> NatsBlobs:
        if self._blobs is not None:
            return self._blobs
        if not self._nats_url:
            raise BlobError("this platform keeps no blobs: it has no NATS")
        raise BlobError("blobs can't be reached: NATS does not answer yet")
