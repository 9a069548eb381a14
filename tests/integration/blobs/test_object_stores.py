"""Blobs in object stores keep the contract, on servers that speak their protocols."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

import obstore
import pytest
from obstore.store import from_url

pytest.register_assert_rewrite("torpor.testing.contracts.blob_store")

from tests.integration.blobs.google import GoogleServer  # noqa: E402
from tests.integration.blobs.servers import AzureServer, ObjectServer, S3Server  # noqa: E402
from tests.integration.conftest import running  # noqa: E402
from torpor.blobs import BlobStore  # noqa: E402
from torpor.blobs.objects import ObjectPlace  # noqa: E402
from torpor.errors import BlobError  # noqa: E402
from torpor.testing.contracts.blob_store import CASES, DATA, KEEPER_CASES  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from torpor.blobs import Keeper
    from torpor.testing.contracts.blob_store import KeeperRig, Store


class _Place:
    """A place of its own in a server's bucket."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keeper: Keeper = ObjectPlace(url)
        self.store: Store = BlobStore(f"{url}/", self.keeper)
        self._behind = from_url(url)

    async def kept(self) -> int:
        return sum([len(page) async for page in obstore.list(self._behind)])

    async def damage(self, name: str) -> None:
        await obstore.put_async(self._behind, name, b"other bytes!")

    async def leave_upload(self) -> None:
        await obstore.put_async(self._behind, "uploads/half", b"half")


@pytest.fixture(scope="module", params=[S3Server, GoogleServer, AzureServer], ids=["s3", "google", "azure"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ObjectServer]:
    made: ObjectServer = request.param(tmp_path_factory.mktemp("objects"))
    with running(made):
        yield made


@pytest.fixture
def url(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place that is empty, and can be reached."""
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    return f"{server.url}/{uuid.uuid4().hex}"


@pytest.mark.parametrize("case", [*CASES, *KEEPER_CASES], ids=lambda case: case.__name__)
def test_contract(case: Callable[[KeeperRig], Awaitable[None]], url: str) -> None:
    async def run() -> None:
        await case(_Place(url))

    asyncio.run(run())


def test_a_bucket_that_is_not_there_is_said(url: str, server: ObjectServer) -> None:
    other = url.replace(server.url, f"{server.url}-other")
    with pytest.raises(BlobError, match="can't store"):
        asyncio.run(BlobStore(other).put(DATA))


@pytest.mark.parametrize("server", [S3Server, AzureServer], ids=["s3", "azure"], indirect=True)
def test_a_wrong_key_is_said(url: str, server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server.secret is not None
    monkeypatch.setenv(server.secret, "d3Jvbmc=")
    with pytest.raises(BlobError, match="can't store") as raised:
        asyncio.run(BlobStore(url).put(DATA))
    assert "d3Jvbmc" not in str(raised.value)
