"""Blobs on a directory keep the contract; and what can be wrong with the URL of a store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("torpor.testing.contracts.blob_store")

from torpor.blobs import BlobStore  # noqa: E402
from torpor.blobs.objects import ObjectPlace  # noqa: E402
from torpor.errors import BlobError  # noqa: E402
from torpor.testing.contracts.blob_store import CASES, DATA, KEEPER_CASES  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from torpor.testing.contracts.blob_store import BlobRig


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = folder.as_uri()
        self.keeper = ObjectPlace(self.url)
        self.store = BlobStore(f"{self.url}/", self.keeper)

    async def kept(self) -> int:
        return len([path for path in self._folder.rglob("*") if path.is_file()])

    async def damage(self, name: str) -> None:
        (self._folder / name).write_bytes(b"other bytes!")

    async def leave_upload(self) -> None:
        (self._folder / "uploads").mkdir(exist_ok=True)
        (self._folder / "uploads" / "half").write_bytes(b"half")


@pytest.mark.parametrize("case", [*CASES, *KEEPER_CASES], ids=lambda case: case.__name__)
def test_contract(case: Callable[[BlobRig], Awaitable[None]], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    asyncio.run(case(_Folder(tmp_path / "blobs")))  # type: ignore[arg-type]


def test_says_why_a_store_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")

    async def run() -> None:
        for url in (f"{(tmp_path / 'file').as_uri()}/x", "nonsense://x"):
            with pytest.raises(BlobError, match="can't"):
                await BlobStore(url).put(DATA)

    asyncio.run(run())


def test_refuses_a_url_without_a_port_number() -> None:
    with pytest.raises(BlobError, match="no URL"):
        BlobStore("http://host:port/blobs")
