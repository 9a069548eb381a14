"""Events on a real cluster: the fan-out example comes out whole while what carries it is killed."""

from __future__ import annotations

import asyncio
import io
import time
import urllib.error
import urllib.request
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, ImageChops
from ruamel.yaml import YAML

from tests.cluster.brokers import on_nats
from tests.cluster.killer import kill
from tests.cluster.platform import NAMESPACE, Platform, is_ready, names, until
from tests.cluster.settings import ROOT
from torpor.api.client import Client
from torpor.api.places import find as find_place
from torpor.events.jetstream import JetStreamLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.cluster.clusters import Cluster

EXAMPLE = ROOT / "functions" / "images"
PHOTO = EXAMPLE / "photo" / "retina.jpg"
PICTURES, TILES, SIDE = 5, 64, 2048
LIMIT_SECONDS = 420.0


@dataclass
class _Outcome:
    """What a broker has taken in, and what could not be delivered."""

    tiles: list[tuple[str, str]]
    resized: list[tuple[str, str]]
    pictures: list[str]
    dead: list[str]


class _Example:
    def __init__(self, platform: Platform, namespace: str) -> None:
        self.platform = platform
        self.cluster = platform.cluster
        self.namespace = namespace

    def declare(self, images: dict[str, str]) -> None:
        """What the example's file declares, with images instead of sources."""
        documents = list(YAML(typ="safe").load_all(EXAMPLE / "function.yaml"))
        for document in documents:
            spec = document["spec"]
            if document["kind"] == "Function":
                del spec["source"]
                spec["image"] = images[document["metadata"]["name"]]
        self.cluster.apply(documents, self.namespace)

    def upload(self, gateway: str, name: str) -> None:
        """Send the photo as an event, as often as it takes."""
        headers = {
            "ce-specversion": "1.0",
            "ce-id": name,
            "ce-source": "/test",
            "ce-type": "image.uploaded",
            "content-type": "image/jpeg",
        }
        url = f"{gateway}/events/{self.namespace}/default"

        def taken() -> bool:
            request = urllib.request.Request(url, PHOTO.read_bytes(), headers, method="POST")
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    return bool(response.status == 202)
            except OSError:  # every answer that is an error is one too
                return False

        until(taken, f"202 for {name}")

    @asynccontextmanager
    async def log(self) -> AsyncIterator[JetStreamLog]:
        broker = on_nats(self.platform)
        log = await JetStreamLog.connect(broker.url, token=broker.token, patience_seconds=60)
        try:
            yield log
        finally:
            await log.close()

    async def outcome(self, log: JetStreamLog) -> _Outcome:
        async def places(kind: str) -> list[tuple[str, str]]:
            found = [each.event.attributes async for each in log.read(stream, f"image=2E{kind}")]
            return [(each["fanoutid"], each["fanoutindex"]) for each in found]

        stream = f"broker.{self.namespace}.default"
        pictures = [each.event async for each in log.read(stream, "image=2Eresized")]
        dead = [each.event async for each in log.read(f"dead.{self.namespace}.default", ">")]
        return _Outcome(
            await places("tile"),
            await places("tile=2Eresized"),
            [each.attributes["dataref"] for each in pictures],
            [each.attributes["torporerror"] for each in dead],
        )

    def is_idle(self) -> bool:
        """Whether nothing waits, or is under way."""
        place = find_place("kube:", str(self.cluster.kubeconfig))
        with Client(place) as client:
            triggers = [one for one in client.triggers() if one.namespace == self.namespace]
        return all(one.ready and not one.pending for one in triggers)

    def picture(self, reference: str) -> Image.Image:
        """The picture in a blob, by the service of blobs."""
        path = reference.partition("/blobs/")[2]
        url = f"http://{self.platform.address('torpor-api')}:8082/blobs/{path}"
        with urllib.request.urlopen(url, timeout=30) as response:
            return Image.open(io.BytesIO(response.read())).convert("RGB")

    # --- disturbing -----------------------------------------------------------------------------------------

    def kill_leader(self) -> None:
        self.platform.kill_leader("events")

    def kill_another(self) -> None:
        self.platform.kill_pod(min(names(self.platform.parts("events")) - {self.platform.leader("events")}))

    def kill_nats(self) -> None:
        """Its process alone: what it has stored is in a volume that lives as long as its pod."""
        [pod] = self.platform.parts("nats")
        kill(self.platform, pod, "nats-server")


@pytest.fixture
def example(platform: Platform, namespace: str) -> Iterator[_Example]:
    made = _Example(platform, namespace)
    made.declare(platform.cluster.build(EXAMPLE))
    yield made
    platform.cluster.kubectl("delete", "functions,triggers,schedules", "--all", "-n", namespace)


