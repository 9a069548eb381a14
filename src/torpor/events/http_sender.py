"""Reaching functions through the gateway: its internal listener routes by the ``torpor-function`` header.

That the gateway could not be reached, or broke off, says nothing of the function: a pod of it is being
replaced, or its address is not known yet. So it is called again, within the time that the delivery has,
instead of spending one of the event's attempts. The function may then be called twice for one attempt, as
after any crash.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING

from torpor.errors import BrokenError, ConnectError
from torpor.events.places import Places
from torpor.transport import encode_fields

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from torpor.clock import Clock
    from torpor.endpoint import Endpoint
    from torpor.transport import Client, Response

_LOG = logging.getLogger("torpor.events")
_METHOD, _TARGET = b"POST", b"/"
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0


class GatewaySender:
    """Keeps :class:`torpor.events.sender.Sender`. ``gateway`` may be set, and changed, at any time.

    Its host may be a name: it is looked up for each new connection. All functions are behind one address, and
    share its connections: ``places`` of them.
    """

    def __init__(
        self, client: Client, clock: Clock, gateway: Endpoint | None = None, *, places: int = 256
    ) -> None:
        self._places = Places(places)
        self._client = client
        self._clock = clock
        self.gateway = gateway

    def send(
        self, function_key: str, fields: bytes, body: bytes, timeout_seconds: float
    ) -> Coroutine[Any, Any, Response]:
        """POST to the function of this key and return its whole answer."""
        return self.forward(function_key, _METHOD, _TARGET, fields, body, timeout_seconds)

    async def forward(
        self,
        function_key: str,
        method: bytes,
        target: bytes,
        fields: bytes,
        body: bytes,
        timeout_seconds: float,
    ) -> Response:
        """Send any request to the function of this key and return its whole answer.

        To wait for a place is none of the delivery's time.
        """
        fields += _address(function_key)
        if not self._places.take(function_key):
            await self._places.wait(function_key)
        deadline = self._clock.monotonic() + timeout_seconds
        left_seconds, pause_seconds = timeout_seconds, _FIRST_PAUSE_SECONDS
        try:
            while True:
                try:
                    return await self._client.request(
                        self._known(), method, target, fields, body, timeout_seconds=left_seconds
                    )
                except (ConnectError, BrokenError) as error:
                    if pause_seconds >= deadline - self._clock.monotonic():
                        raise
                    _LOG.debug("the gateway is called again", extra={"error": str(error)})
                await self._clock.sleep(pause_seconds)
                left_seconds = deadline - self._clock.monotonic()
                pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
        finally:
            self._places.give(function_key)

    def _known(self) -> Endpoint:
        if self.gateway is None:
            raise ConnectError("the gateway is not known yet")
        return self.gateway


@lru_cache(1024)
def _address(function_key: str) -> bytes:
    """The header line by which the gateway knows where a call goes."""
    return encode_fields([(b"torpor-function", function_key.encode())])
