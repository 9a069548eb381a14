"""Blobs on a directory: named by their content, whole or not there, and kept with their type."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from torpor.blobs import BlobStore
from torpor.errors import BlobError, BlobNotFoundError

if TYPE_CHECKING:
    from pathlib import Path

DATA = b"a photograph"
NAME = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Any:
    return BlobStore(f"{(tmp_path / 'blobs').as_uri()}/")


def _files(tmp_path: Path) -> Any:
    return sorted(path.name for path in tmp_path.rglob("*") if path.is_file())


def test_gives_back_what_was_put(store: Any, tmp_path: Path) -> None:
    async def run() -> None:
        reference = await store.put(DATA, "image/jpeg")
        assert reference == f"{(tmp_path / 'blobs').as_uri()}/{NAME}"
        assert await store.put(DATA, "image/jpeg") == reference
        assert await store.get(reference) == DATA
        blob = await store.open(NAME)
        assert (blob.size_bytes, blob.content_type) == (len(DATA), "image/jpeg")
        assert b"".join([chunk async for chunk in blob.chunks]) == DATA

    asyncio.run(run())


def test_takes_a_stream(store: Any) -> None:
    async def chunks() -> Any:
        for _ in range(64):
            yield b"x" * 65_536

    async def run() -> None:
        reference = await store.put_stream(chunks(), None)
        assert await store.get(reference) == b"x" * 64 * 65_536
        blob = await store.open(reference.rpartition("/")[2])
        assert (blob.size_bytes, blob.content_type) == (64 * 65_536, None)

    asyncio.run(run())


def test_a_stream_that_breaks_leaves_nothing(store: Any, tmp_path: Path) -> None:
    async def chunks() -> Any:
        yield b"x" * 5_000_000
        raise LookupError("the caller left")

    async def run() -> None:
        with pytest.raises(LookupError):
            await store.put_stream(chunks(), "image/jpeg")

    asyncio.run(run())
    assert _files(tmp_path) == []


def test_an_empty_blob_is_one(store: Any) -> None:
    async def nothing() -> Any:
        chunks: list[bytes] = []
        for chunk in chunks:
            yield chunk

    async def run() -> None:
        assert await store.get(await store.put(b"")) == b""
        assert await store.get(await store.put_stream(nothing(), None)) == b""

    asyncio.run(run())


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "file:///etc/passwd",
        NAME,
        "{base}/../secret",
        "{base}/uploads/x",
        "{base}/" + "0" * 64,
        "{base}/" + NAME + ".type",
        "{base}x/" + NAME,
    ],
)
def test_reads_nothing_but_its_own(store: Any, tmp_path: Path, reference: Any) -> None:
    (tmp_path / "secret").write_text("secret")

    async def run() -> None:
        await store.put(DATA, "text/plain")
        with pytest.raises(BlobNotFoundError):
            await store.get(reference.replace("{base}", (tmp_path / "blobs").as_uri()))

    asyncio.run(run())


@pytest.mark.parametrize("name", ["", "..", "../secret", "0" * 64, "uploads/x", NAME.upper()])
def test_opens_nothing_else(store: Any, name: Any) -> None:
    async def run() -> None:
        await store.put(DATA)
        with pytest.raises(BlobNotFoundError):
            await store.open(name)

    asyncio.run(run())


def test_notices_that_a_blob_is_damaged(store: Any, tmp_path: Path) -> None:
    async def run() -> None:
        reference = await store.put(DATA)
        (tmp_path / "blobs" / NAME).write_bytes(b"other bytes!")
        with pytest.raises(BlobError, match="damaged"):
            await store.get(reference)

    asyncio.run(run())


def test_says_why_a_store_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")

    async def run() -> None:
        for url in (f"{(tmp_path / 'file').as_uri()}/x", "nonsense://x"):
            with pytest.raises(BlobError, match="can't"):
                await BlobStore(url).put(DATA)

    asyncio.run(run())
