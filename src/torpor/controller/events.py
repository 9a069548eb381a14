"""Events on objects: what ``kubectl describe`` shows that happened to them. They hold nothing up."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from torpor.controller.status import READY, condition
from torpor.errors import ClusterError
from torpor.providers.kubernetes.resources import EVENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torpor.clock import Clock
    from torpor.providers.kubernetes.kube import Kube
    from torpor.providers.kubernetes.resources import Object

_LOG = logging.getLogger("torpor.controller")
_LONGEST_NOTE = 1024
# A function that comes and goes by the minute would bury everything else; its status and metrics tell of it.
_ROUTINE = frozenset(("AtRest", "Parked", "Serving", "Starting"))


class Recorder:
    """Writes events about objects; one that can't be written is logged and forgotten."""

    def __init__(self, kube: Kube, clock: Clock, identity: str) -> None:
        self._kube = kube
        self._clock = clock
        self._identity = identity

    async def changed(self, item: Object, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Tell when the condition ``Ready`` of ``item`` has another reason, or another revision serves.

        That it wakes and comes to rest is not told.
        """
        was, now = condition(before, READY), condition(after, READY)
        routine = was is not None and now is not None and {was["reason"], now["reason"]} <= _ROUTINE
        if now is not None and not routine and (was is None or was["reason"] != now["reason"]):
            await self.write(item, now["reason"], now["message"], warning=now["status"] == "False")
        revision = after.get("revision")
        if revision and revision != before.get("revision"):
            await self.write(item, "RevisionServes", f"requests go to {revision} now")

    async def write(self, item: Object, reason: str, note: str, *, warning: bool = False) -> None:
        """Write one event about ``item``."""
        metadata = item["metadata"]
        time = datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        event = {
            "apiVersion": EVENTS.api,
            "kind": EVENTS.kind,
            "metadata": {
                "name": f"{metadata['name']}.{uuid4().hex[:16]}",
                "namespace": metadata["namespace"],
            },
            "eventTime": time,
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "note": note[:_LONGEST_NOTE],
            "action": "Reconcile",
            "reportingController": "torpor.dev/controller",
            "reportingInstance": self._identity,
            "regarding": {
                "apiVersion": item["apiVersion"],
                "kind": item["kind"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
        }
        try:
            await self._kube.create(EVENTS, event)
        except ClusterError as error:
            _LOG.warning("an event about %s could not be written: %s", metadata["name"], error)
