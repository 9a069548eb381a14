"""Finds out by itself, sooner than the kubelet tells, when a pod takes connections.

A pod whose port accepts a connection is ready: that is all that the Knative runtime contract promises of any
image. It stays so until its address is taken back, or until the kubelet, which had found it ready, does no
longer; then it has to be proved anew.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torpor.clock import cancel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from torpor.clock import Clock
    from torpor.endpoint import Endpoint

_LOG = logging.getLogger("torpor.gateway")
PAUSE_SECONDS = 0.01
"""Between two probes of a pod that has just come."""
LONGEST_PAUSE_SECONDS = 0.5
"""And of one that takes long: a hundredth of the time that it has been waited for."""
_CONNECT_SECONDS = 0.25


async def connects(endpoint: Endpoint) -> bool:
    """Whether ``endpoint`` takes a connection now."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            transport, _ = await loop.create_connection(asyncio.Protocol, *endpoint)
    except (OSError, TimeoutError):
        return False
    transport.abort()
    return True


@dataclass(slots=True)
class _Pods:
    serving: dict[Endpoint, bool] = field(default_factory=dict)
    proved: set[Endpoint] = field(default_factory=set)
    probes: dict[Endpoint, asyncio.Task[None]] = field(default_factory=dict)
    published: tuple[Endpoint, ...] | None = ()
    publishing: asyncio.Task[None] | None = None


class Prober:
    """Publishes the proved addresses of each key. Belongs to one running loop."""

    def __init__(
        self,
        clock: Clock,
        publish: Callable[[str, Sequence[Endpoint]], Awaitable[None]],
        connects: Callable[[Endpoint], Awaitable[bool]] = connects,
    ) -> None:
        self._clock = clock
        self._publish = publish
        self._connects = connects
        self._keys: dict[str, _Pods] = {}

    def follow(self, key: str, addresses: Mapping[Endpoint, bool]) -> None:
        """Make ``addresses`` the ones of ``key``, with whether the kubelet finds them ready."""
        pods = self._keys.setdefault(key, _Pods())
        for endpoint in pods.serving.keys() - addresses.keys():
            self._drop(pods, endpoint)
        for endpoint, serving in addresses.items():
            if pods.serving.get(endpoint) and not serving:
                pods.proved.discard(endpoint)
            pods.serving[endpoint] = serving
            if endpoint not in pods.proved and endpoint not in pods.probes:
                pods.probes[endpoint] = asyncio.create_task(self._prove(key, pods, endpoint))
        self._changed(key, pods)
        if not addresses and pods.publishing is None:
            del self._keys[key]

    def publish_again(self, key: str) -> None:
        """Publish what is known of ``key`` once more."""
        pods = self._keys.get(key)
        if pods is not None:
            pods.published = None
            self._changed(key, pods)

    async def close(self) -> None:
        """Stop."""
        tasks: list[asyncio.Task[None]] = []
        for pods in self._keys.values():
            tasks += pods.probes.values()
            if pods.publishing is not None:
                tasks.append(pods.publishing)
        await cancel(*tasks)
        self._keys.clear()

    def _drop(self, pods: _Pods, endpoint: Endpoint) -> None:
        del pods.serving[endpoint]
        pods.proved.discard(endpoint)
        probe = pods.probes.pop(endpoint, None)
        if probe is not None:
            probe.cancel()

    async def _prove(self, key: str, pods: _Pods, endpoint: Endpoint) -> None:
        began = self._clock.monotonic()
        while not await self._connects(endpoint):
            waited_seconds = self._clock.monotonic() - began
            await self._clock.sleep(min(max(PAUSE_SECONDS, waited_seconds / 100), LONGEST_PAUSE_SECONDS))
        del pods.probes[endpoint]
        pods.proved.add(endpoint)
        self._changed(key, pods)

    def _changed(self, key: str, pods: _Pods) -> None:
        if pods.publishing is None and tuple(sorted(pods.proved)) != pods.published:
            pods.publishing = asyncio.create_task(self._tell(key, pods))

    async def _tell(self, key: str, pods: _Pods) -> None:
        """One at a time, so that what was true last is told last."""
        while (now := tuple(sorted(pods.proved))) != pods.published:
            pods.published = now
            _LOG.debug("%s: %s", key, ", ".join(map(str, now)) or "no instance")
            await self._publish(key, now)
        pods.publishing = None
        if not pods.serving:
            self._keys.pop(key, None)
