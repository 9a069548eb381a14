"""The API as a pod of a cluster: put together, and served until it is told to end.

Three ports: the REST API, blobs for functions and the platform's other parts, and health. Whom each is open
to is the business of network policies, and of the API server's service proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from torpor import serving as server
from torpor.api.app import ApiOptions, create
from torpor.api.server import serving
from torpor.blobs import BlobStore
from torpor.clock import SystemClock, alongside, cancel
from torpor.cluster import blobs, names
from torpor.cluster.backend import ClusterBackend
from torpor.errors import BlobError
from torpor.events.blob_keeper import blob_keeper
from torpor.providers.kubernetes import pages
from torpor.providers.kubernetes.connection import connect
from torpor.providers.kubernetes.kube import closing
from torpor.transport import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from torpor.blobs import Blobs, OpenBlob
    from torpor.clock import Clock
    from torpor.settings import ApiSettings

# The API server's service proxy hands on the name that its client has for the API server, which may be any.
# A pod is not on a loopback interface, where a web page could reach it by a name of its own.
_OPTIONS = ApiOptions(allowed_hosts=("*",))
_LOG_CONNECTIONS = 1024
_BLOB_GRACE_SECONDS = 20
_NOWHERE = (
    "this platform keeps no blobs: its chart has no blobs.url, which is needed where events are in Kafka"
)


class ApiPod:
    """Everything that the API's process runs."""

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self.ports: dict[str, int] = {}
        """``http``, ``blobs`` and ``agent``, once they are open."""

    async def run(self, ending: asyncio.Event) -> None:
        """Serve until ``ending`` is set.

        Raises :class:`~torpor.errors.StartError` without a way to the cluster.
        """
        settings, clock = self._settings, SystemClock()
        kubeconfig = settings.kubeconfig or None
        async with contextlib.AsyncExitStack() as stack:
            kept = _blobs(settings, clock, stack)
            kube = await stack.enter_async_context(closing(await connect(kubeconfig=kubeconfig)))
            connecting = connect(kubeconfig=kubeconfig, connections=_LOG_CONNECTIONS)
            log_kube = await stack.enter_async_context(closing(await connecting))
            client = Client(clock=clock)
            stack.push_async_callback(client.close)
            backend = ClusterBackend(
                kube, log_kube, client, clock, kept, namespace=settings.namespace, url=settings.url
            )
            working = asyncio.create_task(backend.run())
            stack.push_async_callback(cancel, working)
            await self._open(stack, backend, kept)
            await alongside(ending.wait(), [working])

    async def _open(self, stack: contextlib.AsyncExitStack, backend: ClusterBackend, kept: Blobs) -> None:
        settings = self._settings
        agent = pages.serving(settings.health_port, ready=lambda: backend.ready)
        self.ports["agent"] = await stack.enter_async_context(agent)
        listener = server.listen(settings.host, settings.blobs_port)
        serving_blobs = server.serving(blobs.app(kept), listener, grace_seconds=_BLOB_GRACE_SECONDS)
        self.ports["blobs"] = (await stack.enter_async_context(serving_blobs)).port
        listener = server.listen(settings.host, settings.http_port)
        endpoint = await stack.enter_async_context(serving(create(backend, _OPTIONS), listener))
        self.ports["http"] = endpoint.port


def _blobs(settings: ApiSettings, clock: Clock, stack: contextlib.AsyncExitStack) -> Blobs:
    if not settings.blobs_store:
        return _NoBlobs()
    url = settings.blobs_url or names.blobs_url(settings.namespace)
    token, copies = settings.nats_token, settings.nats_copies
    keeper = blob_keeper(settings.blobs_store, clock, nats_token=token, nats_copies=copies)
    stack.push_async_callback(keeper.close)
    return BlobStore(url, keeper)


class _NoBlobs:
    """What is said where there is no place for blobs."""

    async def put_stream(
        self,
        chunks: AsyncIterator[bytes],  # noqa: ARG002
        content_type: str | None = None,  # noqa: ARG002
    ) -> str:
        raise BlobError(_NOWHERE)

    async def open(self, name: str) -> OpenBlob:  # noqa: ARG002
        raise BlobError(_NOWHERE)
