"""The one client of the Kubernetes API: objects are plain JSON, and errors are Torpor's.

It retries nothing and caches nothing: who calls it is level-triggered, and does it again. How requests travel
is a :class:`Transport`'s matter, so that :mod:`torpor.testing.kube` can stand for a whole API server.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import orjson

from torpor.errors import (
    ClusterConflictError,
    ClusterEndingError,
    ClusterError,
    ClusterGoneError,
    ClusterMissingError,
    ClusterRefusedError,
)
from torpor.providers.kubernetes.resources import PODS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from torpor.providers.kubernetes.resources import Object, Resource

MANAGER = "torpor"
"""The field manager of everything that is declared by :meth:`Kube.apply`."""
PAGE = 500
# What the server says, with status 500, of a field in an apply that is not in the schema.
_UNTYPED = "failed to create typed patch object"
_REFUSED = frozenset((400, 401, 403, 405, 406, 413, 415, 422))
# metav1.CauseType of what an API server's NamespaceLifecycle plugin refuses.
_ENDING = "NamespaceTerminating"

Change = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
Propagation = Literal["Background", "Foreground", "Orphan"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the API; ``timeout_seconds`` bounds the whole of it, and ``answer_seconds`` the time
    until an answer that goes on begins.
    """

    method: str
    path: str
    query: Mapping[str, str]
    body: Object | None = None
    content_type: str = "application/json"
    timeout_seconds: float = 30.0
    answer_seconds: float = 10.0


class Transport(Protocol):
    """How calls reach an API server."""

    async def send(self, call: Call) -> tuple[int, bytes]:
        """Status and body of the answer; raises ``ClusterUnreachableError`` when there is none."""
        ...

    def stream(self, call: Call) -> AbstractAsyncContextManager[tuple[int, AsyncIterator[bytes]]]:
        """Status and lines of an answer that goes on; raises as :meth:`send` does, in its lines too."""
        ...

    async def close(self) -> None:
        """End its connections."""
        ...


@dataclass(frozen=True, slots=True)
class Listed:
    """Objects, and the version of the collection that they were read at."""

    items: list[Object]
    version: str


@dataclass(frozen=True, slots=True)
class Event:
    """One change that a watch saw; a bookmark's object has nothing but its version."""

    change: Change
    item: Object

    @property
    def version(self) -> str:
        """Where to go on after it."""
        return str(self.item["metadata"]["resourceVersion"])


