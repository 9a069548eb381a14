"""Blobs that a platform in a cluster serves over HTTP (``torpor.cluster.blobs``): the side of functions.

By the client of the data path, which every container of a function has. Connections are made for each call:
handlers may run on loops of their own, and after a fork nothing may be left of the parent's. What failed for
want of an answer is done again for a few seconds, while a pod is replaced: storing and reading are both
harmless to repeat.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import orjson

from torpor.blobs.base import MAX_BLOB_BYTES, OpenBlob, is_name
from torpor.clock import SystemClock
from torpor.endpoint import Endpoint
from torpor.errors import BlobError, BlobNotFoundError, TransportError
from torpor.transport import Client
from torpor.transport.message import encode_fields, encode_head

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable

    from torpor.transport import Exchange, Head, Headers, Response

_T = TypeVar("_T")
_CALL_SECONDS = 60.0
_PAUSES_SECONDS = (0.1, 0.4, 1.5, 3.0)
_AGAIN = frozenset((502, 503, 504))
_SAID_CHARACTERS = 300


class HttpPlace:
    """Keeps :class:`torpor.blobs.base.Place` below ``url``, such as ``http://torpor-api.torpor.svc:8082/blobs``."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._path = parts.path
        try:
            self._endpoint = Endpoint(parts.hostname or "", parts.port or 80)
        except ValueError as error:
            raise BlobError(f"{url!r} is no URL of a blob store: {error}") from error
        self._authority = parts.netloc.encode()
        self._clock = SystemClock()

    async def put(self, name: str, data: bytes, content_type: str | None) -> None:
        """Store ``data``."""
        what = f"store {name}"
        response = await self._call(what, b"PUT", self._path, _typed(content_type), data)
        stored = _stored(what, response.body)
        if stored != name:
            raise BlobError(f"can't {what}: other bytes arrived, they were stored as {stored}")

    async def put_stream(self, chunks: AsyncIterator[bytes], content_type: str | None) -> str:
        """Store what ``chunks`` give; made once, since they can't be had again."""
        what = "store a blob"
        headers = [*_typed(content_type), (b"transfer-encoding", b"chunked")]
        async with self._exchange(what) as exchange:
            exchange.start(self._head(b"PUT", self._path, headers), None, chunked=True)
            async for chunk in chunks:
                await _step(what, exchange.send(chunk))
            exchange.finish()
            head, body = await _step(what, exchange.head()), b""
            while piece := await _step(what, exchange.read()):
                body += piece
            _checked(what, head, body)
            return _stored(what, body)

    async def get(self, name: str) -> bytes:
        """The bytes of a blob."""
        response = await self._call(f"read {name}", b"GET", f"{self._path}/{name}", [], b"")
        return response.body

    async def open(self, name: str) -> OpenBlob:
        """A blob, to be read in chunks; its bytes are asked for when the first is."""
        what = f"read {name}"
        response = await self._call(what, b"HEAD", f"{self._path}/{name}", [], b"")
        kind, size = response.header(b"content-type"), response.header(b"content-length")
        if size is None or not size.isdigit():
            raise BlobError(f"can't {what}: the answer does not say how long it is")
        return OpenBlob(int(size), kind.decode("latin-1") if kind else None, self._chunks(name))

    async def _chunks(self, name: str) -> AsyncIterator[bytes]:
        what = f"read {name}"
        async with self._exchange(what) as exchange:
            exchange.start(self._head(b"GET", f"{self._path}/{name}", []), b"")
            head = await _step(what, exchange.head())
            if head.status != 200:
                _checked(what, head, await _step(what, exchange.read()))
            while piece := await _step(what, exchange.read()):
                yield piece

    async def _call(self, what: str, method: bytes, path: str, headers: Headers, body: bytes) -> Response:
        for pause_seconds in (*_PAUSES_SECONDS, None):
            client = Client(max_connections_per_endpoint=1)
            try:
                response = await client.request(
                    self._endpoint,
                    method,
                    path.encode(),
                    encode_fields([(b"host", self._authority), *headers]),
                    body,
                    timeout_seconds=_CALL_SECONDS,
                    max_response_bytes=MAX_BLOB_BYTES,
                )
                if response.status not in _AGAIN or pause_seconds is None:
                    _checked(what, response, response.body)
                    return response
            except TransportError as error:
                if pause_seconds is None:
                    raise BlobError(f"can't {what}: {error}") from error
            finally:
                await client.close()
            await self._clock.sleep(pause_seconds)
        raise AssertionError("the last attempt returns or raises")

    @asynccontextmanager
    async def _exchange(self, what: str) -> AsyncGenerator[Exchange, None]:
        client = Client(max_connections_per_endpoint=1)
        try:
            exchange = await _step(what, client.open(self._endpoint))
            try:
                yield exchange
            finally:
                exchange.close()
        finally:
            await client.close()

    def _head(self, method: bytes, path: str, headers: Headers) -> bytes:
        return encode_head(method, path.encode(), encode_fields(headers), self._authority)


async def _step(what: str, step: Awaitable[_T]) -> _T:
    try:
        async with asyncio.timeout(_CALL_SECONDS):
            return await step
    except TimeoutError as error:
        raise BlobError(f"can't {what}: nothing happened for {_CALL_SECONDS:g} s") from error
    except TransportError as error:
        raise BlobError(f"can't {what}: {error}") from error


def _typed(content_type: str | None) -> Headers:
    return [(b"content-type", content_type.encode("latin-1", "replace"))] if content_type else []


def _checked(what: str, head: Head | Response, body: bytes) -> None:
    if 200 <= head.status < 300:
        return
    said = body.decode("utf-8", "replace")
    with contextlib.suppress(orjson.JSONDecodeError, TypeError, KeyError):
        said = str(orjson.loads(body)["detail"])
    kind = BlobNotFoundError if head.status == 404 else BlobError
    raise kind(f"can't {what}: the blob service answered {head.status}: {said[:_SAID_CHARACTERS]}")


def _stored(what: str, body: bytes) -> str:
    try:
        name = str(orjson.loads(body)["name"])
    except (orjson.JSONDecodeError, TypeError, KeyError) as error:
        raise BlobError(f"can't {what}: the blob service answered {body[:100]!r}") from error
    if not is_name(name):
        raise BlobError(f"can't {what}: the blob service gave it the name {name[:100]!r}")
    return name
