"""Blobs of a platform in a cluster, as they are served to functions over HTTP, wherever they are kept.

``PUT /blobs`` stores a body, ``GET`` and ``HEAD /blobs/<name>`` read one. There is nothing else: no list, no
deletion. So a function needs no key of the store that keeps them. Memory is bounded by chunks, whatever the
size of a blob.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import orjson

from torpor.blobs import MAX_BLOB_BYTES
from torpor.blobs.base import ANSWER_HEADERS, WRONG_TYPE, is_type
from torpor.errors import BlobError, BlobNotFoundError, BodyTooLargeError
from torpor.problems import ProblemType
from torpor.serving import answer, refuse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from torpor.blobs import Blobs
    from torpor.serving import App, Receive, Scope, Send

_LOG = logging.getLogger("torpor.blobs")
_UPLOADS_AT_ONCE = 32
"""Each may hold 10 MiB."""
_BODY_PATIENCE_SECONDS = 30.0
_RETRY_AFTER_SECONDS = 1
_HEADERS = tuple((name.encode(), value.encode()) for name, value in ANSWER_HEADERS.items())


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
