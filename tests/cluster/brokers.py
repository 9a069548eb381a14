"""The brokers that events are kept in: the NATS that the chart brings, and a Kafka beside the cluster."""

from __future__ import annotations

import base64
import socket
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING

from tests.cluster.platform import NAMESPACE
from tests.integration.conftest import running
from torpor.blobs import BlobStore
from torpor.cluster import blobs
from torpor.events.brokers import Broker
from torpor.events.kafka_server import KafkaServer
from torpor.serving import listen, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.clusters import Cluster
    from tests.cluster.platform import Platform

_SECRET = "torpor-kafka"
_GRACE_SECONDS = 1


def on_nats(platform: Platform) -> Broker:
    """How this machine reaches the NATS of ``platform``."""
    secret = platform.cluster.get("secret", "torpor-nats", "--namespace", NAMESPACE)
    token = base64.b64decode(secret["data"]["token"]).decode()
    return Broker(f"nats://{platform.address('torpor-nats')}:4222", token=token)


@contextmanager
def on_kafka(platform: Platform, image: str, folder: Path, libraries: Path) -> Iterator[Broker]:
    """The platform keeps events in a Kafka that runs on this machine while the block is entered, and then
    in NATS again; ``libraries`` are Kafka's files.
    """
    cluster = platform.cluster
    host = this_machine(cluster)
    kafka = KafkaServer(folder / "kafka", libraries, sync="interval", host=host)
    store = _Blobs(folder / "blobs", host)
    with running(kafka), running(store):
        options = "".join(f"{name}={value}\n" for name, value in kafka.options.items())
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": _SECRET},
            "stringData": {"kafka.properties": options},
        }
        cluster.apply([secret], NAMESPACE)
        try:
            platform.install(
                image,
                "nats.enabled=false",
                f"kafka.bootstrapServers={kafka.servers}",
                f"kafka.optionsSecret.name={_SECRET}",
                f"blobs.url={store.url}",
            )
            yield Broker(f"kafka://{kafka.servers}/torpor", options=kafka.options)
        finally:
            platform.install(image)
            cluster.kubectl("delete", "secret", _SECRET, "--namespace", NAMESPACE)


class _Blobs:
    """Blobs in a folder, served as the platform serves those that it keeps in NATS."""

    def __init__(self, folder: Path, host: str) -> None:
        self._store = BlobStore(folder.as_uri())
        self._listener = listen(host, 0)
        self.url = f"http://{host}:{self._listener.getsockname()[1]}/blobs"
        self._serving = AsyncExitStack()

    async def start(self) -> None:
        app = blobs.app(self._store)
        await self._serving.enter_async_context(serving(app, self._listener, grace_seconds=_GRACE_SECONDS))

    async def close(self) -> None:
        await self._serving.aclose()


def this_machine(cluster: Cluster) -> str:
    """The address of this machine at which pods reach it: that from which it reaches their node."""
    node = cluster.get("nodes")["items"][0]
    [address] = [one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # nothing is sent
        return str(probe.getsockname()[0])
