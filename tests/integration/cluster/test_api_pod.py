"""The API as its pod runs it: an API server and clients on real ports, and a real NATS for blobs."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import httpx
import pytest

from torpor.api.pod import ApiPod
from torpor.errors import StartError
from torpor.providers.kubernetes.resources import FUNCTIONS
from torpor.settings import ApiSettings
from torpor.testing.kube import ApiServer
from torpor.testing.kube_http import HttpApiServer
from torpor.testing.served import served

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from torpor.events.nats_server import NatsServer


def run(
    folder: Path, case: Callable[[ApiPod, httpx.AsyncClient], Awaitable[None]], **variables: str
) -> ApiServer:
    server = ApiServer()
    server.put(FUNCTIONS, {"metadata": {"name": "f", "namespace": "n"}, "spec": {"image": "f:1"}})
    with served(HttpApiServer(server, "secret")) as where:
        context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
        document = {
            "clusters": [{"name": "x", "cluster": {"server": where.url}}],
            "users": [{"name": "x", "user": {"token": "secret"}}],
            "contexts": [context],
            "current-context": "x",
        }
        (folder / "kubeconfig").write_text(json.dumps(document))
        environment = {
            "KUBECONFIG": str(folder / "kubeconfig"),
            "TORPOR_HOST": "127.0.0.1",
            "TORPOR_HEALTH_PORT": "0",
            "TORPOR_HTTP_PORT": "0",
            "TORPOR_BLOBS_PORT": "0",
            **variables,
        }
        try:
            asyncio.run(_run(ApiPod(ApiSettings.from_environment(environment)), case))
        finally:
            where.run(server.disconnect)
    return server


async def _run(pod: ApiPod, case: Callable[[ApiPod, httpx.AsyncClient], Awaitable[None]]) -> None:
    ending = asyncio.Event()
    running = asyncio.create_task(pod.run(ending))
    async with asyncio.timeout(60), httpx.AsyncClient() as client:
        while "http" not in pod.ports or not await _ready(pod, client):
            assert not running.done(), running.result()
            await asyncio.sleep(0.01)
        await case(pod, client)
        ending.set()
        await running


async def _ready(pod: ApiPod, client: httpx.AsyncClient) -> bool:
    return (await client.get(f"http://127.0.0.1:{pod.ports['agent']}/healthz/ready")).is_success


def test_it_shows_the_cluster_and_writes_nothing(tmp_path: Path) -> None:
    async def case(pod: ApiPod, client: httpx.AsyncClient) -> None:
        base = f"http://127.0.0.1:{pod.ports['http']}/api/v1"
        listed = await client.get(f"{base}/functions", headers={"host": "kubernetes.example:6443"})
        assert [one["name"] for one in listed.json()["items"]] == ["f"]
        assert (await client.get(f"{base}/status")).json()["functions"] == 1
        assert (await client.get(f"{base}/openapi.json")).is_success

    assert run(tmp_path, case).writes == []


def test_without_a_place_for_blobs_the_rest_is_served(tmp_path: Path) -> None:
    async def case(pod: ApiPod, client: httpx.AsyncClient) -> None:
        refused = await client.put(f"http://127.0.0.1:{pod.ports['http']}/api/v1/blobs", content=b"x")
        assert refused.status_code == 503
        assert refused.json()["detail"] == (
            "this platform keeps no blobs: "
            "its chart has no blobs.url, which is needed where events are in Kafka"
        )
        refused = await client.put(f"http://127.0.0.1:{pod.ports['blobs']}/blobs", content=b"x")
        assert refused.status_code == 503

    run(tmp_path, case)


def test_while_nats_is_away_all_but_blobs_is_served(tmp_path: Path) -> None:
    async def case(pod: ApiPod, client: httpx.AsyncClient) -> None:
        refused = await client.get(f"http://127.0.0.1:{pod.ports['http']}/api/v1/blobs/{'0' * 64}")
        assert refused.status_code == 503
        name = "0" * 64
        assert refused.json()["detail"] == (
            f"can't read {name}: blobs can't be reached: NATS does not answer yet"
        )
        assert (await client.get(f"http://127.0.0.1:{pod.ports['http']}/api/v1/functions")).is_success

    run(tmp_path, case, TORPOR_BLOBS_STORE="nats://127.0.0.1:1")


@pytest.mark.parametrize("place", ["nats", "folder"])
@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, "http://torpor-api.torpor.svc:8082/blobs"),
        ({"TORPOR_PLATFORM_NAMESPACE": "x"}, "http://torpor-api.x.svc:8082/blobs"),
        ({"TORPOR_BLOBS_URL": "http://elsewhere/blobs"}, "http://elsewhere/blobs"),
    ],
)
def test_blobs_are_the_same_at_both_ports(
    place: str, variables: dict[str, str], url: str, tmp_path: Path, nats: NatsServer
) -> None:
    """And their addresses are what functions reach them by, wherever they are kept."""

    async def case(pod: ApiPod, client: httpx.AsyncClient) -> None:
        api, blobs = (f"http://127.0.0.1:{pod.ports[name]}" for name in ("http", "blobs"))
        stored = await client.put(f"{api}/api/v1/blobs", content=b"bytes")
        assert stored.status_code == 201
        name = stored.json()["name"]
        assert stored.json()["dataref"] == f"{url}/{name}"
        assert (await client.get(f"{blobs}/blobs/{name}")).content == b"bytes"
        assert (await client.get(f"{api}/api/v1/blobs/{name}")).content == b"bytes"

    store = nats.url if place == "nats" else (tmp_path / "blobs").as_uri()
    run(tmp_path, case, TORPOR_BLOBS_STORE=store, TORPOR_NATS_TOKEN=nats.token, **variables)


def test_a_place_of_another_kind_is_refused(tmp_path: Path) -> None:
    async def case(pod: ApiPod, client: httpx.AsyncClient) -> None:
        raise AssertionError("it is not served")

    with pytest.raises(StartError, match="'ftp://x' is no place for blobs; it begins with one of file://"):
        run(tmp_path, case, TORPOR_BLOBS_STORE="ftp://x")
