"""The contract of every blob store, as cases: :data:`CASES`, each a function of a :class:`BlobRig`."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Protocol

import pytest

from torpor.clock import SystemClock
from torpor.errors import BlobError, BlobNotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from torpor.blobs import OpenBlob

    Case = Callable[["BlobRig"], Awaitable[None]]

CASES: list[Case] = []
DATA = b"a photograph"
NAME = hashlib.sha256(DATA).hexdigest()
_PATIENCE_SECONDS = 20.0
_PIECE = bytes(range(256)) * 256


class Store(Protocol):
    """What is under test: the methods of :class:`torpor.blobs.BlobStore`."""

    async def put(self, data: bytes, content_type: str | None = None) -> str: ...  # noqa: D102
    async def put_stream(  # noqa: D102
        self, chunks: AsyncIterator[bytes], content_type: str | None = None
    ) -> str: ...
    async def get(self, reference: str) -> bytes: ...  # noqa: D102
    async def open(self, name: str) -> OpenBlob: ...  # noqa: D102


class BlobRig(Protocol):
    """An empty store, and what can be seen and done behind its back."""

    store: Store
    url: str
    """Its URL, without a slash at its end."""

    async def kept(self) -> int:
        """How many things are kept, whole blobs or not."""
        ...

    async def damage(self, name: str) -> None:
        """Change a byte of a blob."""
        ...


def _case(function: Case) -> Case:
    CASES.append(function)
    return function


async def _stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def _all(blob: OpenBlob) -> bytes:
    return b"".join([chunk async for chunk in blob.chunks])


@_case
async def it_gives_back_what_was_put(rig: BlobRig) -> None:
    """By its reference, and by its name with type and size."""
    reference = await rig.store.put(DATA, "image/jpeg")
    assert reference == f"{rig.url}/{NAME}"
    assert await rig.store.get(reference) == DATA
    blob = await rig.store.open(NAME)
    assert (blob.size_bytes, blob.content_type) == (len(DATA), "image/jpeg")
    assert await _all(blob) == DATA


@_case
async def the_same_bytes_are_one_blob(rig: BlobRig) -> None:
    """However they come."""
    reference = await rig.store.put(DATA, "image/jpeg")
    kept = await rig.kept()
    assert await rig.store.put(DATA, "image/jpeg") == reference
    assert await rig.store.put_stream(_stream(DATA[:3], DATA[3:]), "image/jpeg") == reference
    assert await rig.kept() == kept
    assert await rig.store.get(reference) == DATA


@_case
async def a_large_blob_is_streamed_twice(rig: BlobRig) -> None:
    """Many chunks, whose bounds are not the store's; the second time nothing more is kept."""
    chunks = [_PIECE[:index] for index in range(1, 65_536, 1021)]
    reference = await rig.store.put_stream(_stream(*chunks))
    assert await rig.store.get(reference) == b"".join(chunks)
    blob = await rig.store.open(reference.rpartition("/")[2])
    assert (blob.size_bytes, blob.content_type) == (sum(map(len, chunks)), None)
    assert await _all(blob) == b"".join(chunks)
    kept = await rig.kept()
    assert await rig.store.put_stream(_stream(*chunks)) == reference
    assert await rig.kept() == kept


@_case
async def an_empty_blob_is_one(rig: BlobRig) -> None:
    """Of no chunk, or of an empty one."""
    empty = hashlib.sha256(b"").hexdigest()
    assert await rig.store.put_stream(_stream()) == f"{rig.url}/{empty}"
    assert await rig.store.get(await rig.store.put(b"")) == b""
    blob = await rig.store.open(empty)
    assert (blob.size_bytes, await _all(blob)) == (0, b"")


@_case
async def an_upload_that_breaks_off_leaves_nothing(rig: BlobRig) -> None:
    """And its error is passed on."""

    async def broken() -> AsyncIterator[bytes]:
        for _ in range(80):
            yield _PIECE
        raise LookupError("the caller left")

    with pytest.raises(LookupError):
        await rig.store.put_stream(broken(), "image/jpeg")
    async with asyncio.timeout(_PATIENCE_SECONDS):  # a service may learn of it a moment later
        while await rig.kept():
            await SystemClock().sleep(0.01)


@_case
async def it_reads_nothing_but_its_own(rig: BlobRig) -> None:
    """Neither other addresses nor what is no name."""
    await rig.store.put(DATA, "text/plain")
    for reference in (
        "",
        "file:///etc/passwd",
        NAME,
        f"{rig.url}/../secret",
        f"{rig.url}/uploads/x",
        f"{rig.url}/{'0' * 64}",
        f"{rig.url}/{NAME}.type",
        f"{rig.url}x/{NAME}",
    ):
        with pytest.raises(BlobNotFoundError):
            await rig.store.get(reference)
    for name in ("", "..", "../secret", "0" * 64, "uploads/x", NAME.upper()):
        with pytest.raises(BlobNotFoundError):
            await rig.store.open(name)


@_case
async def a_damaged_blob_is_noticed(rig: BlobRig) -> None:
    """Its bytes are not given as if they were the blob's."""
    reference = await rig.store.put(DATA)
    await rig.damage(NAME)
    with pytest.raises(BlobError):
        await rig.store.get(reference)
