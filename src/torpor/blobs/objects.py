"""Blobs in an object store that ``obstore`` knows, a directory among them.

A blob's content type is in an object of its own beside it, since directories keep no attributes of files.

``obstore`` is imported when a store is first used: most functions never need it, and it starts threads, which
must not happen before a process is forked.
"""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from typing import TYPE_CHECKING, Any

from torpor.blobs.base import OpenBlob
from torpor.errors import BlobError, BlobNotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import ModuleType

_TYPE_SUFFIX = ".type"
_UPLOADS = "uploads"
_CHUNK_BYTES = 1024 * 1024


class ObjectPlace:
    """Keeps :class:`torpor.blobs.base.Place` below ``url``."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opened: Any = None

    async def put(self, name: str, data: bytes, content_type: str | None) -> None:
        """Store ``data``."""
        store, obstore = self._store()
        with _mapped(f"store {name}"):
            await self._put_type(name, content_type)
            await obstore.put_async(store, name, data)

    async def put_stream(self, chunks: AsyncIterator[bytes], content_type: str | None) -> str:
        """Store what ``chunks`` give."""
        store, obstore = self._store()
        upload = f"{_UPLOADS}/{uuid.uuid4().hex}"
        digest = hashlib.sha256()
        with _mapped("store a blob"):
            async with obstore.open_writer_async(store, upload, buffer_size=_CHUNK_BYTES) as writer:
                async for chunk in chunks:
                    digest.update(chunk)
                    await writer.write(chunk)
            name = digest.hexdigest()
            try:
                await self._put_type(name, content_type)
                await obstore.rename_async(store, upload, name)
            except BaseException:
                with contextlib.suppress(OSError, obstore.exceptions.BaseError):
                    await obstore.delete_async(store, upload)
                raise
        return name

    async def get(self, name: str) -> bytes:
        """The bytes of a blob."""
        store, obstore = self._store()
        with _mapped(f"read {name}"):
            result = await obstore.get_async(store, name)
            return bytes(await result.bytes_async())

    async def open(self, name: str) -> OpenBlob:
        """A blob, to be read in chunks."""
        store, obstore = self._store()
        with _mapped(f"read {name}"):
            result = await obstore.get_async(store, name)
            content_type = await self._type(name)
        return OpenBlob(result.meta["size"], content_type, _chunks(result, name))

    async def _put_type(self, name: str, content_type: str | None) -> None:
        if content_type:
            store, obstore = self._store()
            await obstore.put_async(store, name + _TYPE_SUFFIX, content_type.encode())

    async def _type(self, name: str) -> str | None:
        store, obstore = self._store()
        try:
            result = await obstore.get_async(store, name + _TYPE_SUFFIX)
            return bytes(await result.bytes_async()).decode()
        except (FileNotFoundError, UnicodeDecodeError):
            return None

    def _store(self) -> tuple[Any, ModuleType]:
        try:
            import obstore  # noqa: PLC0415 - see the module's docstring
            from obstore.store import from_url  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise BlobError("blobs need pip install 'torpor[blobs]'") from error
        if self._opened is None:
            options = {"mkdir": True} if self._url.startswith("file:") else {}
            with _mapped(f"open {self._url}"):
                self._opened = from_url(self._url, **options)  # type: ignore[call-overload]
        return self._opened, obstore


async def _chunks(result: Any, name: str) -> AsyncIterator[bytes]:
    with _mapped(f"read {name}"):
        async for chunk in result.stream(min_chunk_size=_CHUNK_BYTES):
            yield bytes(chunk)


@contextlib.contextmanager
def _mapped(what: str) -> Iterator[None]:
    """Raise the store's own errors as ours."""
    import obstore  # noqa: PLC0415

    try:
        yield
    except FileNotFoundError as error:
        raise BlobNotFoundError(f"can't {what}: there is no such blob") from error
    except (OSError, ValueError, obstore.exceptions.BaseError) as error:
        reason = str(error).partition("\n")[0]
        raise BlobError(f"can't {what}: {reason}") from error