def whole_parts(platform: Platform, component: str, least: int) -> None:
    until(
        lambda: sum(map(is_ready, platform.parts(component))) >= least, f"{least} ready pods of {component}"
    )


def test_every_tile_once_while_events_pods_and_nats_are_killed(platform: Platform, example: _Example) -> None:
    whole_parts(platform, "events", 2)
    asyncio.run(_disturbed(platform, example))


async def _disturbed(platform: Platform, example: _Example) -> None:
    began = time.monotonic()
    disturbances = {0.1: example.kill_leader, 0.4: example.kill_nats, 0.7: example.kill_another}
    with platform.reachable() as gateway:
        for number in range(PICTURES):
            await asyncio.to_thread(example.upload, gateway, f"picture-{number}")
    async with example.log() as log:
        left = sorted(disturbances)
        async with asyncio.timeout(LIMIT_SECONDS):
            while len((found := await example.outcome(log)).pictures) < PICTURES or left:
                if left and len(found.resized) >= left[0] * PICTURES * TILES:
                    print(f"\nafter {len(found.resized)} tiles: {disturbances[left[0]].__name__}")
                    await asyncio.to_thread(disturbances[left.pop(0)])
                await asyncio.sleep(0.5)
        whole_parts(platform, "events", 2)
        await asyncio.to_thread(until, example.is_idle, "that what was under way in killed pods came again")
        found = await example.outcome(log)
    print(f"{PICTURES} pictures of {TILES} tiles in {time.monotonic() - began:.0f} s")
    assert found.dead == []
    assert len(found.tiles) == len(set(found.tiles)) == PICTURES * TILES
    assert sorted(found.resized) == sorted(found.tiles)
    assert len(found.pictures) == PICTURES
    with Image.open(PHOTO) as photo:
        expected = photo.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    for reference in set(found.pictures):
        picture = await asyncio.to_thread(example.picture, reference)
        extremes: Any = ImageChops.difference(picture, expected).getextrema()
        assert max(high for _, high in extremes) <= 1


def test_the_lead_moves_within_seconds_when_a_pod_ends(platform: Platform, example: _Example) -> None:
    whole_parts(platform, "events", 2)
    until(lambda: platform.leader("events") != "", "a leader")
    before = platform.leader("events")
    began = time.monotonic()
    example.cluster.kubectl("delete", "pod", before, "-n", NAMESPACE, "--wait=false")
    until(lambda: platform.leader("events") not in ("", before), "another leader", 30)
    print(f"\nanother pod led {time.monotonic() - began:.1f} s after the deletion")
    whole_parts(platform, "events", 2)
    leader = platform.triggers(platform.leader("events"))
    assert leader[f"{example.namespace}/stitch-tiles"]["problem"] == ""


def test_producers_notice_no_rollout(cluster: Cluster, platform: Platform, example: _Example) -> None:
    """Every event is taken in at the first attempt while all events pods are replaced."""
    whole_parts(platform, "events", 2)
    trigger = f"{example.namespace}/stitch-tiles"
    until(lambda: bool(platform.states(trigger)), "that all events pods know the broker")
    with platform.reachable() as gateway:
        url = f"{gateway}/events/{example.namespace}/default"
        statuses: dict[Any, int] = {}
        cluster.kubectl("rollout", "restart", "deployment/torpor-events", "-n", NAMESPACE)
        deadline = time.monotonic() + 90
        number, done = 0, False
        while not done:
            headers = {"ce-specversion": "1.0", "ce-id": str(number), "ce-source": "/t", "ce-type": "nobody"}
            request = urllib.request.Request(url, b"", headers, method="POST")
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    status: Any = response.status
            except urllib.error.HTTPError as error:
                status = f"{error.code}: {error.read().decode()}"
            except OSError as error:
                status = repr(error)
            statuses[status] = statuses.get(status, 0) + 1
            number += 1
            if number % 50 == 0:
                done = _rolled_out(cluster)
            assert time.monotonic() < deadline
    print(f"\n{number} events while the pods were replaced")
    assert statuses == {202: number}


def _rolled_out(cluster: Cluster) -> bool:
    found = cluster.get("deployment", "torpor-events", "-n", NAMESPACE)
    pods = cluster.get("pods", "-n", NAMESPACE, "--selector=app.kubernetes.io/component=events")["items"]
    status = found["status"]
    return bool(
        status.get("observedGeneration") == found["metadata"]["generation"]
        and status.get("updatedReplicas") == status.get("readyReplicas") == found["spec"]["replicas"]
        and len(pods) == found["spec"]["replicas"]
    )
