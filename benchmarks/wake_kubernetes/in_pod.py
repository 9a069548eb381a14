"""Measures inside the cluster, in a pod of the platform's image: one JSON line for each wake on its output.

A wake is measured from before the first byte that asks for it to the end of the first answer: for the bare
Deployment from the call that scales it, for functions from the request to the gateway. Each begins with
nothing of its own left over from the one before. Arguments: namespace, gateway's host, rounds, parked wakes.
"""

from __future__ import annotations

import asyncio
import copy
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import uvloop

from torpor.providers.kubernetes.connection import connect
from torpor.providers.kubernetes.resources import DEPLOYMENTS, PODS

if TYPE_CHECKING:
    from torpor.providers.kubernetes.kube import Kube

LABEL = "bare-wake"
REVISIONS = {"zero": "zero-00001", "parked": "parked-00001"}
QUIET_SECONDS = 1.0
PROBE_SECONDS = 0.01  # as a gateway's own
LIMIT_SECONDS = 120.0


class Bench:
    """One namespace with the functions ``zero`` and ``parked``."""

    def __init__(self, kube: Kube, session: aiohttp.ClientSession, namespace: str, gateway: str) -> None:
        self._kube = kube
        self._session = session
        self._namespace = namespace
        self._gateway = gateway

    async def prepare(self) -> None:
        """Make a Deployment that is nobody's, of just such pods as a function's."""
        await self._until(lambda: self._kube.get(DEPLOYMENTS, self._namespace, REVISIONS["zero"]))
        template = await self._kube.get(DEPLOYMENTS, self._namespace, REVISIONS["zero"])
        spec = copy.deepcopy(template["spec"]) if template is not None else {}
        spec["replicas"] = 0
        spec["selector"] = {"matchLabels": {LABEL: "yes"}}
        spec["template"]["metadata"]["labels"] = {LABEL: "yes"}
        for constraint in spec["template"]["spec"].get("topologySpreadConstraints", ()):
            constraint["labelSelector"] = spec["selector"]
        metadata = {"name": "bare", "namespace": self._namespace}
        bare = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
        await self._kube.create(DEPLOYMENTS, bare)
        await asyncio.sleep(QUIET_SECONDS)

    async def bare(self) -> dict[str, float]:
        """Seconds from the scaling to each thing seen on the way, and to the first answer."""
        await self._quiet()
        listed = await self._kube.list(PODS, self._namespace, labels=f"{LABEL}=yes")
        marks: dict[str, float] = {}
        began = time.perf_counter()

        def mark(name: str) -> None:
            marks.setdefault(name, time.perf_counter() - began)

        await self._kube.scale(DEPLOYMENTS, self._namespace, "bare", 1)
        mark("scaled")
        address = await self._address(listed.version, mark)
        while not await self._answers(f"http://{address}:8080/?name=Ada"):
            await asyncio.sleep(PROBE_SECONDS)
        mark("answer")
        await self._kube.scale(DEPLOYMENTS, self._namespace, "bare", 0)
        return marks

    async def _address(self, since: str, mark: Any) -> str:
        async for event in self._kube.watch(PODS, self._namespace, labels=f"{LABEL}=yes", since=since):
            mark("made")
            if event.item["spec"].get("nodeName"):
                mark("scheduled")
            address = event.item.get("status", {}).get("podIP")
            if address:
                mark("address")
                return str(address)
        raise TimeoutError("no pod has an address")

    async def zero(self) -> dict[str, float]:
        """Seconds of a request to a function that is at zero."""
        await self._quiet()
        return await self.request("zero")

    async def parked(self) -> dict[str, float]:
        """Seconds of a request to a function that rests parked."""

        async def rests() -> bool:
            listed = await self._kube.list(PODS, self._namespace, labels="torpor.dev/function=parked")
            [*states] = [pod["status"].get("containerStatuses", [{}])[0] for pod in listed.items]
            asked = [one.get("resources", {}).get("requests", {}).get("cpu") for one in states]
            return asked == ["1m"]

        await self._until(rests)
        return await self.request("parked")

    async def request(self, function: str) -> dict[str, float]:
        """Seconds of a request to a function, however it rests."""
        began = time.perf_counter()
        url = f"http://{self._gateway}/function/{function}.{self._namespace}/?name=Ada"
        async with self._session.get(url) as response:
            text = await response.text()
            assert response.status == 200, text
        return {"answer": time.perf_counter() - began}

    async def _answers(self, url: str) -> bool:
        try:
            async with self._session.get(url) as response:
                await response.read()
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def _quiet(self) -> None:
        """Nothing is left of the wakes before, and nothing on its way out takes the processor."""

        async def none() -> bool:
            selectors = (f"{LABEL}=yes", "torpor.dev/function=zero")
            found = [await self._kube.list(PODS, self._namespace, labels=labels) for labels in selectors]
            return not any(listed.items for listed in found)

        await self._until(none)
        await asyncio.sleep(QUIET_SECONDS)

    async def _until(self, holds: Any) -> None:
        async with asyncio.timeout(LIMIT_SECONDS):
            while not await holds():
                await asyncio.sleep(0.25)


async def main(namespace: str, gateway: str, rounds: int, parked: int) -> None:
    """Measure, and print."""
    kube = await connect()
    # A new connection each time, as a caller who comes seldom has it.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        bench = Bench(kube, session, namespace, gateway)
        await bench.prepare()
        for _ in range(rounds):
            for name, measure in (("bare", bench.bare), ("zero", bench.zero)):
                print(json.dumps({"what": name, **await measure()}), flush=True)
        await bench.request("parked")
        for _ in range(parked):
            print(json.dumps({"what": "parked", **await bench.parked()}), flush=True)
    await kube.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
