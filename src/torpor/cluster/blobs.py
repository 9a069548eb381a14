"""Blobs of a platform in a cluster: kept in NATS, and served to functions and events pods over HTTP.

:class:`NatsBlobs` has the methods of :class:`torpor.blobs.BlobStore`, and its references are the addresses
under which :func:`app` serves it: ``PUT /blobs`` stores a body, ``GET`` and ``HEAD /blobs/<name>`` read one.
There is nothing else: no list, no deletion. Memory is bounded by chunks, whatever the size of a blob.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import orjson

from torpor.blobs import MAX_BLOB_BYTES, MAX_TYPE_LENGTH, OpenBlob, is_name
from torpor.blobs.base import ANSWER_HEADERS, WRONG_TYPE, is_type
from torpor.errors import BlobError, BlobNotFoundError, BodyTooLargeError, EventLogError
from torpor.events.jetstream_api import PATIENCE_SECONDS, Api
from torpor.events.object_store import CHUNK_BYTES, ObjectStore
from torpor.problems import ProblemType
from torpor.serving import answer, refuse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from torpor.blobs import Blobs
    from torpor.clock import Clock
    from torpor.serving import App, Receive, Scope, Send

_LOG = logging.getLogger("torpor.blobs")
BUCKET = "torpor-blobs"
_UPLOADS_AT_ONCE = 64
_BODY_PATIENCE_SECONDS = 30.0
_RETRY_AFTER_SECONDS = 1
_SWEEP_SECONDS = 3600.0
_HEADERS = tuple((name.encode(), value.encode()) for name, value in ANSWER_HEADERS.items())


class NatsBlobs:
    """The blobs in one bucket, on ``copies`` servers; ``url`` is where :func:`app` serves them."""

    def __init__(self, api: Api, clock: Clock, url: str, bucket: str = BUCKET, copies: int = 1) -> None:
        self._api = api
        self._clock = clock
        self._url = url.rstrip("/")
        self._store = ObjectStore(api, bucket, copies)

    @classmethod
    async def connect(
        cls,
        nats_url: str,
        clock: Clock,
        url: str,
        *,
        token: str | None = None,
        bucket: str = BUCKET,
        copies: int = 1,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> NatsBlobs:
        """Connect to NATS; the connection is kept up for ever.

        Raises :class:`~torpor.errors.EventLogError` when nobody is there within ``patience_seconds``.
        """
        api = await Api.connect(
            nats_url, token=token, name="torpor-blobs", clock=clock, patience_seconds=patience_seconds
        )
        return cls(api, clock, url, bucket, copies)

    @property
    def connected(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._api.connected

    async def close(self) -> None:
        """Let go of the connection."""
        await self._api.close()

    async def put(self, data: bytes, content_type: str | None = None) -> str:
        """See :meth:`torpor.blobs.BlobStore.put`."""

        async def chunks() -> AsyncIterator[bytes]:
            yield data

        return await self.put_stream(chunks(), content_type)

    async def put_stream(self, chunks: AsyncIterator[bytes], content_type: str | None = None) -> str:
        """See :meth:`torpor.blobs.BlobStore.put_stream`."""
        kind = content_type[:MAX_TYPE_LENGTH] if content_type else None
        digest = hashlib.sha256()
        writer = self._store.writer()
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
                if await self._store.find(name) is not None:
                    await writer.give_up()
                else:
                    if waiting:
                        await writer.write(bytes(waiting))
                    await writer.finish(name, digest.digest(), kind)
        except BaseException:
            try:
                await writer.give_up()
            except EventLogError as error:
                _LOG.debug("what was uploaded of a blob is left to be swept: %s", error)
            raise
        return f"{self._url}/{name}"

    async def get(self, reference: str) -> bytes:
        """See :meth:`torpor.blobs.BlobStore.get`."""
        base, _, name = reference.rpartition("/")
        if base != self._url:
            raise BlobNotFoundError(f"{reference[:200]!r} is not the address of a blob in this store")
        blob = await self.open(name)
        return b"".join([chunk async for chunk in blob.chunks])

    async def open(self, name: str) -> OpenBlob:
        """See :meth:`torpor.blobs.BlobStore.open`."""
        if not is_name(name):
            raise BlobNotFoundError(f"there is no blob {name[:100]!r}")
        with _mapped(f"read {name}"):
            entry = await self._store.find(name)
        if entry is None:
            raise BlobNotFoundError(f"can't read {name}: there is no such blob")

        async def chunks() -> AsyncIterator[bytes]:
            with _mapped(f"read {name}"):
                async for chunk in self._store.read(entry):
                    yield chunk

        return OpenBlob(entry.size_bytes, entry.content_type, chunks())

    async def keep_house(self) -> None:
        """For ever, remove what uploads left behind whose process was killed."""
        while True:
            await self._clock.sleep(_SWEEP_SECONDS)
            try:
                swept = await self._store.sweep(self._clock.now() - _SWEEP_SECONDS)
            except EventLogError as error:
                _LOG.warning("uploads that broke off could not be swept: %s", error)
            else:
                if swept:
                    _LOG.info("%d uploads that broke off were swept", swept)


@contextmanager
def _mapped(what: str) -> Iterator[None]:
    try:
        yield
    except EventLogError as error:
        raise BlobError(f"can't {what}: {error}") from error


# --- HTTP ---------------------------------------------------------------------------------------------------


def app(blobs: Blobs, *, max_blob_bytes: int = MAX_BLOB_BYTES) -> App:
    """``PUT /blobs`` and ``GET /blobs/<name>`` as an ASGI application.

    Who reaches it may store and read: it belongs on a port that only the platform and its functions reach.
    """
    return _Blobs(blobs, max_blob_bytes)


class _Blobs:
    def __init__(self, blobs: Blobs, max_blob_bytes: int) -> None:
        self._blobs = blobs
        self._max_blob_bytes = max_blob_bytes
        self._uploads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"blobs are served by HTTP, not {scope['type']!r}")
        method, path = scope["method"], scope["path"]
        if path == "/blobs":
            if method == "PUT":
                await self._put(scope, receive, send)
            else:
                await refuse(send, *_method(method, "PUT"), headers=((b"allow", b"PUT"),))
        elif path.startswith("/blobs/"):
            if method in ("GET", "HEAD"):
                await self._get(path.removeprefix("/blobs/"), send, with_body=method == "GET")
            else:
                await refuse(send, *_method(method, "GET or HEAD"), headers=((b"allow", b"GET, HEAD"),))
        else:
            await refuse(
                send, ProblemType.NOT_FOUND, f"{path[:200]!r} is not here, but PUT /blobs and GET /blobs/NAME"
            )

    async def _put(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        kind = headers[b"content-type"].decode("latin-1") if b"content-type" in headers else None
        if kind is not None and not is_type(kind):
            await refuse(send, ProblemType.MALFORMED_REQUEST, WRONG_TYPE)
            return
        if self._uploads >= _UPLOADS_AT_ONCE:
            detail = f"{self._uploads} blobs are being stored already"
            await refuse(send, ProblemType.OVERLOADED, detail, retry_after_seconds=_RETRY_AFTER_SECONDS)
            return
        self._uploads += 1
        try:
            body = self._body(headers.get(b"content-length", b""), receive)
            reference = await self._blobs.put_stream(body, kind)
        except _GoneError:
            return
        except BodyTooLargeError as error:
            await refuse(send, ProblemType.TOO_LARGE, str(error))
        except TimeoutError:
            detail = f"nothing more of the body came for {_BODY_PATIENCE_SECONDS:g} seconds"
            await refuse(send, ProblemType.REQUEST_TIMEOUT, detail)
        except BlobError as error:
            _LOG.warning("%s", error)
            await refuse(send, ProblemType.UNAVAILABLE, str(error), retry_after_seconds=_RETRY_AFTER_SECONDS)
        else:
            name = reference.rpartition("/")[2]
            stored = orjson.dumps({"name": name, "dataref": reference})
            await answer(send, 201, b"application/json", stored)
        finally:
            self._uploads -= 1

    async def _body(self, announced: bytes, receive: Receive) -> AsyncIterator[bytes]:
        limit = self._max_blob_bytes
        too_large = BodyTooLargeError(f"a blob may have {limit} bytes")
        if announced.isdigit() and int(announced[:18]) > limit:
            raise too_large
        size_bytes = 0
        while True:
            async with asyncio.timeout(_BODY_PATIENCE_SECONDS):
                message = await receive()
            if message["type"] == "http.disconnect":
                raise _GoneError
            chunk = message.get("body", b"")
            size_bytes += len(chunk)
            if size_bytes > limit:
                raise too_large
            if chunk:
                yield chunk
            if not message.get("more_body", False):
                return

    async def _get(self, name: str, send: Send, *, with_body: bool) -> None:
        try:
            blob = await self._blobs.open(name)
        except BlobNotFoundError as error:
            await refuse(send, ProblemType.NOT_FOUND, str(error))
            return
        except BlobError as error:
            await refuse(send, ProblemType.UNAVAILABLE, str(error), retry_after_seconds=_RETRY_AFTER_SECONDS)
            return
        headers = [(b"content-length", b"%d" % blob.size_bytes), *_HEADERS]
        if blob.content_type is not None:
            headers.append((b"content-type", blob.content_type.encode("latin-1", "replace")))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if with_body:
            try:
                async for chunk in blob.chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except BlobError as error:
                # The status is out already: what is left is to break off before the announced length.
                _LOG.warning("%s", error)
                return
        await send({"type": "http.response.body", "body": b""})


class _GoneError(Exception):
    """Who sends the blob went away before it was whole."""


def _method(method: str, taken: str) -> tuple[ProblemType, str]:
    return ProblemType.METHOD_NOT_ALLOWED, f"{method} is not taken here, {taken} is"
