"""An API server in memory, for tests of what reads and writes Kubernetes' objects.

It keeps what :mod:`torpor.testing.contracts.kube` says, the same as a real one: versions and generations,
server-side apply with an owner for every field, watches, conflicts, subresources, finalizers and the
collection of what an owner leaves behind. It checks no schema, admits everything, and runs no controller of
Kubernetes.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import re
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from torpor.errors import ClusterUnreachableError
from torpor.providers.kubernetes import resources
from torpor.providers.kubernetes.kube import Kube
from torpor.testing.applied import Owned, apply, changed, merge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from torpor.providers.kubernetes.kube import Call
    from torpor.providers.kubernetes.resources import Object, Resource

_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<subresource>[^/]+))?)?\Z"
)
_SCALES = {"deployments": ("spec", "replicas"), "functions": ("spec", "scaling", "minScale")}
_WITH_STATUS = frozenset(
    (
        *("deployments", "functions", "triggers", "schedules", "pods", "services"),
        *("poddisruptionbudgets", "namespaces"),
    )
)
_KNOWN = {
    (one.api, one.plural): one for one in vars(resources).values() if isinstance(one, resources.Resource)
}


class _RefusalError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, reason: str, message: str, causes: Sequence[Object] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.document = {
            "kind": "Status", "apiVersion": "v1", "status": "Failure",
            "code": status, "reason": reason, "message": message, "details": {"causes": causes},
        }  # fmt: skip


@dataclass(slots=True)
class _Stored:
    item: Object
    owned: Owned = field(default_factory=dict)


@dataclass(slots=True)
class _Collection:
    resource: Resource
    objects: dict[str, _Stored] = field(default_factory=dict)
    history: list[tuple[int, str, Object, Object | None]] = field(default_factory=list)
    """Version, change, the object after it, and the one before it."""


@dataclass(frozen=True, slots=True)
class Write:
    """One write that came, whether or not it was let through."""

    method: str
    path: str
    manager: str
    body: Object | None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class ApiServer:
    """The server. ``fail`` sees each call first: a status that it returns is the answer, and nothing is done.

    With ``lose`` holding for a call, it is done and the answer never comes. ``writes`` has every write.
    """

    def __init__(self, *, now: Callable[[], str] = lambda: "2026-01-01T00:00:00Z") -> None:
        self._now = now
        self._version = itertools.count(1)
        self._last = 0
        self._oldest = 0
        self._collections: dict[tuple[str, str], _Collection] = {}
        self._news = asyncio.Event()
        self._epoch = 0
        self._texts: dict[str, list[str]] = {}
        self._ended: set[str] = set()
        self.extra: tuple[str, ...] = ("pods/resize",)
        """What of ``v1`` not every version of Kubernetes has."""
        self.writes: list[Write] = []
        self.calls: list[Call] = []
        self.fail: Callable[[Call], int | None] = lambda _: None
        self.lose: Callable[[Call], bool] = lambda _: False

    def kube(self) -> Kube:
        """A client of this server."""
        return Kube(_MemoryTransport(self))

    # --- what a test does beside ------------------------------------------------------------------------

    def put(self, resource: Resource, item: Object) -> Object:
        """Store ``item`` as it is, its status too, as if a controller of Kubernetes had written it."""
        item = {"apiVersion": resource.api, "kind": resource.kind, **copy.deepcopy(item)}
        collection = self._collection(resource)
        stored = collection.objects.get(resources.key(item))
        if stored is None:
            self._born(item)
            stored = collection.objects[resources.key(item)] = _Stored(item)
            self._record(collection, "ADDED", stored, None)
            return copy.deepcopy(item)
        item["metadata"] = {**stored.item["metadata"], **item["metadata"]}
        self._changed(collection, stored, item)
        return copy.deepcopy(stored.item)

    def read(self, resource: Resource, key: str) -> Object | None:
        """One object by ``namespace/name``."""
        stored = self._collection(resource).objects.get(key)
        return None if stored is None else copy.deepcopy(stored.item)

    def all(self, resource: Resource) -> list[Object]:
        """All objects of a kind, by key."""
        return [
            copy.deepcopy(stored.item) for _, stored in sorted(self._collection(resource).objects.items())
        ]

    def remove(self, resource: Resource, key: str) -> None:
        """Take an object away at once, finalizers or not."""
        collection = self._collection(resource)
        self._gone(collection, collection.objects[key])

    def write_logs(self, key: str, lines: list[str], *, previous: bool = False) -> None:
        """What the container of the pod ``key`` wrote; who follows gets what is new."""
        self._texts[f"{key}/{previous}"] = lines
        self._wake()

    def end_logs(self, key: str) -> None:
        """The container of the pod ``key`` has ended, and whoever follows what it writes is told so."""
        self._ended.add(key)
        self._wake()

    def bookmark(self) -> None:
        """Tell every watch which version it is at."""
        self._last = next(self._version)
        for collection in self._collections.values():
            head = {"apiVersion": collection.resource.api, "kind": collection.resource.kind}
            item = {**head, "metadata": {"resourceVersion": str(self._last)}}
            collection.history.append((self._last, "BOOKMARK", item, None))
        self._wake()

    def disconnect(self) -> None:
        """End every watch that is open now."""
        self._epoch += 1
        self._wake()

    def compact(self) -> None:
        """Forget all changes until now: a watch from before has to list anew."""
        self._oldest = self._last
        for collection in self._collections.values():
            collection.history.clear()

    # --- calls ------------------------------------------------------------------------------------------

    def answer(self, call: Call) -> tuple[int, bytes]:
        """Do what ``call`` asks."""
        self.calls.append(call)
        if call.method != "GET":
            self.writes.append(
                Write(call.method, call.path, call.query.get("fieldManager", ""), copy.deepcopy(call.body))
            )
        injected = self.fail(call)
        if injected is not None:
            text = {"kind": "Status", "code": injected, "reason": "Injected", "message": "it was to fail"}
            return injected, orjson.dumps(text)
        document: Any
        try:
            status, document = self._try(call) if call.query.get("dryRun") == "All" else self._do(call)
        except _RefusalError as refusal:
            status, document = refusal.status, refusal.document
        if self.lose(call):
            raise ClusterUnreachableError("the answer was lost")
        return status, document if isinstance(document, bytes) else orjson.dumps(document)

    def _try(self, call: Call) -> tuple[int, Any]:
        """What would come of ``call``."""
        collections, last = self._collections, self._last
        self._collections = copy.deepcopy(collections)
        try:
            return self._do(call)
        finally:
            self._collections, self._last = collections, last

    def _do(self, call: Call) -> tuple[int, Any]:
        if call.path == "/api/v1" and call.method == "GET":
            return 200, {"resources": [{"name": name} for name in ("pods", "pods/status", *self.extra)]}
        match = _PATH.match(call.path)
        if match is None:
            raise _RefusalError(404, "NotFound", "the server could not find the requested resource")
        api = match["core"] or match["group"]
        resource = _KNOWN.get((api, match["plural"]))
        if resource is None:
            raise _RefusalError(404, "NotFound", "the server could not find the requested resource")
        collection = self._collection(resource)
        name, namespace = match["name"], match["namespace"]
        if name is None:
            if call.method == "POST":
                return 201, self._create(collection, _body(call), namespace, call)
            return 200, self._list(collection, namespace, call)
        key = f"{namespace}/{name}" if namespace else name
        if match["subresource"] == "log":
            lines = self._texts.get(f"{key}/{call.query.get('previous') == 'true'}", [])
            return 200, "\n".join(lines[-int(call.query.get("tailLines", len(lines))) :]).encode()
        stored = collection.objects.get(key)
        if stored is None:
            if call.method == "PATCH" and _is_apply(call) and match["subresource"] is None:
                return 201, self._create(collection, _body(call), namespace, call)
            raise _RefusalError(404, "NotFound", f'{match["plural"]} "{name}" not found')
        return 200, self._do_to(collection, stored, match["subresource"], call)

    def _do_to(self, collection: _Collection, stored: _Stored, subresource: str | None, call: Call) -> Object:
        plural = collection.resource.plural
        if subresource == "status" and plural not in _WITH_STATUS:
            raise _RefusalError(404, "NotFound", "the server could not find the requested resource")
        if call.method == "GET":
            return self._shown(collection, stored, subresource)
        if call.method == "DELETE":
            return self._delete(collection, stored, call)
        before, body = stored.item, _body(call)
        version = body.get("metadata", {}).get("resourceVersion")
        if version is not None and version != before["metadata"]["resourceVersion"]:
            name = before["metadata"]["name"]
            raise _RefusalError(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {plural} "{name}": the object has been modified',
            )
        if subresource == "scale":
            self._scale(collection, stored, call)
            return self._shown(collection, stored, subresource)
        if subresource == "resize":
            return self._resize(collection, stored, call)
        uid = body.get("metadata", {}).get("uid")
        if uid is not None and uid != before["metadata"]["uid"]:
            raise _RefusalError(409, "Conflict", f"Precondition failed: UID in precondition: {uid}")
        self._write(collection, stored, body, subresource, call)
        return copy.deepcopy(stored.item)

    def _write(
        self, collection: _Collection, stored: _Stored, body: Object, subresource: str | None, call: Call
    ) -> None:
        manager = call.query.get("fieldManager", "unknown")
        before = stored.item
        owned = stored.owned
        part = _part(body, subresource, collection.resource)
        if _is_apply(call):
            force = call.query.get("force") == "true"
            after, owned, conflict = apply(before, owned, manager, part, subresource or "", force=force)
            if conflict:
                raise _RefusalError(409, "Conflict", f"Apply failed with conflict: {conflict}")
        elif call.method == "PATCH":
            after = merge(before, part)
            owned = changed(owned, manager, before, after)
        else:
            after = {**before, **part, "metadata": {**before["metadata"], **part["metadata"]}}
            for gone in set(before) - set(part) - {"status"} if subresource is None else ():
                del after[gone]
            owned = changed(owned, manager, before, after)
        stored.owned = owned
        self._default(collection.resource, after)
        self._changed(collection, stored, after)

    def _create(self, collection: _Collection, body: Object, namespace: str | None, call: Call) -> Object:
        item = copy.deepcopy(body)
        resource = collection.resource
        item |= {"apiVersion": resource.api, "kind": resource.kind}
        if resource.plural in _WITH_STATUS:
            item.pop("status", None)
        metadata = item.setdefault("metadata", {})
        if "name" not in metadata and "generateName" in metadata:
            metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
        if namespace:
            metadata["namespace"] = namespace
            self._check_namespace(namespace)
        key = resources.key(item)
        if key in collection.objects:
            raise _RefusalError(
                409, "AlreadyExists", f'{resource.plural} "{metadata["name"]}" already exists'
            )
        manager = call.query.get("fieldManager", "unknown")
        stored = _Stored(item, changed({}, manager, {}, item, applied=_is_apply(call)))
        self._default(resource, item)
        self._born(item)
        collection.objects[key] = stored
        self._record(collection, "ADDED", stored, None)
        return copy.deepcopy(item)

    def _check_namespace(self, name: str) -> None:
        """Refuse to make anything in a namespace that is being deleted."""
        there = self._collection(resources.NAMESPACES).objects.get(name)
        if there is not None and "deletionTimestamp" in there.item["metadata"]:
            text = f"namespace {name} is being terminated"
            cause = {"reason": "NamespaceTerminating", "message": text, "field": "metadata.namespace"}
            refusal = f"unable to create new content in namespace {name} because it is being terminated"
            raise _RefusalError(403, "Forbidden", refusal, [cause])

    def _scale(self, collection: _Collection, stored: _Stored, call: Call) -> None:
        body: Any = _body(call)["spec"]["replicas"]
        for name in reversed(_place(collection)):
            body = {name: body}
        manager = call.query.get("fieldManager", "unknown")
        after = merge(stored.item, body)
        stored.owned = changed(stored.owned, manager, stored.item, after)
        self._changed(collection, stored, after)

    def _resize(self, collection: _Collection, stored: _Stored, call: Call) -> Object:
        """Kubernetes' own merge, of what containers ask for alone; no kubelet acts on it."""
        if f"{collection.resource.plural}/resize" not in self.extra:
            raise _RefusalError(404, "NotFound", "the server could not find the requested resource")
        changes = {one["name"]: one["resources"] for one in _body(call)["spec"]["containers"]}
        after = copy.deepcopy(stored.item)
        for container in after["spec"]["containers"]:
            container["resources"] = merge(container.get("resources", {}), changes.get(container["name"], {}))
        stored.owned = changed(stored.owned, call.query.get("fieldManager", "unknown"), stored.item, after)
        self._changed(collection, stored, after)
        return copy.deepcopy(stored.item)

    def _shown(self, collection: _Collection, stored: _Stored, subresource: str | None) -> Object:
        if subresource != "scale":
            return copy.deepcopy(stored.item)
        replicas: Any = stored.item
        for name in _place(collection):
            replicas = replicas.get(name, {})
        metadata = {
            name: stored.item["metadata"].get(name)
            for name in ("name", "namespace", "uid", "resourceVersion")
        }
        # As the real one does, it leaves out a number that is zero.
        spec = {"replicas": replicas} if replicas else {}
        return {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": spec}

    def _delete(self, collection: _Collection, stored: _Stored, call: Call) -> Object:
        metadata = stored.item["metadata"]
        uid = ((call.body or {}).get("preconditions") or {}).get("uid")
        if uid is not None and uid != metadata["uid"]:
            raise _RefusalError(409, "Conflict", f"Precondition failed: UID in precondition: {uid}")
        if metadata.get("finalizers"):
            after = merge(stored.item, {"metadata": {"deletionTimestamp": self._now()}})
            self._changed(collection, stored, after)
        else:
            self._gone(collection, stored)
        return {"kind": "Status", "status": "Success"}

    def _list(self, collection: _Collection, namespace: str | None, call: Call) -> Object:
        selects = _selector(call.query.get("labelSelector", ""), call.query.get("fieldSelector", ""))
        items = [
            copy.deepcopy(stored.item)
            for key, stored in sorted(collection.objects.items())
            if (namespace is None or key.startswith(f"{namespace}/")) and selects(stored.item)
        ]
        for item in items:
            del item["apiVersion"], item["kind"]
        return {"metadata": {"resourceVersion": str(self._last)}, "items": items}

    # --- watches ----------------------------------------------------------------------------------------

    async def watch(self, call: Call) -> AsyncIterator[bytes]:
        """Lines of a watch, until :meth:`disconnect`."""
        self.calls.append(call)
        match = _PATH.match(call.path)
        assert match is not None  # noqa: S101 - the client makes no other
        collection = self._collection(_KNOWN[match["core"] or match["group"], match["plural"]])
        selects = _selector(call.query.get("labelSelector", ""), call.query.get("fieldSelector", ""))
        at, epoch = int(call.query["resourceVersion"]), self._epoch
        while epoch == self._epoch:
            if at < self._oldest:
                gone = _RefusalError(410, "Expired", f"too old resource version: {at} ({self._oldest})")
                yield orjson.dumps({"type": "ERROR", "object": gone.document})
                return
            news = self._news
            for version, change, item, before in [entry for entry in collection.history if entry[0] > at]:
                at = version
                if (
                    match["namespace"]
                    and item["metadata"].get("namespace", match["namespace"]) != match["namespace"]
                ):
                    continue
                line = _seen(change, item, before, selects)
                if line is not None:
                    yield line
            if epoch == self._epoch:
                await news.wait()

    async def follow(self, call: Call) -> AsyncIterator[bytes]:
        """Lines of a container, those that come as well, until :meth:`end_logs` or :meth:`disconnect`.

        They are to begin with their times.
        """
        self.calls.append(call)
        match = _PATH.match(call.path)
        assert match is not None  # noqa: S101 - the client makes no other
        key, since, epoch = (
            f"{match['namespace']}/{match['name']}",
            call.query.get("sinceTime", ""),
            self._epoch,
        )
        told = 0
        while epoch == self._epoch:
            news = self._news
            lines = self._texts.get(f"{key}/False", [])
            for line in lines[told:]:
                told += 1
                if line[:19] >= since[:19]:
                    yield f"{line}\n".encode()
            if key in self._ended:
                return
            await news.wait()

    # --- inside -----------------------------------------------------------------------------------------

    def _collection(self, resource: Resource) -> _Collection:
        return self._collections.setdefault((resource.api, resource.plural), _Collection(resource))

    def _born(self, item: Object) -> None:
        metadata = item["metadata"]
        metadata.setdefault("uid", str(uuid.uuid4()))
        metadata.setdefault("creationTimestamp", self._now())
        metadata.setdefault("generation", 1)

    def _default(self, resource: Resource, item: Object) -> None:
        if resource.plural == "deployments":
            item.setdefault("spec", {}).setdefault("replicas", 1)

    def _changed(self, collection: _Collection, stored: _Stored, after: Object) -> None:
        before = stored.item
        after = copy.deepcopy(after)
        for name in ("uid", "creationTimestamp", "generation", "resourceVersion"):
            after["metadata"][name] = before["metadata"][name]
        if after == before:
            return
        if after.get("spec") != before.get("spec"):
            after["metadata"]["generation"] += 1
        stored.item = after
        if "deletionTimestamp" in after["metadata"] and not after["metadata"].get("finalizers"):
            self._gone(collection, stored)
        else:
            self._record(collection, "MODIFIED", stored, before)

    def _gone(self, collection: _Collection, stored: _Stored) -> None:
        del collection.objects[resources.key(stored.item)]
        self._record(collection, "DELETED", stored, copy.deepcopy(stored.item))
        uid = stored.item["metadata"]["uid"]
        for other in list(self._collections.values()):
            for dependent in list(other.objects.values()):
                owners = dependent.item["metadata"].get("ownerReferences", ())
                if owners and all(owner["uid"] == uid for owner in owners):
                    self._gone(other, dependent)

    def _record(self, collection: _Collection, change: str, stored: _Stored, before: Object | None) -> None:
        self._last = next(self._version)
        stored.item["metadata"]["resourceVersion"] = str(self._last)
        collection.history.append((self._last, change, copy.deepcopy(stored.item), before))
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class _MemoryTransport:
    def __init__(self, server: ApiServer) -> None:
        self._server = server

    async def send(self, call: Call) -> tuple[int, bytes]:
        await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop, as any call over a network takes
        return self._server.answer(call)

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        injected = self._server.fail(call)
        if injected is not None:
            self._server.calls.append(call)
            yield injected, _no_lines()
        elif call.path.endswith("/log"):
            yield 200, self._server.follow(call)
        else:
            yield 200, self._server.watch(call)

    async def close(self) -> None:
        """Nothing is open."""


async def _no_lines() -> AsyncIterator[bytes]:
    lines: tuple[bytes, ...] = ()
    for line in lines:
        yield line


def _body(call: Call) -> Object:
    return copy.deepcopy(call.body) or {}


def _is_apply(call: Call) -> bool:
    return call.method == "PATCH" and "apply" in call.content_type


def _part(body: Object, subresource: str | None, resource: Resource) -> Object:
    """What of ``body`` a write may change: through its subresource the status, and else all but that."""
    if subresource == "status":
        return {"metadata": {}, "status": body.get("status", {})}
    if resource.plural in _WITH_STATUS:
        body = {name: value for name, value in body.items() if name != "status"}
    return body


def _seen(
    change: str, item: Object, before: Object | None, selects: Callable[[Object], bool]
) -> bytes | None:
    """What a watch with a selector is told: an object that is selected no more is deleted to it."""
    if change == "BOOKMARK":
        return orjson.dumps({"type": change, "object": item})
    known = before is not None and selects(before)
    if change == "DELETED" or not selects(item):
        return orjson.dumps({"type": "DELETED", "object": item}) if known else None
    return orjson.dumps({"type": "MODIFIED" if known else "ADDED", "object": item})


def _selector(text: str, fields: str = "") -> Callable[[Object], bool]:
    """By labels, and by fields that equal a value (``a.b=value``)."""
    terms = [term.strip() for term in text.split(",") if term.strip()]
    wanted = [term.split("=", 1) for term in fields.split(",") if term]

    def selects(item: Object) -> bool:
        if any(_at(item, path) != value for path, value in wanted):
            return False
        labels: dict[str, str] = item["metadata"].get("labels") or {}
        for term in terms:
            name, equals, value = term.partition("=")
            if name.startswith("!"):
                matches = name[1:] not in labels
            elif name.endswith("!"):
                matches = labels.get(name[:-1]) != value
            else:
                matches = name in labels and (not equals or labels[name] == value.lstrip("="))
            if not matches:
                return False
        return True

    return selects


def _at(item: Any, path: str) -> Any:
    for name in path.split("."):
        item = (item or {}).get(name)
    return item


def _place(collection: _Collection) -> tuple[str, ...]:
    """Where a kind keeps how many pods it should have."""
    place = _SCALES.get(collection.resource.plural)
    if place is None:
        raise _RefusalError(404, "NotFound", "the server could not find the requested resource")
    return place
