"""Who leads: one of several processes, by a Lease that it renews.

Times are those of Kubernetes' own leader election: a leader that can't renew stops before another may begin.
Who waits does not ask again and again: it is told of renewals by a watch, and of the end at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from torpor.clock import cancel, happens_within
from torpor.errors import ClusterConflictError, ClusterError, ClusterMissingError
from torpor.providers.kubernetes.resources import LEASES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from torpor.clock import Clock
    from torpor.providers.kubernetes.kube import Kube
    from torpor.providers.kubernetes.resources import Object

_LOG = logging.getLogger("torpor.kubernetes")
LEASE_SECONDS = 15
RENEW_DEADLINE_SECONDS = 10.0
RETRY_SECONDS = 5.0
_WATCH_SECONDS = 540.0
_MARGIN_SECONDS = 0.05


class Leader:
    """Runs something while it holds the Lease ``name``; ``identity`` is this process's own.

    ``outlasts`` is for work that shuts out whoever led before by other means: it goes on while the lease
    can't be renewed, since nobody else can take it then either, and ends when another is seen to have it.
    """

    def __init__(
        self, kube: Kube, clock: Clock, *, namespace: str, name: str, identity: str, outlasts: bool = False
    ) -> None:
        self._kube = kube
        self._clock = clock
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._outlasts = outlasts
        self._seen: tuple[object, float] = (None, 0.0)
        self._version: str | None = None
        """Of the lease as it was when another was seen to have it."""
        self._held: Object | None = None
        """The lease as this process wrote it last: while nobody else writes it, renewing is one request."""
        self.leading = False

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Again and again: wait for the lease, run ``work`` until it is lost. An error of it is raised."""
        while True:
            while await self._acquire() is not True:
                await self._await_turn()
            _LOG.info("%s leads", self._identity)
            await self._lead(work)

    async def _await_turn(self) -> None:
        """Return when the lease may be free: given up, or not renewed for its whole time."""
        if self._version is None:  # whoever has it, or that nobody answers, was not seen
            await self._clock.sleep(RETRY_SECONDS)
            return
        freed = asyncio.Event()
        following = asyncio.ensure_future(self._follow(self._version, freed))
        try:
            while not freed.is_set():
                left_seconds = LEASE_SECONDS - (self._clock.monotonic() - self._seen[1])
                if left_seconds < 0:
                    return
                await happens_within(self._clock, left_seconds + _MARGIN_SECONDS, freed)
        finally:
            await cancel(following)

    async def _follow(self, version: str, freed: asyncio.Event) -> None:
        """See each renewal since ``version``; set ``freed`` when the lease is, or no more is to be seen."""
        try:
            async for event in self._kube.watch(
                LEASES, self._namespace, name=self._name, since=version, timeout_seconds=_WATCH_SECONDS
            ):
                if event.change == "BOOKMARK":
                    continue
                spec = event.item.get("spec", {})
                if event.change == "DELETED" or not spec.get("holderIdentity"):
                    break
                self._notice(spec)
        except ClusterError as error:
            _LOG.debug("the lease can't be watched: %s", error)
            await self._clock.sleep(RETRY_SECONDS)
        freed.set()

    async def _lead(self, work: Callable[[], Awaitable[None]]) -> None:
        self.leading = True
        working, keeping = asyncio.ensure_future(work()), asyncio.ensure_future(self._keep())
        try:
            await asyncio.wait((working, keeping), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            self.leading = False
            await cancel(working, keeping)
            await self._release()

    async def _keep(self) -> None:
        """Renew; returns when that has failed for too long."""
        renewed_at = self._clock.monotonic()
        while self._outlasts or self._clock.monotonic() - renewed_at < RENEW_DEADLINE_SECONDS:
            await self._clock.sleep(RETRY_SECONDS)
            now = self._clock.monotonic()
            kept = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RENEW_DEADLINE_SECONDS / 2):
                    kept = await self._acquire()
            if kept:
                renewed_at = now
            elif kept is not None:
                _LOG.warning("another has taken the lead")
                return
        _LOG.warning("the lead could not be renewed and is given up")

    async def _acquire(self) -> bool | None:
        """Take or renew the lease; whether it is ours then, ``None`` if that is not known."""
        held, self._held, self._version = self._held, None, None
        try:
            lease = held or await self._kube.get(LEASES, self._namespace, self._name)
            if lease is None:
                self._held = await self._kube.create(LEASES, self._lease({}, 0))
                return True
            spec = lease.get("spec", {})
            if not self._may_take(spec):
                self._version = lease["metadata"]["resourceVersion"]
                return False
            changes = spec.get("leaseTransitions", 0) + (spec.get("holderIdentity") != self._identity)
            self._held = await self._kube.replace(LEASES, self._lease(lease, changes))
        except (ClusterConflictError, ClusterMissingError) as error:
            if held is not None:  # somebody else has written it, or taken it away: see what it is now
                return await self._acquire()
            _LOG.debug("the lease could not be taken: %s", error)
            return None
        except ClusterError as error:
            _LOG.debug("the lease could not be taken: %s", error)
            return None
        return True

    def _may_take(self, spec: Object) -> bool:
        holder = spec.get("holderIdentity")
        if not holder or holder == self._identity:
            return True
        if self._notice(spec):
            return False
        age_seconds = self._clock.monotonic() - self._seen[1]
        return bool(age_seconds > spec.get("leaseDurationSeconds", LEASE_SECONDS))

    def _notice(self, spec: Object) -> bool:
        """Remember who holds the lease and when that was seen; whether it is news.

        Clocks of two machines are not compared: a lease is dead when it was not seen to change for long.
        """
        record = (spec.get("holderIdentity"), spec.get("renewTime"))
        if record == self._seen[0]:
            return False
        self._seen = (record, self._clock.monotonic())
        return True

    async def _release(self) -> None:
        self._held = None
        with contextlib.suppress(ClusterError, TimeoutError):
            async with asyncio.timeout(RENEW_DEADLINE_SECONDS / 2):
                lease = await self._kube.get(LEASES, self._namespace, self._name)
                if lease is not None and lease.get("spec", {}).get("holderIdentity") == self._identity:
                    body = {"metadata": {"resourceVersion": lease["metadata"]["resourceVersion"]}}
                    await self._kube.patch(
                        LEASES, self._namespace, self._name, {**body, "spec": {"holderIdentity": ""}}
                    )

    def _lease(self, before: Object, changes: int) -> Object:
        now = datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = before.get("spec", {})
        acquired = spec.get("acquireTime", now) if spec.get("holderIdentity") == self._identity else now
        return {
            "apiVersion": LEASES.api,
            "kind": LEASES.kind,
            "metadata": before.get("metadata") or {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": LEASE_SECONDS,
                "acquireTime": acquired,
                "renewTime": now,
                "leaseTransitions": changes,
            },
        }
