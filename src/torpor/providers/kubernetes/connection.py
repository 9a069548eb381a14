"""The way to a real API server: addresses and credentials by the official client, requests by its session.

The official package knows every way in which a kubeconfig can name credentials, and how they are renewed.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client.api_client import ApiClient

from torpor.errors import ClusterUnreachableError
from torpor.providers.kubernetes.kube import Kube
from torpor.providers.kubernetes.kubeconfig import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kubernetes.aio.client.configuration import Configuration

    from torpor.providers.kubernetes.kube import Call

_CONNECT_SECONDS = 10.0


async def connect(
    *, kubeconfig: str | None = None, context: str | None = None, connections: int = 64
) -> Kube:
    """A client of the cluster that this pod is in, or that a kubeconfig names.

    In a pod neither of those is needed. It has so many ``connections`` at most. Raises as
    :func:`~torpor.providers.kubernetes.kubeconfig.load` does.
    """
    return Kube(HttpTransport(await load(kubeconfig, context), connections))


class HttpTransport:
    """Sends calls to the API server that ``configuration`` names. Belongs to one running loop."""

    def __init__(self, configuration: Configuration, connections: int = 64) -> None:
        configuration.connection_pool_maxsize = connections
        self._client = ApiClient(configuration)
        self._client.user_agent = "torpor"

    async def close(self) -> None:
        """End its connections."""
        await self._client.close()

    async def send(self, call: Call) -> tuple[int, bytes]:
        """See :class:`~torpor.providers.kubernetes.kube.Transport`."""
        try:
            async with asyncio.timeout(call.timeout_seconds):
                response = await self._request(call)
                async with response:
                    return response.status, await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreachable(call, error) from error

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """See :class:`~torpor.providers.kubernetes.kube.Transport`."""
        try:
            async with asyncio.timeout(call.answer_seconds):
                response = await self._request(call)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreachable(call, error) from error
        try:
            yield response.status, _lines(call, response)
        finally:
            response.close()

    async def _request(self, call: Call) -> aiohttp.ClientResponse:
        configuration = self._client.configuration
        headers = {"Accept": "application/json", "Content-Type": call.content_type, "User-Agent": "torpor"}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], call.path, call.method, None)
        url = configuration.host + call.path + (f"?{urlencode(call.query)}" if call.query else "")
        timeout: Any = aiohttp.ClientTimeout(total=call.timeout_seconds, sock_connect=_CONNECT_SECONDS)
        response = await self._client.rest_client.request(
            call.method, url, headers=headers, body=call.body, _request_timeout=timeout
        )
        answer: aiohttp.ClientResponse = response.response
        return answer


async def _lines(call: Call, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for line in response.content:
            if line.strip():
                yield line
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:  # ValueError: an endless line
        raise _unreachable(call, error) from error


def _unreachable(call: Call, error: Exception) -> ClusterUnreachableError:
    text = str(error) or type(error).__name__
    return ClusterUnreachableError(f"the API server can't be reached ({call.method} {call.path}): {text}")
