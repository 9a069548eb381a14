"""What the gateways see of functions' traffic, summed up for the autoscaler.

Totals never run backwards: a gateway that starts anew, or goes, takes away nothing of what was counted.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from torpor.controller import names
from torpor.controller.status import is_ready
from torpor.endpoint import Endpoint
from torpor.errors import ClusterUnreachableError, TransportError
from torpor.providers.kubernetes.mirror import Mirror
from torpor.providers.kubernetes.resources import PODS
from torpor.scaling.load import Load, decode, decode_active
from torpor.scaling.waiting import decode_waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torpor.clock import Clock
    from torpor.providers.kubernetes.kube import Kube
    from torpor.providers.kubernetes.resources import Object
    from torpor.scaling.waiting import Waiting
    from torpor.transport.client import Client

T = TypeVar("T")
_LOG = logging.getLogger("torpor.controller")
AGENT_PORT = "agent"
"""Name of the container port where a gateway pod serves ``GET /loads``."""
_TIMEOUT_SECONDS = 2.0
# What a gateway said last stands for it so long while it does not answer.
_STALE_SECONDS = 30.0


class GatewayLoads:
    """Asks every gateway pod in ``namespace`` that is ready."""

    def __init__(self, kube: Kube, client: Client, clock: Clock, namespace: str) -> None:
        self._client = client
        self._clock = clock
        self.mirror = Mirror(
            kube, PODS, clock, lambda _: None, namespace=namespace, labels=names.part("gateway")
        )
        self._last: dict[str, tuple[float, dict[str, Load]]] = {}
        self._totals: dict[str, int] = {}

    async def observe(self) -> Mapping[str, Load]:
        """The load of each function over all gateways; ``ClusterUnreachableError`` when none answers."""
        gateways = self._gateways()
        answers = await asyncio.gather(*(self._ask(uid, endpoint) for uid, endpoint in gateways.items()))
        if not any(answer is not None for answer in answers):
            raise ClusterUnreachableError(f"none of {len(gateways)} gateways tells its load")
        there = {pod["metadata"]["uid"] for pod in self.mirror.items.values()}
        for uid in self._last.keys() - there:
            del self._last[uid]
        concurrency: dict[str, float] = {}
        for answer in answers:
            for key, load in (answer or {}).items():
                concurrency[key] = concurrency.get(key, 0.0) + load.concurrency
        for key in self._totals.keys() - concurrency.keys():
            del self._totals[key]  # a total that begins anew is understood as such
        return {key: Load(value, self._totals.get(key, 0)) for key, value in concurrency.items()}

    async def active(self, key: str) -> Mapping[str, int]:
        """Requests under way by instance (``host:port``) of one function, by the gateways that answer."""
        told = await self._told(f"/active?{quote(key)}".encode(), decode_active)
        found: dict[str, int] = {}
        for answer in told:
            for instance, number in answer.items():
                found[instance] = found.get(instance, 0) + number
        return found

    async def waiting(self, key: str) -> list[Waiting]:
        """The traced requests that wait for one function, or just did, by the gateways that answer."""
        told = await self._told(f"/waiting?{quote(key)}".encode(), decode_waiting)
        return [one for answer in told for one in answer]

    def _gateways(self) -> dict[str, Endpoint]:
        return {
            pod["metadata"]["uid"]: endpoint
            for pod in self.mirror.items.values()
            if is_ready(pod) and (endpoint := agent(pod)) is not None
        }

    async def _told(self, path: bytes, decode: Callable[[bytes], T]) -> list[T]:
        """What those gateways that answer have at ``path``."""

        async def ask(endpoint: Endpoint) -> T | None:
            try:
                return decode(await self._page(endpoint, path))
            except (TransportError, ValueError) as error:
                _LOG.debug("the gateway at %s does not tell %s: %s", endpoint, path.decode(), error)
                return None

        answers = await asyncio.gather(*(ask(endpoint) for endpoint in self._gateways().values()))
        return [answer for answer in answers if answer is not None]

    async def _ask(self, uid: str, endpoint: Endpoint) -> dict[str, Load] | None:
        now = self._clock.monotonic()
        at, before = self._last.get(uid, (now, {}))
        try:
            loads = decode(await self._page(endpoint, b"/loads"))
        except (TransportError, ValueError) as error:
            _LOG.warning("the gateway at %s does not tell its load: %s", endpoint, error)
            return before if uid in self._last and now - at < _STALE_SECONDS else None
        for key, load in loads.items():
            counted = before[key].requests_total if key in before else 0
            more = load.requests_total - counted if load.requests_total >= counted else load.requests_total
            self._totals[key] = self._totals.get(key, 0) + more
        self._last[uid] = (now, loads)
        return loads

    async def _page(self, endpoint: Endpoint, path: bytes) -> bytes:
        """What an agent has at ``path``; raises ``TransportError``, and ``ValueError`` if that is nothing."""
        response = await self._client.request(
            endpoint, b"GET", path, b"", b"", timeout_seconds=_TIMEOUT_SECONDS
        )
        if response.status != 200:
            raise ValueError(f"it answered {response.status}")
        return response.body


def agent(pod: Object) -> Endpoint | None:
    """Where the agent of a gateway ``pod`` listens."""
    host = pod.get("status", {}).get("podIP")
    for container in pod["spec"]["containers"]:
        for port in container.get("ports", ()):
            if port.get("name") == AGENT_PORT and host:
                return Endpoint(host, port["containerPort"])
    return None
