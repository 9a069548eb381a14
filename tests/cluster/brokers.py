"""The brokers that events are kept in: the NATS that the chart brings, and a Kafka beside the cluster, with a
store for blobs that speaks S3.
"""

from __future__ import annotations

import base64
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.cluster.platform import NAMESPACE
from tests.integration.blobs.servers import S3Server
from tests.integration.conftest import running
from torpor.events.brokers import Broker
from torpor.events.kafka_server import KafkaServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.cluster.clusters import Cluster
    from tests.cluster.platform import Platform

_KAFKA, _BLOBS = "torpor-kafka", "torpor-objects"


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
    store = S3Server(folder / "objects", host)
    with running(kafka), running(store):
        options = "".join(f"{name}={value}\n" for name, value in kafka.options.items())
        secrets = {_KAFKA: {"kafka.properties": options}, _BLOBS: store.variables}
        cluster.apply([_secret(name, data) for name, data in secrets.items()], NAMESPACE)
        try:
            platform.install(
                image,
                "nats.enabled=false",
                f"kafka.bootstrapServers={kafka.servers}",
                f"kafka.optionsSecret.name={_KAFKA}",
                f"blobs.url={store.url}/torpor",
                f"blobs.secret.name={_BLOBS}",
            )
            yield Broker(f"kafka://{kafka.servers}/torpor", options=kafka.options)
        finally:
            platform.install(image)
            cluster.kubectl("delete", "secret", *secrets, "--namespace", NAMESPACE)


def _secret(name: str, data: Mapping[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": dict(data)}


def this_machine(cluster: Cluster) -> str:
    """The address of this machine at which pods reach it: that from which it reaches their node."""
    node = cluster.get("nodes")["items"][0]
    [address] = [one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # nothing is sent
        return str(probe.getsockname()[0])
