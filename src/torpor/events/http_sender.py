"""Reaching functions through the gateway: its internal listener routes by the ``torpor-function`` header."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torpor.errors import ConnectError
from torpor.events.sender import Response

if TYPE_CHECKING:
    from torpor.binding import Headers
    from torpor.endpoint import Endpoint
    from torpor.transport import Client

_METHOD, _TARGET = b"POST", b"/"


class GatewaySender:
    """Keeps :class:`torpor.events.sender.Sender`. ``gateway`` may be set, and changed, at any time."""

    def __init__(self, client: Client, gateway: Endpoint | None = None) -> None:
        self._client = client
        self.gateway = gateway

    async def send(
        self, function_key: str, headers: Headers, body: bytes, timeout_seconds: float
    ) -> Response:
        """POST to the function of this key and return its whole answer."""
        if self.gateway is None:
            raise ConnectError("the gateway is not known yet")
        answer = await self._client.request(
            self.gateway,
            _METHOD,
            _TARGET,
            [*headers, (b"torpor-function", function_key.encode())],
            body,
            timeout_seconds=timeout_seconds,
        )
        return Response(answer.status, answer.headers, answer.body)
