"""The contract of every blob store, as cases: :data:`CASES`, each a function of a :class:`BlobRig`.

What keeps blobs has that of :data:`KEEPER_CASES` too, each a function of a :class:`KeeperRig`.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Protocol

import pytest

from torpor.clock import SystemClock
from torpor.errors import BlobError, BlobNotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from torpor.blobs import Keeper, Kept, OpenBlob

    Case = Callable[["BlobRig"], Awaitable[None]]
    KeeperCase = Callable[["KeeperRig"], Awaitable[None]]

CASES: list[Case] = []
KEEPER_CASES: list[KeeperCase] = []
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


class KeeperRig(BlobRig, Protocol):
    """An empty store, by way of which ``keeper`` is filled."""

    keeper: Keeper

    async def leave_upload(self) -> None:
        """Do what a process does that is killed while it stores a blob."""
        ...


def _case(function: Case) -> Case:
    CASES.append(function)
    return function


def _keeper_case(function: KeeperCase) -> KeeperCase:
    KEEPER_CASES.append(function)
    return function


async def _kept(rig: KeeperRig) -> list[Kept]:
    return sorted([kept async for kept in rig.keeper.list()], key=lambda kept: (kept.name, kept.aside))


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


# --- of what keeps blobs ------------------------------------------------------------------------------------


@_keeper_case
async def what_is_stored_is_listed(rig: KeeperRig) -> None:
    """With the time at which it was stored, however it was."""
    assert await _kept(rig) == []
    before = SystemClock().now()
    await rig.store.put(DATA, "image/jpeg")
    await rig.store.put_stream(_stream(_PIECE), None)
    kept = await _kept(rig)
    assert [each.name for each in kept] == sorted([NAME, hashlib.sha256(_PIECE).hexdigest()])
    assert all(not each.aside and abs(each.since - before) < 60 for each in kept)


@_keeper_case
async def many_blobs_are_listed(rig: KeeperRig) -> None:
    """More than a page of any store's smallest default."""
    names = {hashlib.sha256(b"%d" % index).hexdigest() for index in range(300)}
    for start in range(0, 300, 50):
        await asyncio.gather(*(rig.store.put(b"%d" % index) for index in range(start, start + 50)))
    assert {each.name for each in await _kept(rig)} == names


@_keeper_case
async def what_is_stored_again_is_as_new(rig: KeeperRig) -> None:
    """A store's clock may have whole seconds."""
    for again in (rig.store.put, lambda data: rig.store.put_stream(_stream(data))):
        await rig.store.put(DATA)
        [first] = await _kept(rig)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:
                await again(DATA)
                [kept] = await _kept(rig)
                if kept.since > first.since:
                    break
                await SystemClock().sleep(0.05)


@_keeper_case
async def what_is_set_aside_can_be_read(rig: KeeperRig) -> None:
    """Under its address, with its type; it is listed as set aside from now on."""
    reference = await rig.store.put(DATA, "image/jpeg")
    before = SystemClock().now()
    await rig.keeper.set_aside(NAME)
    await rig.keeper.set_aside(NAME)
    [kept] = await _kept(rig)
    assert (kept.name, kept.aside) == (NAME, True)
    assert abs(kept.since - before) < 60
    assert await rig.store.get(reference) == DATA
    blob = await rig.store.open(NAME)
    assert (blob.size_bytes, blob.content_type, await _all(blob)) == (len(DATA), "image/jpeg", DATA)


@_keeper_case
async def what_is_brought_back_is_as_any_other(rig: KeeperRig) -> None:
    """And can't be removed, but after it was set aside again."""
    reference = await rig.store.put(DATA, "image/jpeg")
    kept = await rig.kept()
    await rig.keeper.set_aside(NAME)
    await rig.keeper.bring_back(NAME)
    await rig.keeper.bring_back(NAME)
    await rig.keeper.remove(NAME)
    assert [each.aside for each in await _kept(rig)] == [False]
    assert await rig.kept() == kept
    blob = await rig.store.open(reference.rpartition("/")[2])
    assert (blob.content_type, await _all(blob)) == ("image/jpeg", DATA)


@_keeper_case
async def what_is_removed_is_gone(rig: KeeperRig) -> None:
    """With all that belongs to it; another blob stays."""
    other = await rig.store.put(_PIECE, "image/png")
    kept = await rig.kept()
    reference = await rig.store.put(DATA, "image/jpeg")
    await rig.keeper.remove(NAME)
    assert await rig.store.get(reference) == DATA
    await rig.keeper.set_aside(NAME)
    await rig.keeper.remove(NAME)
    await rig.keeper.remove(NAME)
    with pytest.raises(BlobNotFoundError):
        await rig.store.get(reference)
    with pytest.raises(BlobNotFoundError):
        await rig.store.open(NAME)
    assert await rig.kept() == kept
    assert await rig.store.get(other) == _PIECE


@_keeper_case
async def what_is_stored_again_while_it_is_aside_stays(rig: KeeperRig) -> None:
    """Whatever becomes of what is aside: it is removed, or brought back."""
    for streamed in (False, True):
        for end in (rig.keeper.remove, rig.keeper.bring_back):
            reference = await rig.store.put(DATA, "image/jpeg")
            await rig.keeper.set_aside(NAME)
            if streamed:
                await rig.store.put_stream(_stream(DATA), "image/jpeg")
            else:
                await rig.store.put(DATA, "image/jpeg")
            assert False in [each.aside for each in await _kept(rig)]
            await end(NAME)
            assert [each.aside for each in await _kept(rig)] == [False]
            blob = await rig.store.open(NAME)
            assert (blob.content_type, await _all(blob)) == ("image/jpeg", DATA)
            assert await rig.store.get(reference) == DATA


@_keeper_case
async def a_large_blob_is_set_aside_and_brought_back_whole(rig: KeeperRig) -> None:
    """Stores write, and copy, what is large in parts."""
    pieces = [_PIECE] * 200
    reference = await rig.store.put_stream(_stream(*pieces))
    name = reference.rpartition("/")[2]
    await rig.keeper.set_aside(name)
    assert await rig.store.get(reference) == b"".join(pieces)
    await rig.keeper.bring_back(name)
    assert await rig.store.get(reference) == b"".join(pieces)


@_keeper_case
async def a_name_that_is_not_there_is_no_error(rig: KeeperRig) -> None:
    """Another process may have been faster."""
    await rig.keeper.set_aside(NAME)
    await rig.keeper.bring_back(NAME)
    await rig.keeper.remove(NAME)
    assert await _kept(rig) == []
    with pytest.raises(BlobNotFoundError):
        await rig.store.open(NAME)


@_keeper_case
async def what_a_killed_upload_left_is_tidied_up(rig: KeeperRig) -> None:
    """Once it is old; blobs stay."""
    reference = await rig.store.put(DATA, "image/jpeg")
    kept = await rig.kept()
    await rig.leave_upload()
    left = await rig.kept()
    assert left > kept
    now = SystemClock().now()
    await rig.keeper.tidy(now - 3600)
    assert await rig.kept() == left
    assert [each.name for each in await _kept(rig)] == [NAME]
    await rig.keeper.tidy(now + 3600)
    assert await rig.kept() == kept
    assert await rig.store.get(reference) == DATA
