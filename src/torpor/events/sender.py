"""How the dispatcher reaches functions: a protocol, so that a test can stand in for the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torpor.transport import Response

if TYPE_CHECKING:
    from torpor.binding import Headers

__all__ = ["Response", "Sender"]


class Sender(Protocol):
    """Calls functions."""

    async def send(
        self, function_key: str, headers: Headers, body: bytes, timeout_seconds: float
    ) -> Response:
        """POST to the function of this key (``namespace/name``) and return its whole answer.

        Raises :class:`~torpor.errors.TransportError` when none comes.
        """
        ...
