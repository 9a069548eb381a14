"""A copy of the objects of one kind, kept up to date by a watch.

It says that something about an object has changed, never what: who listens looks at what holds now.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from torpor.errors import ClusterError, ClusterGoneError
from torpor.providers.kubernetes.resources import key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torpor.clock import Clock
    from torpor.providers.kubernetes.kube import Event, Kube, Listed
    from torpor.providers.kubernetes.resources import Object, Resource

_LOG = logging.getLogger("torpor.kubernetes")
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 10.0
WATCH_SECONDS = 540.0


class Mirror:
    """The objects that ``labels`` selects, by key; ``on_change`` gets each that changed, as it
    was seen last. With ``group`` they are found by what that makes of each, too.

    While the API server is away it keeps what it had.
    """

    def __init__(
        self,
        kube: Kube,
        resource: Resource,
        clock: Clock,
        on_change: Callable[[Object], None],
        *,
        namespace: str | None = None,
        labels: str = "",
        group: Callable[[Object], str] | None = None,
    ) -> None:
        self._kube = kube
        self._resource = resource
        self._clock = clock
        self._on_change = on_change
        self._namespace = namespace
        self._labels = labels
        self._group = group
        self._items: dict[str, Object] = {}
        self._groups: dict[str, dict[str, Object]] = {}
        self.synced = asyncio.Event()
        """Set once it has had all objects."""

    @property
    def items(self) -> Mapping[str, Object]:
        """What there is, to read only."""
        return self._items

    def of(self, group: str) -> list[Object]:
        """The objects of one group, by their keys in order."""
        return [item for _, item in sorted(self._groups.get(group, {}).items())]

    def wrote(self, item: Object) -> None:
        """Take over what a write answered with, so that what is decided next knows of it already."""
        known = self._items.get(key(item))
        if known is None or _version(known) < _version(item):
            self._put(_slim(item))

    async def run(self) -> None:
        """Go on for ever."""
        await follow(
            self._kube,
            self._resource,
            self._clock,
            self._list,
            self._take,
            namespace=self._namespace,
            labels=self._labels,
        )

    def _list(self, listed: Listed) -> None:
        before = self._items
        self._items, self._groups = {}, {}
        for item in listed.items:
            self._put(_slim(item))
        self.synced.set()
        for name in before.keys() | self._items.keys():
            now = self._items.get(name)
            if now != before.get(name):
                self._on_change(now or before[name])

    def _take(self, event: Event) -> None:
        item = event.item
        name = key(item)
        if event.change == "DELETED":
            self._drop(name)
        else:
            known = self._items.get(name)
            if known is not None and _version(known) > _version(item):
                return  # from before a write of ours, which is on its way as well
            self._put(_slim(item))
        self._on_change(item)

    def _put(self, item: Object) -> None:
        name = key(item)
        self._drop(name)  # it may have been of another group
        self._items[name] = item
        if self._group is not None:
            self._groups.setdefault(self._group(item), {})[name] = item

    def _drop(self, name: str) -> None:
        item = self._items.pop(name, None)
        if item is None or self._group is None:
            return
        group = self._group(item)
        del self._groups[group][name]
        if not self._groups[group]:
            del self._groups[group]


async def follow(
    kube: Kube,
    resource: Resource,
    clock: Clock,
    on_list: Callable[[Listed], None],
    on_event: Callable[[Event], None],
    *,
    namespace: str | None = None,
    labels: str = "",
    fields: str = "",
) -> None:
    """Tell of all objects that are selected, and then of each change of one, for ever.

    After a gap, all are told of anew. While the API server is away, nothing is.
    """
    pause_seconds = _FIRST_PAUSE_SECONDS
    version: str | None = None
    while True:
        try:
            if version is None:
                listed = await kube.list(resource, namespace, labels=labels, fields=fields)
                version = listed.version
                on_list(listed)
            async for event in kube.watch(
                resource,
                namespace,
                labels=labels,
                fields=fields,
                since=version,
                timeout_seconds=WATCH_SECONDS,
            ):
                version = event.version
                pause_seconds = _FIRST_PAUSE_SECONDS
                if event.change != "BOOKMARK":
                    on_event(event)
        except ClusterGoneError:
            version = None
        except ClusterError as error:
            _LOG.warning("%s can't be watched, trying again: %s", resource.plural, error)
            await clock.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)


def _slim(item: Object) -> Object:
    """``item`` without who owns which field, which is most of it."""
    item["metadata"].pop("managedFields", None)
    return item


def _version(item: Object) -> int:
    # Since Kubernetes 1.35 versions are numbers by contract, and they were before (KEP-5504).
    return int(item["metadata"]["resourceVersion"])