class Kube:
    """Reads and writes objects. Every method raises :class:`~torpor.errors.ClusterError` or one of its kinds:

    ``ClusterMissingError`` (404), ``ClusterConflictError`` (409), ``ClusterGoneError`` (410, list anew),
    ``ClusterRefusedError`` (what was sent is wrong or not allowed) and ``ClusterUnreachableError`` (nobody
    answers; what was sent may have been done).
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def close(self) -> None:
        """End its connections."""
        await self._transport.close()

    # --- reading ------------------------------------------------------------------------------------------

    async def get(
        self, resource: Resource, namespace: str | None, name: str, *, subresource: str | None = None
    ) -> Object | None:
        """One object, or what a ``subresource`` shows of it; ``None`` where there is none."""
        try:
            return await self._send(Call("GET", resource.path(namespace, name, subresource), {}))
        except ClusterMissingError:
            return None

    async def list(
        self, resource: Resource, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> Listed:
        """All objects, of one namespace or of all, that ``labels`` and ``fields`` (selectors) select."""
        items: list[Object] = []
        query = {"limit": str(PAGE)} | _selecting(labels, fields)
        while True:
            page = await self._send(Call("GET", resource.path(namespace), query))
            # An object in a list does not say what it is.
            items += [
                {"apiVersion": resource.api, "kind": resource.kind, **item} for item in page["items"] or ()
            ]
            going_on = page["metadata"].get("continue")
            if not going_on:
                return Listed(items, page["metadata"]["resourceVersion"])
            query["continue"] = going_on

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        name: str = "",
        since: str,
        timeout_seconds: float = 300.0,
    ) -> AsyncIterator[Event]:
        """Changes after the version ``since``, bookmarks among them, until the server or the time ends it.

        Of what ``labels`` and ``fields`` select; with ``name`` that object's, which is all that some may see.
        To go on, watch again since the last event's version; ``ClusterGoneError`` says to list anew.
        """
        query = {
            "watch": "1",
            "resourceVersion": since,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, round(timeout_seconds))),
        } | _selecting(labels, f"metadata.name={name}" if name else fields)
        call = Call("GET", resource.path(namespace), query, timeout_seconds=timeout_seconds + 15.0)
        async with self._transport.stream(call) as (status, lines):
            if status != 200:
                raise _error(status, b"".join([line async for line in lines]))
            async for line in lines:
                document = orjson.loads(line)
                if document["type"] == "ERROR":
                    raise _error(int(document["object"].get("code", 500)), orjson.dumps(document["object"]))
                yield Event(document["type"], document["object"])

    async def logs(
        self,
        namespace: str,
        pod: str,
        *,
        container: str,
        lines: int,
        previous: bool = False,
        timestamps: bool = False,
        limit_bytes: int = 64 * 1024,
    ) -> tuple[str, ...]:
        """The last lines that a container wrote, the one before it if ``previous``.

        With ``timestamps`` each begins with the time of it. Of more than ``limit_bytes`` the end is cut off.
        """
        query = {"container": container, "tailLines": str(lines), "limitBytes": str(limit_bytes)}
        if previous:
            query["previous"] = "true"
        if timestamps:
            query["timestamps"] = "true"
        call = Call("GET", PODS.path(namespace, pod, "log"), query)
        status, body = await self._transport.send(call)
        if status != 200:
            raise _error(status, body)
        text = body.decode("utf-8", "replace")
        return tuple(text.removesuffix("\n").split("\n")) if text else ()

    async def follow_logs(
        self, namespace: str, pod: str, *, container: str, since: str = "", timeout_seconds: float = 600.0
    ) -> AsyncGenerator[str, None]:
        """Each line that a container has written and writes, with its time before it, until it ends.

        With ``since``, a time in RFC 3339 that is taken in whole seconds, only those from then on. A time-out
        is raised as ``ClusterUnreachableError``.
        """
        query = {"container": container, "follow": "true", "timestamps": "true"}
        if since:
            query["sinceTime"] = since
        path = PODS.path(namespace, pod, "log")
        # Of a container that writes nothing, the answer does not even begin.
        call = Call("GET", path, query, timeout_seconds=timeout_seconds, answer_seconds=timeout_seconds)
        async with self._transport.stream(call) as (status, lines):
            if status != 200:
                raise _error(status, b"".join([line async for line in lines]))
            async for line in lines:
                yield line.decode("utf-8", "replace").removesuffix("\n")

    async def subresources(self, resource: Resource) -> frozenset[str]:
        """Which subresources the server has for ``resource``, such as ``status``."""
        base = f"/api/{resource.api}" if "/" not in resource.api else f"/apis/{resource.api}"
        found = await self._send(Call("GET", base, {}))
        names = (one["name"].partition("/") for one in found["resources"])
        return frozenset(subresource for plural, _, subresource in names if plural == resource.plural) - {""}

    # --- writing ------------------------------------------------------------------------------------------

    async def create(self, resource: Resource, item: Object, *, manager: str = MANAGER) -> Object:
        """Make ``item``; ``ClusterConflictError`` says that there is one of its name."""
        path = resource.path(item["metadata"].get("namespace"))
        query = {"fieldManager": manager, "fieldValidation": "Strict"}
        return await self._send(Call("POST", path, query, item))

    async def apply(
        self,
        resource: Resource,
        item: Object,
        *,
        manager: str = MANAGER,
        subresource: str | None = None,
        force: bool = True,
        dry_run: bool = False,
    ) -> Object:
        """Declare what ``item`` has, and nothing else, to be as it says: server-side apply.

        What ``manager`` declared before and no longer does is taken away. ``force`` takes fields from others.
        """
        metadata = item["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource)
        query = {"fieldManager": manager, "force": str(force).lower(), "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        return await self._send(Call("PATCH", path, query, item, "application/apply-patch+yaml"))

    async def replace(self, resource: Resource, item: Object, *, manager: str = MANAGER) -> Object:
        """Put ``item`` in the place of the one of its ``resourceVersion``; a conflict says it changed."""
        metadata = item["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"])
        return await self._send(Call("PUT", path, {"fieldManager": manager}, item))

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Object,
        *,
        subresource: str | None = None,
        manager: str = MANAGER,
    ) -> Object:
        """Merge ``body`` into an object (RFC 7396: a null takes away, a list replaces the whole list)."""
        path = resource.path(namespace, name, subresource)
        call = Call("PATCH", path, {"fieldManager": manager}, body, "application/merge-patch+json")
        return await self._send(call)

    async def scale(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        replicas: int,
        *,
        manager: str = "torpor-scale",
        version: str | None = None,
    ) -> Object:
        """Set how many pods there should be, through the ``scale`` subresource.

        With a ``version`` that is no longer the object's, nothing is set: ``ClusterConflictError``.
        """
        body: Object = {"spec": {"replicas": replicas}}
        if version is not None:
            body["metadata"] = {"resourceVersion": version}
        return await self.patch(resource, namespace, name, body, subresource="scale", manager=manager)

    async def resize(
        self,
        namespace: str,
        pod: str,
        container: str,
        requests: Mapping[str, str],
        *,
        manager: str = MANAGER,
    ) -> Object:
        """Change what a container of a running pod asks for, in place; its node follows by itself.

        The ``resize`` subresource, by Kubernetes' own merge, which finds a container by its name.
        """
        path = PODS.path(namespace, pod, "resize")
        body: Object = {
            "spec": {"containers": [{"name": container, "resources": {"requests": dict(requests)}}]}
        }
        content_type = "application/strategic-merge-patch+json"
        return await self._send(Call("PATCH", path, {"fieldManager": manager}, body, content_type))

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        propagation: Propagation = "Background",
    ) -> bool:
        """Delete an object, only that of ``uid`` if given; whether there was one."""
        options: Object = {"propagationPolicy": propagation}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self._send(Call("DELETE", resource.path(namespace, name), {}, options))
        except ClusterMissingError:
            return False
        return True

    async def _send(self, call: Call) -> Object:
        status, body = await self._transport.send(call)
        if not 200 <= status < 300:
            raise _error(status, body)
        document: Object = orjson.loads(body)
        return document


def _selecting(labels: str, fields: str) -> dict[str, str]:
    selectors = {"labelSelector": labels, "fieldSelector": fields}
    return {name: selector for name, selector in selectors.items() if selector}


def _error(status: int, body: bytes) -> ClusterError:
    """The error that an answer is; its text is the server's own, which names the fields at fault."""
    message, reason = body.decode("utf-8", "replace").strip()[:2000], ""
    causes: tuple[tuple[str, str], ...] = ()
    ending = False
    try:
        document: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if isinstance(document, dict):
        message, reason = document.get("message") or message, document.get("reason") or ""
        listed = (document.get("details") or {}).get("causes") or ()
        causes = tuple((cause.get("field", ""), cause.get("message", "")) for cause in listed)
        ending = any(cause.get("reason") == _ENDING for cause in listed)
    kind = ClusterError
    if status == 404:
        kind = ClusterMissingError
    elif status == 409:
        kind = ClusterConflictError
    elif status == 410:
        kind = ClusterGoneError
    elif ending:
        kind = ClusterEndingError
    elif status in _REFUSED or message.startswith(_UNTYPED):
        kind = ClusterRefusedError
    return kind(message or f"the API server answered {status}", status=status, reason=reason, causes=causes)


@asynccontextmanager
async def closing(kube: Kube) -> AsyncIterator[Kube]:
    """``kube``, closed after."""
    try:
        yield kube
    finally:
        await kube.close()
