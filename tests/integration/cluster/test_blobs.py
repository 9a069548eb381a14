"""Blobs in a real NATS, by themselves and over HTTP as functions reach them: contract, bounds, outages."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

pytest.register_assert_rewrite("torpor.testing.contracts.blob_store")

from torpor.blobs import MAX_BLOB_BYTES, BlobStore  # noqa: E402
from torpor.clock import SystemClock  # noqa: E402
from torpor.cluster import blobs as served  # noqa: E402
from torpor.errors import BlobError, BlobNotFoundError  # noqa: E402
from torpor.events.jetstream_api import Api  # noqa: E402
from torpor.events.nats_place import NatsPlace  # noqa: E402
from torpor.events.nats_server import NatsServer  # noqa: E402
from torpor.events.object_store import CHUNK_BYTES, ObjectStore  # noqa: E402
from torpor.serving import serving  # noqa: E402
from torpor.testing.contracts.blob_store import CASES, DATA, KEEPER_CASES, NAME  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from torpor.blobs import Keeper
    from torpor.testing.contracts.blob_store import BlobRig, KeeperRig, Store


class _Bucket:
    """A bucket of its own, served over HTTP."""

    def __init__(self, keeper: NatsPlace, bucket: str, url: str, nats: Api) -> None:
        self.keeper: Keeper = keeper
        self.blobs = BlobStore(url, keeper)
        self.stream = f"OBJ_{bucket}"
        self.url = url
        self.http = BlobStore(url)
        self.store: Store = self.blobs
        self.api = nats
        self.objects = ObjectStore(nats, bucket)

    async def kept(self) -> int:
        info = await self.api.call(f"STREAM.INFO.{self.stream}")
        return int(info["state"]["messages"])

    async def damage(self, name: str) -> None:
        entry = await self.objects.find(name)
        assert entry is not None
        await self.objects.forget(entry.run)
        await self.objects.publish(self.objects.chunk_subject(entry.run), b"other bytes!", {})

    async def leave_upload(self) -> None:
        await self.objects.writer().write(b"half")


@asynccontextmanager
async def _bucket(nats: NatsServer, max_blob_bytes: int = MAX_BLOB_BYTES) -> AsyncIterator[_Bucket]:
    bucket = f"test-{uuid.uuid4().hex}"
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/blobs"
    clock = SystemClock()
    keeper = NatsPlace(nats.url, clock, token=nats.token, bucket=bucket, patience_seconds=5)
    behind = await Api.connect(nats.url, token=nats.token, name="test", clock=clock, patience_seconds=5)
    try:
        app = served.app(BlobStore(url, keeper), max_blob_bytes=max_blob_bytes)
        async with serving(app, listener, grace_seconds=1):
            made = _Bucket(keeper, bucket, url, behind)
            await made.objects.ensure()
            yield made
    finally:
        await keeper.close()
        await behind.close()


@pytest.mark.parametrize("way", ["nats", "http"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_contract(case: Callable[[BlobRig], Awaitable[None]], way: str, nats: NatsServer) -> None:
    async def run() -> None:
        async with _bucket(nats) as bucket:
            if way == "http":
                bucket.store = bucket.http
            await case(bucket)

    asyncio.run(run())


@pytest.mark.parametrize("case", KEEPER_CASES, ids=lambda case: case.__name__)
def test_contract_of_what_keeps_them(case: Callable[[KeeperRig], Awaitable[None]], nats: NatsServer) -> None:
    async def run() -> None:
        async with _bucket(nats) as bucket:
            await case(bucket)

    asyncio.run(run())


def test_what_http_says(nats: NatsServer) -> None:
    async def run() -> None:
        async with _bucket(nats, 1000) as bucket, httpx.AsyncClient() as client:
            put = await client.put(bucket.url, content=DATA, headers={"content-type": "text/plain"})
            assert (put.status_code, put.json()) == (201, {"name": NAME, "dataref": f"{bucket.url}/{NAME}"})
            got = await client.get(f"{bucket.url}/{NAME}")
            assert (got.status_code, got.content, got.headers["content-type"]) == (200, DATA, "text/plain")
            assert got.headers["x-content-type-options"] == "nosniff"
            head = await client.head(f"{bucket.url}/{NAME}")
            assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "12")
            statuses = {
                "unknown": (await client.get(f"{bucket.url}/{'0' * 64}")).status_code,
                "no name": (await client.get(f"{bucket.url}/../blobs/x")).status_code,
                "elsewhere": (await client.get(bucket.url.removesuffix("blobs"))).status_code,
                "list": (await client.get(bucket.url)).status_code,
                "delete": (await client.delete(f"{bucket.url}/{NAME}")).status_code,
                "large": (await client.put(bucket.url, content=b"x" * 1001)).status_code,
                "type": (
                    await client.put(bucket.url, content=b"x", headers={"content-type": "x" * 300})
                ).status_code,
            }
            assert statuses == {
                "unknown": 404,
                "no name": 404,
                "elsewhere": 404,
                "list": 405,
                "delete": 405,
                "large": 413,
                "type": 400,
            }

    asyncio.run(run())


def test_an_upload_whose_client_leaves_leaves_nothing(nats: NatsServer) -> None:
    async def run() -> None:
        async with _bucket(nats) as bucket:
            host, _, port = bucket.url.removeprefix("http://").removesuffix("/blobs").partition(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"PUT /blobs HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000\r\n\r\n")
            writer.write(b"x" * 3 * CHUNK_BYTES)
            async with asyncio.timeout(20):
                while not await bucket.kept():
                    await asyncio.sleep(0.01)
                writer.transport.abort()
                while await bucket.kept():
                    await asyncio.sleep(0.01)

    asyncio.run(run())


def test_two_writers_of_the_same_blob_leave_one(nats: NatsServer) -> None:
    async def run() -> None:
        async with _bucket(nats) as bucket:
            data = b"x" * (2 * CHUNK_BYTES + 1)
            references = await asyncio.gather(*(bucket.blobs.put(data) for _ in range(8)))
            assert len(set(references)) == 1
            assert await bucket.kept() == 3 + 1
            assert await bucket.http.get(references[0]) == data

    asyncio.run(run())


def test_an_outage_of_nats_is_waited_out_or_said(tmp_path: Path) -> None:
    async def run() -> None:
        nats = NatsServer(tmp_path)
        await nats.start()
        async with _bucket(nats) as bucket:
            reference = await bucket.http.put(DATA)
            await nats.close()
            putting = asyncio.ensure_future(bucket.blobs.put(b"in the outage"))
            await nats.start()
            assert await bucket.http.get(await putting) == b"in the outage"
            assert await bucket.http.get(reference) == DATA
            await nats.close()
            with pytest.raises(BlobError, match="can't store"):
                await bucket.blobs.put(b"too long")

    asyncio.run(run())


def test_a_service_that_is_away_is_said(nats: NatsServer) -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        store = BlobStore(f"http://127.0.0.1:{port}/blobs")
        with pytest.raises(BlobError, match="no connection"):
            await store.put(DATA)

    asyncio.run(run())


def test_an_answer_that_is_no_blob_service_s_is_refused() -> None:
    async def run() -> None:
        async def app(scope: object, receive: object, send: Callable[[object], Awaitable[None]]) -> None:
            body = json.dumps({"name": hashlib.sha256(b"other").hexdigest()}).encode()
            headers = [(b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 201, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        listener = socket.create_server(("127.0.0.1", 0))
        async with serving(app, listener, grace_seconds=1) as endpoint:
            store = BlobStore(f"http://{endpoint}/blobs")
            with pytest.raises(BlobError, match="other bytes arrived"):
                await store.put(DATA)
            with pytest.raises(BlobNotFoundError):
                await store.open("../x")
            with pytest.raises(BlobError, match="damaged"):
                await store.get(f"http://{endpoint}/blobs/{NAME}")

    asyncio.run(run())
