"""The incremental variant of the xDS protocol, as a server has to keep it; no sockets, no tasks.

A :class:`Store` has the resources, a :class:`Session` what one client subscribed to, was sent and
acknowledged. Clients subscribe by name; wildcards are left out, since nothing here uses them.

Source: Envoy's xDS protocol documentation, "Incremental xDS" (subscriptions, nonces, ACK and NACK,
``initial_resource_versions`` when a client comes back).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    Resource,
)

_BATCH = 500


class Change(NamedTuple):
    """A resource got this version; a version counts up over all resources and is never 0."""

    type_url: str
    name: str
    version: int


@dataclass(slots=True)
class _Entry:
    version: int
    payload: bytes | None  # None: it was removed


class Store:
    """Resources by type and name, serialised. ``epoch`` tells this store's versions from another one's."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self._version = 0
        self._entries: dict[str, dict[str, _Entry]] = defaultdict(dict)

    def put(self, type_url: str, name: str, payload: bytes) -> Change:
        """Set a resource; the version stays when nothing changes."""
        entry = self._entries[type_url].get(name)
        if entry is not None and entry.payload == payload:
            return Change(type_url, name, entry.version)
        return self._set(type_url, name, payload)

    def remove(self, type_url: str, name: str) -> Change:
        """Remove a resource; one that was never there changes nothing."""
        entry = self._entries[type_url].get(name)
        if entry is None or entry.payload is None:
            return Change(type_url, name, 0 if entry is None else entry.version)
        return self._set(type_url, name, None)

    def get(self, type_url: str, name: str) -> tuple[int, bytes | None]:
        """Version and content; version 0 for what was never there, no content for what is not there now."""
        entry = self._entries[type_url].get(name)
        return (0, None) if entry is None else (entry.version, entry.payload)

    def text(self, version: int) -> str:
        """``version`` as it is sent."""
        return f"{self.epoch}.{version}"

    def parse(self, text: str) -> int | None:
        """The number of a version of this store, ``None`` for another's."""
        epoch, _, number = text.rpartition(".")
        return int(number) if epoch == self.epoch and number.isdecimal() else None

    def _set(self, type_url: str, name: str, payload: bytes | None) -> Change:
        self._version += 1
        self._entries[type_url][name] = _Entry(self._version, payload)
        return Change(type_url, name, self._version)


@dataclass(slots=True)
class _Type:
    subscribed: set[str] = field(default_factory=set)
    dirty: dict[str, None] = field(default_factory=dict)  # to be sent; a dict keeps the order
    acked: dict[str, int] = field(default_factory=dict)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The client did not take a response in; ``names`` are the resources that were in it."""

    type_url: str
    names: tuple[str, ...]
    error: str


class Session:
    """One client's stream."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._types: dict[str, _Type] = defaultdict(_Type)
        self._under_way: dict[str, tuple[str, dict[str, int]]] = {}
        self._nonce = 0

    def changed(self, type_url: str, name: str) -> bool:
        """A resource has changed; whether the client is to be told."""
        kind = self._types[type_url]
        if name not in kind.subscribed:
            return False
        kind.dirty[name] = None
        return True

    def receive(self, request: DeltaDiscoveryRequest) -> Refusal | None:
        """Take a request in: subscriptions, and the answer to an earlier response."""
        kind = self._types[request.type_url]
        refusal = self._settle(request) if request.response_nonce else None
        for name, text in request.initial_resource_versions.items():
            version = self._store.parse(text)
            kind.subscribed.add(name)
            if version is not None:
                kind.acked[name] = version
            if version is None or version != self._store.get(request.type_url, name)[0]:
                kind.dirty[name] = None
        for name in request.resource_names_subscribe:
            if name in request.initial_resource_versions:
                continue
            # A name that is subscribed to again is sent again: the client may have dropped it in between.
            kind.subscribed.add(name)
            kind.dirty[name] = None
        for name in request.resource_names_unsubscribe:
            kind.subscribed.discard(name)
            kind.dirty.pop(name, None)
            kind.acked.pop(name, None)
            kind.refused.pop(name, None)
        return refusal

    def send(self) -> list[DeltaDiscoveryResponse]:
        """The responses that are due. Each is counted as sent."""
        responses = []
        for type_url, kind in self._types.items():
            while kind.dirty:
                names = list(kind.dirty)[:_BATCH]
                for name in names:
                    del kind.dirty[name]
                responses.append(self._response(type_url, names))
        return responses

    def state(self, change: Change) -> bool | str:
        """Whether the client has taken ``change`` in, or has no use for it; a text says why it refused it."""
        kind = self._types[change.type_url]
        if change.name not in kind.subscribed or kind.acked.get(change.name, -1) >= change.version:
            return True
        version, error = kind.refused.get(change.name, (-1, ""))
        return error if version >= change.version else False

    def _settle(self, request: DeltaDiscoveryRequest) -> Refusal | None:
        type_url, versions = self._under_way.pop(request.response_nonce, ("", {}))
        kind = self._types[type_url] if versions else None
        if kind is None:
            return None
        if not request.HasField("error_detail"):
            for name, version in versions.items():
                if name in kind.subscribed:
                    kind.acked[name] = max(version, kind.acked.get(name, -1))
                    kind.refused.pop(name, None)
            return None
        error = request.error_detail.message or f"code {request.error_detail.code}"
        for name, version in versions.items():
            kind.refused[name] = (version, error)
        return Refusal(type_url, tuple(versions), error)

    def _response(self, type_url: str, names: list[str]) -> DeltaDiscoveryResponse:
        self._nonce += 1
        response = DeltaDiscoveryResponse(type_url=type_url, nonce=str(self._nonce))
        versions = {}
        for name in names:
            version, payload = self._store.get(type_url, name)
            versions[name] = version
            if payload is None:
                response.removed_resources.append(name)
                continue
            resource: Resource = response.resources.add(name=name, version=self._store.text(version))
            resource.resource.type_url = type_url
            resource.resource.value = payload
        self._under_way[response.nonce] = (type_url, versions)
        return response
