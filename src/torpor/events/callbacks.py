"""Makes callbacks: one POST to a URL that a caller gave, and never to a network that is refused.

The name is looked up here, and the connection goes to an address that was looked at: a name that leads
elsewhere a moment later changes nothing. No redirect is followed, no proxy is used, and of the answer only
its status counts.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from torpor.errors import BrokenError, ConnectError, ForbiddenAddressError, TimedOutError
from torpor.events.callback_urls import shown
from torpor.transport import Response

if TYPE_CHECKING:
    import httpx

    from torpor.binding import Headers
    from torpor.events.callback_urls import Networks

_MAX_ADDRESSES = 3
_MAX_CONNECTIONS = 256
_LONGEST_SECONDS = 300.0  # whoever sends says how long


class CallbackSender:
    """Keeps :class:`torpor.events.sender.Poster`, for anywhere but the networks ``refused``."""

    def __init__(self, refused: Networks) -> None:
        self.refused = refused
        self._client: httpx.AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def send(self, url: str, headers: Headers, body: bytes, timeout_seconds: float) -> Response:
        """POST ``body``; of the answer, whose body is not read, its status and headers.

        Raises :class:`~torpor.errors.ForbiddenAddressError`, or another
        :class:`~torpor.errors.TransportError` when no answer comes.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._send(url, headers, body)
        except TimeoutError as error:
            raise TimedOutError(f"no answer within {timeout_seconds:g} s") from error

    async def close(self) -> None:
        """Close every connection."""
        if self._client is not None:
            await self._client.aclose()

    async def _send(self, url: str, headers: Headers, body: bytes) -> Response:
        import httpx  # noqa: PLC0415 - most platforms make no callbacks

        client = await self._opened()
        try:
            parsed = httpx.URL(url)
            host = parsed.host
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ForbiddenAddressError(f"{shown(url)} is no URL: {error}") from error
        port = parsed.port or (443 if parsed.scheme == "https" else 80)
        addresses = await self._addresses(host, port)
        trouble: Exception | None = None
        for address in addresses[:_MAX_ADDRESSES]:
            request = client.build_request(
                "POST",
                parsed.copy_with(host=address),
                headers=[*headers, (b"host", parsed.netloc), (b"user-agent", b"torpor")],
                content=body,
                extensions={"sni_hostname": host},
            )
            try:
                response = await client.send(request, stream=True)
            except httpx.ConnectError as error:
                trouble = error
                continue
            except httpx.HTTPError as error:
                raise BrokenError(f"no answer came: {str(error) or type(error).__name__}") from error
            await response.aclose()
            return Response(
                response.status_code, [(name.lower(), value) for name, value in response.headers.raw], b""
            )
        raise ConnectError(f"no connection to {host}: {trouble}") from trouble

    async def _addresses(self, host: str, port: int) -> list[str]:
        """Those that ``host`` has and that are allowed."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ConnectError(f"{host} can't be looked up: {error}") from error
        except UnicodeError as error:
            raise ForbiddenAddressError(f"{host} is no name of a host: {error}") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        allowed = [each for each in addresses if each not in self.refused]
        if addresses and not allowed:
            raise ForbiddenAddressError(f"{host} is at {addresses[0]}, where callbacks may not go")
        return allowed

    async def _opened(self) -> httpx.AsyncClient:
        import httpx  # noqa: PLC0415 - as above

        async with self._opening:
            if self._client is None:
                # From the environment come the authorities alone: a proxy would look names up by itself.
                authorities = await asyncio.to_thread(httpx.create_ssl_context)
                # No connection is used again: an address may belong to several names, each with its own
                # certificate.
                limits = httpx.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=0)
                self._client = httpx.AsyncClient(
                    verify=authorities, trust_env=False, timeout=_LONGEST_SECONDS, limits=limits
                )
        return self._client
