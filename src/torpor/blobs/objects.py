"""Blobs in an object store that ``obstore`` knows: a directory, or one of S3, Google Cloud or Azure.

A blob's content type is in an object of its own beside it, since directories keep no attributes of files. A
blob that is set aside is below ``aside/``, beside an empty object whose time is that at which it was: some
stores keep a blob's own time when it is renamed. How a store is reached and who one is there is told to it by
its own environment variables.

``obstore`` is imported when a store is first used: most functions never need it, and it starts threads, which
must not happen before a process is forked.
"""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from torpor.blobs.base import Kept, OpenBlob, is_name
from torpor.errors import BlobError, BlobNotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import ModuleType

_TYPE_SUFFIX = ".type"
_UPLOADS = "uploads"
_ASIDE = "aside"
_SINCE_SUFFIX = ".since"
_CHUNK_BYTES = 1024 * 1024
_PART_BYTES = 5 * 1024 * 1024
"""S3 takes no smaller part of an upload, but for the last. Two of them are held of one that is under way."""
_RETRY_SECONDS = 20


class ObjectPlace:
    """Keeps :class:`torpor.blobs.base.Keeper` below ``url``."""

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
            writing = obstore.open_writer_async(store, upload, buffer_size=_PART_BYTES, max_concurrency=1)
            async with writing as writer:
                async for chunk in chunks:
                    digest.update(chunk)
                    await writer.write(chunk)
            name = digest.hexdigest()
            try:
                await self._put_type(name, content_type)
                await obstore.rename_async(store, upload, name)
            except BaseException:
                with contextlib.suppress(OSError, obstore.exceptions.BaseError):
                    await self._delete(upload)
                raise
        return name

    async def get(self, name: str) -> bytes:
        """The bytes of a blob."""
        with _mapped(f"read {name}"):
            result = await self._find(name)
            return bytes(await result.bytes_async())

    async def open(self, name: str) -> OpenBlob:
        """A blob, to be read in chunks."""
        with _mapped(f"read {name}"):
            result = await self._find(name)
            content_type = await self._type(name)
        return OpenBlob(result.meta["size"], content_type, _chunks(result, name))

    # --- what is kept ---------------------------------------------------------------------------------------

    async def list(self) -> AsyncIterator[Kept]:
        """All blobs."""
        store, obstore = self._store()
        with _mapped("list blobs"):
            times: dict[str, float] = {}
            async for page in obstore.list(store, _ASIDE):
                for each in page:
                    name = each["path"].rpartition("/")[2]
                    times[name] = each["last_modified"].timestamp()
            for name in filter(is_name, times):
                yield Kept(name, times.get(name + _SINCE_SUFFIX, times[name]), aside=True)
            # The folders hold as much as is under way or set aside, the rest lies flat.
            async for page in obstore.list(store):
                for each in page:
                    if is_name(each["path"]):
                        yield Kept(each["path"], each["last_modified"].timestamp())

    async def set_aside(self, name: str) -> None:
        """Set a blob aside."""
        store, obstore = self._store()
        with _mapped(f"set {name} aside"):
            await obstore.put_async(store, _aside(name) + _SINCE_SUFFIX, b"")
            await self._rename(name, _aside(name))

    async def bring_back(self, name: str) -> None:
        """Have a blob be as any other."""
        with _mapped(f"bring {name} back"):
            await self._rename(_aside(name), name)
            await self._delete(_aside(name) + _SINCE_SUFFIX)

    async def remove(self, name: str) -> None:
        """Remove a blob that was set aside."""
        store, obstore = self._store()
        with _mapped(f"remove {name}"):
            await self._delete(_aside(name))
            await self._delete(_aside(name) + _SINCE_SUFFIX)
            try:
                await obstore.head_async(store, name)
            except FileNotFoundError:
                await self._delete(name + _TYPE_SUFFIX)

    async def tidy(self, before: float) -> None:
        """Remove what uploads left behind."""
        store, obstore = self._store()
        with _mapped("list uploads"):
            async for page in obstore.list(store, _UPLOADS):
                for each in page:
                    if each["last_modified"].timestamp() < before:
                        await self._delete(each["path"])

    async def close(self) -> None:
        """Nothing is kept open."""

    async def _find(self, name: str) -> Any:
        store, obstore = self._store()
        for path in (name, _aside(name)):
            with contextlib.suppress(FileNotFoundError):
                return await obstore.get_async(store, path)
        return await obstore.get_async(store, name)  # brought back in the meantime, or not there

    async def _rename(self, source: str, target: str) -> None:
        store, obstore = self._store()
        with contextlib.suppress(FileNotFoundError):
            await obstore.rename_async(store, source, target)

    async def _delete(self, path: str) -> None:
        store, obstore = self._store()
        with contextlib.suppress(FileNotFoundError):
            await obstore.delete_async(store, path)

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
            options: dict[str, Any] = {"retry_config": {"retry_timeout": timedelta(seconds=_RETRY_SECONDS)}}
            if self._url.startswith("file:"):
                options = {"mkdir": True}
            with _mapped(f"open {self._url}"):
                self._opened = from_url(self._url, **options)
        return self._opened, obstore


def _aside(name: str) -> str:
    return f"{_ASIDE}/{name}"


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
