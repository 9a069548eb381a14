"""The API as a pod of a cluster: put together, and served until it is told to end.

Three ports: the REST API, blobs for functions and the platform's other parts, and health. Whom each is open
to is the business of network policies, and of the API server's service proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from torpor import serving as server
from torpor.api.app import ApiOptions, create
from torpor.api.server import serving
from torpor.clock import SystemClock, first_of
from torpor.cluster import blobs, names
from torpor.cluster.backend import ClusterBackend
from torpor.cluster.late import LateBlobs
from torpor.providers.kubernetes import pages
from torpor.providers.kubernetes.connection import connect
from torpor.providers.kubernetes.kube import closing
from torpor.transport import Client

if TYPE_CHECKING:
    from torpor.settings import ApiSettings

# The API server's service proxy hands on the name that its client has for the API server, which may be any.
# A pod is not on a loopback interface, where a web page could reach it by a name of its own.
_OPTIONS = ApiOptions(allowed_hosts=("*",))
_LOG_CONNECTIONS = 1024
_BLOB_GRACE_SECONDS = 20


async def run(settings: ApiSettings, ending: asyncio.Event) -> None:
    """Serve until ``ending`` is set.

    Raises :class:`~torpor.errors.StartError` without a way to the cluster.
    """
    clock = SystemClock()
    kubeconfig = settings.kubeconfig or None
    kept = LateBlobs(settings.nats_url, settings.nats_token, blobs_url(settings), clock)
    async with contextlib.AsyncExitStack() as stack:
        kube = await stack.enter_async_context(closing(await connect(kubeconfig=kubeconfig)))
        connecting = connect(kubeconfig=kubeconfig, connections=_LOG_CONNECTIONS)
        log_kube = await stack.enter_async_context(closing(await connecting))
        client = Client(clock=clock)
        stack.push_async_callback(client.close)
        backend = ClusterBackend(
            kube, log_kube, client, clock, kept, namespace=settings.namespace, url=settings.url
        )
        working = asyncio.create_task(_work(backend, kept))
        stack.push_async_callback(_end, working)
        await stack.enter_async_context(pages.serving(settings.health_port, ready=lambda: backend.ready))
        blobs_listener = _listen(settings.host, settings.blobs_port)
        blobs_app = blobs.app(kept)
        await stack.enter_async_context(
            server.serving(blobs_app, blobs_listener, grace_seconds=_BLOB_GRACE_SECONDS)
        )
        listener = _listen(settings.host, settings.http_port)
        await stack.enter_async_context(serving(create(backend, _OPTIONS), listener))
        await first_of(ending.wait(), asyncio.shield(working))
        if working.done():
            working.result()


def blobs_url(settings: ApiSettings) -> str:
    """Where functions reach blobs."""
    port = names.INTERNAL_PORT
    return settings.blobs_url or f"http://{names.API}.{settings.namespace}.svc:{port}/blobs"


async def _work(backend: ClusterBackend, kept: LateBlobs) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(backend.run())
        group.create_task(kept.run())


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.create_server((host, port), backlog=1024)
    listener.setblocking(False)
    return listener
