"""Raises a function from zero to one pod, by the gateway itself: waking needs no controller.

More than one is the autoscaler's to say, as is everything after. A number that is not zero is left alone.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from torpor.clock import cancel
from torpor.errors import ClusterConflictError, ClusterError
from torpor.providers.kubernetes.resources import DEPLOYMENTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.clock import Clock
    from torpor.providers.kubernetes.kube import Kube

_LOG = logging.getLogger("torpor.gateway")
MANAGER = "torpor-gateway"
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 2.0


class Waker:
    """Wakes functions for as long as requests wait for them.

    ``revision`` says which Deployment serves a function, ``None`` while that is not known; ``waits`` whether
    a request waits for it. ``raised`` is told of a function that is not at zero any more.
    """

    def __init__(
        self,
        kube: Kube,
        clock: Clock,
        *,
        revision: Callable[[str], str | None],
        waits: Callable[[str], bool],
        raised: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._kube = kube
        self._clock = clock
        self._revision = revision
        self._waits = waits
        self._raised = raised
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def wake(self, key: str) -> None:
        """Have the function of that key wake, if it is not being woken already."""
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._wake(key))

    async def close(self) -> None:
        """Stop."""
        tasks = list(self._tasks.values())
        await cancel(*tasks)

    async def _wake(self, key: str) -> None:
        pause_seconds = _FIRST_PAUSE_SECONDS
        try:
            await self._raise(key)
            while True:
                # It is looked at again while somebody waits: whoever else scales may be of another mind.
                await self._clock.sleep(pause_seconds)
                if not self._waits(key):
                    return
                pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
                await self._raise(key)
        finally:
            del self._tasks[key]

    async def _raise(self, key: str) -> None:
        revision = self._revision(key)
        if revision is None:
            return
        namespace = key.partition("/")[0]
        try:
            scale = await self._kube.get(DEPLOYMENTS, namespace, revision, subresource="scale")
            if scale is None:
                return
            if scale["spec"].get("replicas", 0):
                self._raised(key)
                return
            version = scale["metadata"]["resourceVersion"]
            await self._kube.scale(DEPLOYMENTS, namespace, revision, 1, manager=MANAGER, version=version)
            self._raised(key)
        except ClusterConflictError:  # somebody else did, or it is looked at again
            return
        except ClusterError as error:
            _LOG.warning("%s can't be woken yet: %s", key, error)
