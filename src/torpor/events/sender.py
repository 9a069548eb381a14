"""How the dispatcher reaches functions: a protocol, so that a test can stand in for the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from torpor.transport.message import first

if TYPE_CHECKING:
    from torpor.binding import Headers

_INSTANCE = b"torpor-instance"


class Response(NamedTuple):
    """A function's answer; header names are in lower case."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The first header of that name."""
        return first(self.headers, name)

    @property
    def instance(self) -> str:
        """The id of the function's instance that gave it, as the gateway says; empty where none did."""
        return (self.header(_INSTANCE) or b"").decode("ascii", "replace")

    def as_part_of(self, whole: Response) -> Response:
        """The same, as a part of ``whole``: given by the instance that gave that."""
        named = whole.header(_INSTANCE)
        rest = [header for header in self.headers if header[0] != _INSTANCE]
        return self._replace(headers=rest if named is None else [*rest, (_INSTANCE, named)])


class Sender(Protocol):
    """Calls functions."""

    async def send(
        self, function_key: str, headers: Headers, body: bytes, timeout_seconds: float
    ) -> Response:
        """POST to the function of this key (``namespace/name``) and return its whole answer.

        Raises :class:`~torpor.errors.TransportError` when none comes.
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
        headers: Headers,
        body: bytes,
        timeout_seconds: float,
    ) -> Response:
        """Send a request to the function of this key and return its whole answer.

        Raises :class:`~torpor.errors.TransportError` when none comes.
        """
        ...
