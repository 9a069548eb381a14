"""How the dispatcher reaches functions: a protocol, so that a test can stand in for the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torpor.transport import Headers, Response

_INSTANCE = b"torpor-instance"


def instance_of(response: Response) -> str:
    """The id of the function's instance that gave the answer, as the gateway says; empty where none did."""
    return (response.header(_INSTANCE) or b"").decode("ascii", "replace")


def as_part_of(whole: Response, part: Response) -> Response:
    """``part``, as given by the instance that gave ``whole``."""
    named = whole.header(_INSTANCE)
    rest = [header for header in part.headers if header[0] != _INSTANCE]
    return part._replace(headers=rest if named is None else [*rest, (_INSTANCE, named)])


class Sender(Protocol):
    """Calls functions."""

    async def send(self, function_key: str, fields: bytes, body: bytes, timeout_seconds: float) -> Response:
        """POST to the function of this key (``namespace/name``) and return its whole answer.

        ``fields`` are header lines (:func:`torpor.transport.encode_fields`). Raises
        :class:`~torpor.errors.TransportError` when none comes.
        """
        ...


class Poster(Protocol):
    """Calls anybody back."""

    async def send(self, url: str, headers: Headers, body: bytes, timeout_seconds: float) -> Response:
        """POST ``body`` to ``url``; of the answer, status and headers.

        Raises :class:`~torpor.errors.ForbiddenAddressError` where nobody may be called back, or another
        :class:`~torpor.errors.TransportError` when no answer comes.
        """
        ...


class Forwarder(Protocol):
    """Calls functions with requests of any kind."""

    async def forward(
        self,
        function_key: str,
        method: bytes,
        target: bytes,
        fields: bytes,
        body: bytes,
        timeout_seconds: float,
    ) -> Response:
        """Send a request to the function of this key and return its whole answer.

        ``fields`` are header lines (:func:`torpor.transport.encode_fields`). Raises
        :class:`~torpor.errors.TransportError` when none comes.
        """
        ...
